"""The card of a published model: every number from a file beside it, every missing fact an error."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from cosify.evaluation import Assessment, Table, tables_of
from cosify.evaluation.from_json import from_json
from cosify.functional import kappa_grid
from cosify.heads.kappa_statistics import KappaSummary
from cosify.hub.facts import USES, Facts
from cosify.hub.metadata import front_matter
from cosify.hub.readers import is_own_architecture
from cosify.hub.records import (
    ENVIRONMENT,
    EVALUATION,
    FINETUNE,
    METRICS,
    RUN,
    WEIGHTS,
    Finetuned,
    Weights,
    command_of,
    read_json,
)  # fmt: skip
from cosify.models.published import FACTS
from cosify.training.run_folder import read_metrics


@dataclass(frozen=True)
class CardInfo:
    """All that a card says.

    Attributes:
        name: of the folder, timm's `architecture.tag`.
        facts: what no run knows.
        config: of the model, config.json.
        run: of its training: script, arguments and what they became.
        environment: versions, commit, device.
        seconds: of the training.
        kappa: of the last epoch's training samples; None for a softmax head.
        evaluation: command and environment of the evaluation.
        assessment: what was measured.
        finetuned: on other tasks; may be empty.
        weights: that were measured.
        pictures: PNG files in the folder.
    """

    name: str
    facts: Facts
    config: dict[str, Any]
    run: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    kappa: KappaSummary | None
    evaluation: dict[str, Any]
    assessment: Assessment
    finetuned: tuple[Finetuned, ...]
    weights: Weights
    pictures: tuple[str, ...]

    @classmethod
    def of_folder(cls, folder: Path) -> "CardInfo":
        """Read a folder of `hub_cards`.

        Raises:
            ValueError: if a file or a fact is missing, or the weights are not those that were measured.
        """
        needed = ("config.json", RUN, METRICS, ENVIRONMENT, EVALUATION, FACTS)
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} lacks {', '.join(missing)}, expected what scripts/cards.py collects")
        run = read_json(folder / RUN)
        epochs = read_metrics(folder)
        evaluation = read_json(folder / EVALUATION)
        if not epochs or len(evaluation.get("models", [])) != 1:
            raise ValueError(f"{folder} has {len(epochs)} epochs and no single evaluated model, expected both")
        tuned = folder / FINETUNE
        finetuned = tuple(from_json(Finetuned, each) for each in read_json(tuned)) if tuned.is_file() else ()
        weights = from_json(Weights, evaluation.get("weights", {}))
        file = folder / WEIGHTS
        if file.is_file() and Weights.of_file(file) != weights:
            raise ValueError(f"{EVALUATION} in {folder} is of other weights than {file.name}; evaluate the folder anew")
        if any(each.weights_sha256 != weights.sha256 for each in finetuned):
            raise ValueError(f"{FINETUNE} in {folder} is of other weights than {file.name}; fine-tune the folder anew")
        return cls(
            name=folder.name,
            facts=Facts.read(folder / FACTS),
            config=read_json(folder / "config.json"),
            run=run,
            environment=read_json(folder / ENVIRONMENT),
            seconds=sum(record["seconds"] for record in epochs),
            kappa=KappaSummary.of_record(epochs[-1]),
            evaluation={name: evaluation[name] for name in ("command", "environment")},
            assessment=from_json(Assessment, evaluation["models"][0]),
            finetuned=finetuned,
            weights=weights,
            pictures=tuple(sorted(path.name for path in folder.glob("*.png"))),
        )

    @property
    def command(self) -> str:
        """Of the training."""
        return command_of(self.run)

    @property
    def own_architecture(self) -> bool:
        """Whether timm needs cosify to know the architecture."""
        return is_own_architecture(self.config)

    @property
    def head_kappa(self) -> float | None:
        """Kappa of the head in evaluation, None for a softmax head."""
        return self.assessment.scan.head_kappa

    @property
    def probes(self) -> dict[str, tuple[float, float]]:
        """Top-1 of the linear probe and its standard error, by task, in [0, 1]."""
        return {task: (each.probe.top1, each.standard_error) for task, each in self.assessment.transfer.items()}

    @property
    def kappa_shares(self) -> list[tuple[float, float]]:
        """Candidates of LS, and the share of test images with each; without those that none has."""
        counts = self.assessment.scan.kappa.histogram
        return [
            (float(kappa), count / sum(counts)) for kappa, count in zip(kappa_grid(), counts, strict=True) if count > 0
        ]

    def tables(self) -> list[Table]:
        """Return what was measured, without accuracy and kappa, which the text has."""
        return tables_of([self.assessment])[1:]


def render(info: CardInfo, siblings: list[CardInfo]) -> str:
    """Return the card, README.md with its front matter.

    Args:
        info: of the model.
        siblings: of its family, itself too, in the order to show.

    Raises:
        ValueError: if the front matter does not hold what the hub asks for.
    """
    import jinja2
    from huggingface_hub import ModelCard

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("cosify.hub").joinpath("card.md").read_text(encoding="utf-8"))
    baseline = [each for each in siblings if each.facts.use == "baseline" and each.name != info.name]
    body = template.render(info=info, siblings=siblings, baseline=baseline, uses=USES)
    text = f"---\n{front_matter(info)}\n---\n\n{body.strip()}\n"
    ModelCard(text, ignore_metadata_errors=False)  # raises where the model-index is malformed
    return text

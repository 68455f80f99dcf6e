"""The card of a published model: every number from a file beside it, every missing fact an error."""

import json
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from cosify.evaluation import Assessment, Table, tables_of
from cosify.evaluation.from_json import from_json
from cosify.heads.kappa_statistics import KappaSummary
from cosify.hub.publish import is_own_architecture
from cosify.training.recipe import Recipe
from cosify.training.run_folder import read_metrics

RUN, METRICS, ENVIRONMENT, EVALUATION, FACTS = (
    "run.json", "metrics.jsonl", "environment.json", "evaluation.json", "facts.yaml",
)  # fmt: skip
USES = {
    "rejection": "tell wrong predictions and outliers by the cosine",
    "classification": "classify",
    "transfer": "features for another task",
    "baseline": "compare with a stock softmax",
}


@dataclass(frozen=True)
class Facts:
    """What no run knows.

    Attributes:
        repo_id: `OWNER/NAME` on the hub.
        license: of the weights, an id of the hub.
        dataset_id: on the hub.
        dataset_name: for people.
        dataset_license: what is known of it.
        use: which of `USES`.
        siblings: names of the folders of the same family, this one too.
        limits: sentences on limits and risks.
        base_model: hub id of the weights it started from, None for weights from scratch.
        base_license: of these.
    """

    repo_id: str
    license: str
    dataset_id: str
    dataset_name: str
    dataset_license: str
    use: str
    siblings: tuple[str, ...]
    limits: tuple[str, ...]
    base_model: str | None = None
    base_license: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Read facts.yaml.

        Raises:
            ValueError: if a fact is missing, unknown or empty.
        """
        import yaml

        try:
            found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"{path} cannot be read ({type(error).__name__}), expected the facts of a card") from error
        known = {entry.name for entry in fields(cls)}
        optional = {"base_model", "base_license"}
        missing = sorted(name for name in known - optional if not (found or {}).get(name))
        unknown = sorted(set(found or {}) - known)
        if missing or unknown:
            raise ValueError(f"{path} lacks {missing} and has unknown {unknown}, expected {sorted(known)}; complete it")
        if found["use"] not in USES:
            raise ValueError(f"use in {path} is {found['use']!r}, expected one of {sorted(USES)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        return cls(**values)


@dataclass(frozen=True)
class CardInfo:
    """All that a card says.

    Attributes:
        name: of the folder, timm's `architecture.tag`.
        facts: what no run knows.
        config: of the model, config.json.
        run: of its training: script, arguments and what they became.
        settings: arguments that differ from the defaults.
        environment: versions, commit, device.
        seconds: of the training.
        kappa: of the last epoch's training samples; None for a softmax head.
        evaluation: command and environment of the evaluation.
        assessment: what was measured.
        size_bytes: of the weights.
        pictures: PNG files in the folder.
    """

    name: str
    facts: Facts
    config: dict[str, Any]
    run: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    kappa: KappaSummary | None
    evaluation: dict[str, Any]
    assessment: Assessment
    size_bytes: int
    pictures: tuple[str, ...]

    @classmethod
    def of_folder(cls, folder: Path) -> "CardInfo":
        """Read a folder of `hub_cards`.

        Raises:
            ValueError: if a file or a fact is missing.
        """
        needed = ("config.json", "model.safetensors", RUN, METRICS, ENVIRONMENT, EVALUATION, FACTS)
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} lacks {', '.join(missing)}, expected what scripts/cards.py collects")
        run = read_json(folder / RUN)
        epochs = read_metrics(folder)
        evaluation = read_json(folder / EVALUATION)
        if not epochs or len(evaluation.get("models", [])) != 1:
            raise ValueError(f"{folder} has {len(epochs)} epochs and no single evaluated model, expected both")
        defaults = Recipe()
        settings = {
            name: value
            for name, value in run["arguments"].items()
            if value not in (None, [], {}) and value != getattr(defaults, name, None)
        }
        return cls(
            name=folder.name,
            facts=Facts.read(folder / FACTS),
            config=read_json(folder / "config.json"),
            run=run,
            settings=settings,
            environment=read_json(folder / ENVIRONMENT),
            seconds=sum(record["seconds"] for record in epochs),
            kappa=KappaSummary.of_record(epochs[-1]),
            evaluation={name: evaluation[name] for name in ("command", "environment")},
            assessment=from_json(Assessment, evaluation["models"][0]),
            size_bytes=(folder / "model.safetensors").stat().st_size,
            pictures=tuple(sorted(path.name for path in folder.glob("*.png"))),
        )

    @property
    def own_architecture(self) -> bool:
        """Whether timm needs cosify to know the architecture."""
        return is_own_architecture(self.config)

    @property
    def head_kappa(self) -> float | None:
        """Kappa of the head in evaluation, None for a softmax head."""
        return self.assessment.scan.head_kappa

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
    body = template.render(info=info, siblings=siblings, uses=USES, facts=info.facts, scan=info.assessment.scan)
    text = f"---\n{front_matter(info)}\n---\n\n{body.strip()}\n"
    ModelCard(text, ignore_metadata_errors=False)  # raises where the model-index is malformed
    return text


def front_matter(info: CardInfo) -> str:
    """Return the YAML block that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    facts, assessment = info.facts, info.assessment

    def result(task: str, data: str, name: str, metric: str, value: float, **more: Any) -> EvalResult:
        return EvalResult(
            task_type=task,
            dataset_type=data,
            dataset_name=name,
            metric_type=metric,
            metric_value=round(value, 4),
            **more,
        )

    image = "image-classification"
    results = [
        result(image, facts.dataset_id, facts.dataset_name, "accuracy", assessment.accuracy, dataset_split="test"),
    ]
    results += [
        result(image, task, task, "accuracy", found.probe.top1, metric_name="linear probe, top-1")
        for task, found in assessment.transfer.items()
    ]
    data = ModelCardData(
        license=facts.license,
        library_name="timm",
        pipeline_tag=image,
        tags=[image, "timm", "transformers", "cosify"],
        datasets=[facts.dataset_id],
        base_model=facts.base_model,
        model_name=info.name,
        eval_results=results,
    )
    return data.to_yaml().strip()


def read_json(path: Path) -> dict[str, Any]:
    """Return a file that a script wrote.

    Raises:
        ValueError: if it is not there.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing, expected the output of a script; run it first")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found

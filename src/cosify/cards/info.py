"""All that a card says of a model, from the files in its folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cosify.cards.facts import Facts
from cosify.cards.records import AgainstStart, Finetuned, Measured, Verified, read_json
from cosify.errors import InputError
from cosify.evaluation import Assessment
from cosify.evaluation.json_records import from_json
from cosify.heads.kappa_statistics import KappaSummary
from cosify.hub.contents import (
    ENVIRONMENT,
    EVALUATION,
    FACTS,
    FINETUNED,
    METRICS,
    REJECTOR,
    RELIABILITY,
    RUN,
    TRACE,
    TRANSFER,
    VERIFICATION,
)
from cosify.models.binding import CONFIG, WEIGHTS
from cosify.models.published import backbones_folder
from cosify.training.run_folder import best_evaluation, read_metrics

Result = TypeVar("Result", Finetuned, AgainstStart, Verified)


@dataclass(frozen=True)
class CardInfo:
    """All that a card says of a model.

    Attributes:
        name: of the folder, timm's `architecture.tag`.
        facts: what no run knows.
        config: the model's config.json.
        run: its training: script, arguments and what they became.
        environment: versions, commit, device of the training.
        epochs: that the training made; fewer than were asked for after an early stop.
        best: record of the evaluation whose weights these are; None for those of the last step.
        seconds: of the training.
        kappa: of the last epoch's training samples; None for a softmax head.
        evaluation: command of the evaluation.
        assessment: what was measured.
        finetuned: results on other tasks; may be empty.
        compared: probes beside those of the weights that it started from; may be empty.
        verified: results on pairs of pictures; may be empty.
        measured: the files that were evaluated.
        rejector: what rejector.json says; None without one.
        opens_by_name: whether the folder lies where the package finds it.
    """

    name: str
    facts: Facts
    config: dict[str, Any]
    run: dict[str, Any]
    environment: dict[str, Any]
    epochs: int
    best: dict[str, Any] | None
    seconds: float
    kappa: KappaSummary | None
    evaluation: str
    assessment: Assessment
    finetuned: tuple[Finetuned, ...]
    compared: tuple[AgainstStart, ...]
    verified: tuple[Verified, ...]
    measured: Measured
    rejector: dict[str, Any] | None
    opens_by_name: bool

    @classmethod
    def of_folder(cls, folder: Path) -> "CardInfo":
        """Read a folder of `hub_cards`; the weights themselves need not be there.

        Raises:
            ValueError: if a file or a fact is missing, or a file has changed since it was evaluated.
        """
        needed = (CONFIG, RUN, METRICS, ENVIRONMENT, TRACE, EVALUATION, RELIABILITY, FACTS)
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder} lacks {', '.join(missing)}, expected what cosify card collects")
        evaluation = read_json(folder / EVALUATION)
        measured = from_json(Measured, evaluation.get("measured", {}))
        changed = measured.changed(folder)
        if changed:
            raise InputError(f"{EVALUATION} in {folder} is of another {', '.join(changed)}; evaluate the folder anew")
        facts, run, epochs = Facts.read(folder / FACTS), read_json(folder / RUN), read_metrics(folder)
        facts = replace(facts, siblings=facts.siblings or (folder.name,))
        if folder.name not in facts.siblings:
            raise InputError(f"siblings in {folder / FACTS} lack {folder.name} itself; add it")
        facts.check_start(run)

        def results(kind: type[Result], name: str, act: str) -> tuple[Result, ...]:
            file = folder / name
            found = tuple(from_json(kind, each) for each in read_json(file)) if file.is_file() else ()
            if any(each.weights_sha256 != measured.sha256[WEIGHTS] for each in found):
                raise InputError(f"{name} in {folder} is of another {WEIGHTS}; {act} the folder anew")
            return found

        return cls(
            name=folder.name,
            facts=facts,
            config=read_json(folder / CONFIG),
            run=run,
            environment=read_json(folder / ENVIRONMENT),
            epochs=epochs[-1]["epoch"],
            best=best_evaluation(folder) if run["arguments"].get("export") == "best" else None,
            seconds=sum(record["seconds"] for record in epochs),
            kappa=KappaSummary.of_record(epochs[-1]),
            evaluation=evaluation["command"],
            assessment=from_json(Assessment, evaluation["models"][0]),
            finetuned=results(Finetuned, FINETUNED, "fine-tune"),
            compared=results(AgainstStart, TRANSFER, "compare"),
            verified=results(Verified, VERIFICATION, "verify"),
            measured=measured,
            rejector=read_json(folder / REJECTOR) if (folder / REJECTOR).is_file() else None,
            opens_by_name=folder.resolve().parent == backbones_folder().resolve(),
        )

    @property
    def head_kappa(self) -> float | None:
        """Kappa of the head in evaluation, None for a softmax head."""
        return self.assessment.scan.head_kappa

    @property
    def probes(self) -> dict[str, tuple[float, float]]:
        """Top-1 of the linear probe and its standard error, by task, in percent."""
        found = self.assessment.transfer.items()
        return {task: (100 * each.probe.top1, 100 * each.standard_error) for task, each in found}

    @property
    def tuned(self) -> dict[str, tuple[float, float]]:
        """Top-1 after fine-tuning and its standard error, by task, in percent."""
        return {each.task: (100 * each.accuracy, 100 * each.standard_error) for each in self.finetuned}

"""What the hub reads of a model: the card's front matter, and `.eval_results/*.yaml` for leaderboards."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cosify.cards.info import CardInfo

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

TASK, VERIFICATION_TASK = "image-classification", "face-verification"


def front_matter(info: CardInfo) -> str:
    """Return the YAML block of a card, with a `model-index` of its accuracy and its linear probes."""
    from huggingface_hub import EvalResult, ModelCardData

    facts, assessment = info.facts, info.assessment
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=facts.dataset_id,
            dataset_name=facts.dataset_name,
            dataset_split=facts.dataset_split,
            metric_type="accuracy",
            metric_value=round(assessment.accuracy, 4),
        )
    ]
    results += [
        EvalResult(
            task_type=TASK,
            dataset_type=task,
            dataset_name=task,
            metric_type="accuracy",
            metric_name="linear probe, top-1",
            metric_value=round(found.probe.top1, 4),
        )
        for task, found in assessment.transfer.items()
    ]
    start = (facts.base_model or "").removeprefix("hf-hub:")
    data = ModelCardData(
        base_model=start if "/" in start else None,  # the hub takes only models of its own
        license=facts.license,
        library_name="timm",
        pipeline_tag=TASK,
        tags=[TASK, "timm", "transformers", "cosify"],
        datasets=[facts.dataset_id],
        model_name=info.name,
        eval_results=results,
    )
    return data.to_yaml().strip()


def evaluation_results(info: CardInfo) -> str:
    """Return the file of `.eval_results`: accuracy on the data that the model was trained for."""
    from huggingface_hub import EvalResultEntry

    entry = EvalResultEntry(
        dataset_id=info.facts.dataset_id,
        task_id=TASK,
        value=round(100 * info.assessment.accuracy, 2),
        notes=f"top-1 in percent of {info.assessment.num_test} images of the split {info.facts.dataset_split}",
    )
    return _text([entry])


def verification_results(info: CardInfo) -> str:
    """Return the file of `.eval_results` for pairs that are on the hub, empty if none are."""
    from huggingface_hub import EvalResultEntry

    entries = []
    for each in info.verified:
        if each.dataset_id is not None:
            found = each.found
            notes = (
                f"accuracy in percent, mean over {len(found.fold_accuracies)} folds of"
                f" {found.num_same + found.num_different} pairs, standard error {100 * found.standard_error:.2f}"
            )
            value = round(100 * found.accuracy, 2)
            entries.append(EvalResultEntry(each.dataset_id, task_id=VERIFICATION_TASK, value=value, notes=notes))
    return _text(entries) if entries else ""


def _text(entries: "Sequence[EvalResultEntry]") -> str:
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    return str(yaml.safe_dump(eval_result_entries_to_yaml(list(entries)), sort_keys=False))

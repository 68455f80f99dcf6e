"""What the hub reads of a model: the card's front matter, and `.eval_results/*.yaml` for leaderboards."""

from cosify.cards.info import CardInfo

TASK = "image-classification"


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
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entry = EvalResultEntry(
        dataset_id=info.facts.dataset_id,
        task_id=TASK,
        value=round(100 * info.assessment.accuracy, 2),
        notes=f"top-1 in percent of {info.assessment.num_test} images of the split {info.facts.dataset_split}",
    )
    return str(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))

"""Whether the numbers of a card are of the data that its run was trained for, and of one set in a family."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cosify.cards.info import CardInfo
from cosify.data import BUILT_IN, Fingerprint, base_and_split
from cosify.errors import InputError
from cosify.evaluation import CacheInfo


def refuse_other_data(evaluation: Path, run: Mapping[str, Any], record: Mapping[str, Any], cached: CacheInfo) -> None:
    """Raise a ValueError if an evaluation is not of the test split of a run's data.

    Runs on a stream and earlier versions have recorded less of the data; then names and numbers are compared.  A run
    with `test_split` has kept its test images for this evaluation, and knows its training images alone.

    Args:
        evaluation: its folder, for the message.
        run: the run's config.json, also as `run_for_others` returns it.
        record: the evaluation's evaluation.json.
        cached: what the feature cache of the test split says of its images.
    """
    settings = run["arguments"]
    kept = settings.get("test_split") is not None
    if kept and _changed(run, record, "test") == []:
        raise InputError(
            f"{evaluation} is of the split that the run chose by, {settings['test_split']}, expected the images"
            " that it kept for the end; evaluate on the test split"
        )
    changes = _changed(run, record, "train" if kept else "test")
    if kept and (settings.get("imbalance") is not None or settings.get("limit_train") is not None):
        changes = None  # the run has recorded the part that it was trained on
    if changes is None:
        changes = _changed_names({**run, "num_test": None} if kept else run, record, cached)
    if changes:
        raise InputError(
            f"{evaluation} is of other data than those of the run, {settings['data']}: {'; '.join(changes)};"
            " evaluate on the data that the model was trained for"
        )


def refuse_different_tests(siblings: Sequence[CardInfo]) -> None:
    """Raise a ValueError if models that stand side by side were measured on different test images."""
    numbers = {each.name: each.assessment.num_test for each in siblings}
    if len(set(numbers.values())) > 1:
        raise InputError(
            f"the siblings were measured on different numbers of test images, {numbers}, expected the same images;"
            " evaluate them anew, all alike, or take one out of siblings in facts.yaml"
        )
    for each in siblings[1:]:
        changes = _changed(siblings[0].run, each.run, "test")
        if changes:
            raise InputError(
                f"the siblings {siblings[0].name} and {each.name} have different test images: {'; '.join(changes)},"
                " expected the same; take one out of siblings in facts.yaml"
            )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], split: str) -> list[str] | None:
    """Return how a split of one record differs from that of another, None where one does not say enough."""
    if "fingerprint" not in before or "fingerprint" not in now:
        return None
    first, second = (Fingerprint.of_record(each["fingerprint"]) for each in (before, now))
    if getattr(first, split).counts is None or getattr(second, split).counts is None:  # of a stream
        return None
    return first.changes(second, (split,))


def _changed_names(run: Mapping[str, Any], record: Mapping[str, Any], cached: CacheInfo) -> list[str]:
    """Return what differs in what any record says: name and split of the data, class names, number of images."""
    found, settings = [], record.get("arguments", {})
    if "data" in settings:
        (one, split), (other, other_split) = (base_and_split(each["data"]) for each in (run["arguments"], settings))
        # Other names may be a path here and an id of the hub there.
        if split != other_split or (one != other and {one, other} & set(BUILT_IN)):
            found.append(f"the evaluation is of {settings['data']}")
    names, num_test = run.get("fingerprint", {}).get("label_names"), run.get("num_test")
    if names is not None and tuple(names) != cached.label_names:
        found.append("the classes have other names, or come in another order")
    if num_test is not None:
        limit = settings.get("limit")
        expected = num_test if limit is None else min(limit, num_test)
        if cached.num_samples != expected:
            found.append(f"there are {cached.num_samples} test images ({expected} before)")
    return found

"""Three lines about an assessment: numbers of its files, and every case that has no number."""

import dataclasses

import numpy as np
import pytest
import torch

from cosify.data import load_splits
from cosify.evaluation import Assessment, Detection, Interval, Rejector, assess, tables_of, verdict
from cosify.evaluation.in_words import FEW, percent
from tests.evaluation.caches import make_cache

UNSEEN = torch.full((300,), -1)


@pytest.fixture(scope="module")
def found() -> Assessment:
    test, far = make_cache(400, seed=2, spread=1.0), make_cache(labels=UNSEEN, seed=3)
    return assess("m", test, ood={"far": far}, resamples=100)


def test_shares_are_those_of_a_rejector(found: Assessment) -> None:
    test, far = make_cache(400, seed=2, spread=1.0), make_cache(labels=UNSEEN, seed=3)
    rejector = Rejector.fit("z_max", None, test, share=0.95)
    rejected = [~rejector(torch.from_numpy(np.array(cache.embedding))).accept.numpy() for cache in (test, far)]
    mistakes = rejected[0][~test.correct]
    first, second, third = verdict(found)
    assert first == (
        f"Right on {100 * test.correct.mean():.1f} % of 400 test images"
        f" ({100 * found.mean_per_class:.1f} % in the mean over classes)."
    )
    assert len(mistakes) < FEW
    assert second == (
        f"Accepts at least 95 % of its right answers and turns away {percent(mistakes.mean())} of its mistakes"
        f" ({mistakes.sum()} of {len(mistakes)}): a hint from {len(mistakes)} mistakes, no more."
    )
    assert third == (
        f"At the same threshold turns away {percent(rejected[1].mean())} of the unseen set far"
        f" ({rejected[1].sum()} of 300)."
    )
    assert repr(found).startswith(f"Assessment of 'm': right on {found.accuracy:.1%} of {found.num_test:,} test images")


def with_counts(found: Assessment, negatives: int, *, positives: int = 9_000, fpr: float = 0.12) -> Assessment:
    detection = Detection(positives, negatives, 0.9, 0.9, 0.9, 0.9, fpr, fpr, Interval(0.8, 1), Interval(0.8, 1))
    scores = {"z_max": detection}
    return dataclasses.replace(found, miss=scores, ood={"first": scores, "second": scores}, num_test=10_000)


def test_few_mistakes_are_pointed_out(found: Assessment) -> None:
    for negatives, hint in ((FEW - 1, ": a hint from 49 mistakes, no more."), (FEW, " (44 of 50).")):
        made = with_counts(found, negatives)
        assert verdict(made)[1].endswith(hint)
        ap = tables_of([made])[2].rows[0][2]
        assert ap == "0.900 [0.800, 1.000]" + (", only 49 negatives" if negatives < FEW else "")
        assert ("first (44 of 50)" in verdict(made)[2]) == (negatives >= FEW)
        assert ("first (43 of 49, a small set)" in verdict(made)[2]) == (negatives < FEW)
    few = verdict(with_counts(found, 4, positives=3))[1]
    assert few.endswith(": a hint from 3 right answers and 4 mistakes, no more.")
    assert "only 3 positives and 4 negatives" in tables_of([with_counts(found, 4, positives=3)])[2].rows[0][2]


def test_large_counts_and_several_sets(found: Assessment) -> None:
    _, second, third = verdict(with_counts(found, 2_500))
    assert second == "Accepts at least 95 % of its right answers and turns away 88 % of its mistakes (2,200 of 2,500)."
    assert third == (
        "At the same threshold turns away 88 % of the unseen set first (2,200 of 2,500) and 88 % of the unseen set"
        " second (2,200 of 2,500)."
    )


def test_what_has_no_number(found: Assessment) -> None:
    labels = torch.arange(40) % 4
    perfect = assess("m", make_cache(labels=labels, spread=1.0, predictions=labels), resamples=100)
    assert verdict(perfect)[1].startswith("Makes no mistake on these images")
    assert verdict(perfect)[2].startswith("No unseen set was measured: name one with --ood")
    wrong = make_cache(labels=labels, spread=1.0, predictions=(labels + 1) % 4)
    never = assess("m", wrong, ood={"far": make_cache(labels=UNSEEN)}, resamples=100)
    assert verdict(never)[1].startswith("Has no right answer on these images")
    assert verdict(never)[2].startswith("Without a threshold, it cannot be said how much of the unseen sets")


def test_another_threshold_is_named(found: Assessment) -> None:
    for changes, named in (
        ({"id_subset": "all"}, "at least 95 % of all test images,"),
        ({"excluded_classes": ("cat",)}, "at least 95 % of right predictions without the classes cat,"),
    ):
        third = verdict(dataclasses.replace(found, **changes))[2]
        assert third.startswith(f"At the threshold that accepts {named} turns away ")


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %"), (0.9996, "99.960 %"), (0.004, "0.4 %")]
)
def test_nearly_all_is_not_all(share: float, text: str) -> None:
    assert percent(share) == text


def test_splits_in_a_line() -> None:
    assert repr(load_splits("digits")) == (
        "Splits(1200 training and 597 test images of 10 classes: '0', '1', '2', '3', '4', ...)"
    )
    stream = dataclasses.replace(load_splits("digits"), streaming=True, label_names=("a", "b"))
    assert repr(stream) == "Splits(a stream of 2 classes: 'a', 'b')"

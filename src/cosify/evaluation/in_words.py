"""An assessment in three lines of plain words: how often it is right, and what of the rest it turns away."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cosify.evaluation.detection_metrics import Detection

if TYPE_CHECKING:
    from cosify.evaluation.assessment import Assessment

FEW = 50  # samples: a metric that rests on fewer, of either kind, is only a hint
DEFAULT_SCORE = "z_max"
THRESHOLD = (
    "A model that may decline does so where its score lies below a threshold. The threshold was set on the same test"
    " images that are counted here: the 95 % hold for them by construction, and new images may differ."
)


def verdict(assessment: "Assessment", score: str = DEFAULT_SCORE) -> tuple[str, str, str]:
    """Say in words how a model that may decline to answer treats its test images, its mistakes and unseen sets.

    Args:
        assessment: of the model.
        score: confidence by which the model declines; at its threshold 95 % of the right answers are accepted.  See
            `told_by`.

    Returns:
        Three lines, each with its counts.
    """
    score = told_by(assessment, score)
    return _right(assessment), _mistakes(assessment, score), _unseen(assessment, score)


def told_by(assessment: "Assessment", score: str) -> str:
    """Return the score if it was measured, else the default: of a cosine head the largest logit is not."""
    return score if score in assessment.miss else DEFAULT_SCORE


def positives(assessment: "Assessment") -> str:
    """Return, in words, which test images are told from unseen ones."""
    subset = "right predictions" if assessment.id_subset == "correct" else "all test images"
    excluded = ", ".join(assessment.excluded_classes)
    return f"{subset} without the classes {excluded}" if excluded else subset


def percent(share: float) -> str:
    """Return a share in [0, 1] in percent, with decimals where rounding would make it all or nothing."""
    near = min(share, 1 - share)
    decimals = 0 if near == 0 or near >= 0.01 else 1 if near >= 0.001 else 3
    return f"{100 * share:.{decimals}f} %"


def few(found: Detection, positive: str = "positives", negative: str = "negatives") -> str:
    """Return the counts to point out beside a metric that rests on few samples; empty if it does not."""
    counts = (found.num_positive, positive), (found.num_negative, negative)
    return " and ".join(f"{num} {kind}" for num, kind in counts if num < FEW)


def _right(assessment: "Assessment") -> str:
    return (
        f"Right on {100 * assessment.accuracy:.1f} % of {assessment.num_test:,} test images"
        f" ({100 * assessment.mean_per_class:.1f} % in the mean over classes)."
    )


def _mistakes(assessment: "Assessment", score: str) -> str:
    if assessment.accuracy == 1:
        return "Makes no mistake on these images, so that it cannot be said how many it would turn away."
    found = assessment.miss.get(score)
    if found is None:
        return "Has no right answer on these images, so that no threshold can be set."
    share = 1 - found.fpr95_id_positive
    num = found.num_negative
    small = few(found, "right answers", "mistakes")
    hint = f": a hint from {small}, no more" if small else ""
    return (
        f"Accepts at least 95 % of its right answers and turns away {percent(share)} of its mistakes"
        f" ({round(share * num):,} of {num:,}){hint}."
    )


def _unseen(assessment: "Assessment", score: str) -> str:
    found = {name: each[score] for name, each in assessment.ood.items() if score in each}
    if assessment.ood and not found:
        return "Without a threshold, it cannot be said how much of the unseen sets it would turn away."
    if not found:
        return "No unseen set was measured: name one with --ood to see how many of its images are turned away."
    same = assessment.id_subset == "correct" and not assessment.excluded_classes
    start = (
        "At the same threshold" if same else f"At the threshold that accepts at least 95 % of {positives(assessment)},"
    )
    return f"{start} turns away {_sets(found)}."


def _sets(found: Mapping[str, Detection]) -> str:
    shares = {name: 1 - each.fpr95_id_positive for name, each in found.items()}
    parts = [
        f"{percent(shares[name])} of the unseen set {name} ({round(shares[name] * each.num_negative):,} of"
        f" {each.num_negative:,}{', a small set' if each.num_negative < FEW else ''})"
        for name, each in found.items()
    ]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

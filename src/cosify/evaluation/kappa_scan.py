"""What kappa would be for a model as it stands, and which one to train with: no training needed."""

from dataclasses import dataclass

import torch

from cosify.evaluation.diversity import Diversity, feature_diversity
from cosify.evaluation.feature_cache import FeatureCache
from cosify.functional import adacos_kappa, expected_kappa
from cosify.functional.grid import TYPICAL
from cosify.heads import EvalKappa
from cosify.heads.kappa_statistics import KappaStatistics, KappaSummary

MANY_AT_EDGE = 0.05  # share of samples at an edge of the grid above which the mean says little
TRANSFER_KAPPA = 60.0  # best, or next to it, in most columns of the paper's Table 4a


@dataclass(frozen=True)
class Recommendation:
    """A kappa for a purpose.

    Attributes:
        purpose: what the model is for.
        kappa: to train with.
        policy: what to write after `--kappa`.
        reason: why.
    """

    purpose: str
    kappa: float
    policy: str
    reason: str


@dataclass(frozen=True)
class KappaScan:
    """Kappa under a model's weights, without training.

    Attributes:
        num_samples: N.
        num_classes: C.
        dim: d.
        accuracy: share of right predictions, in [0, 1]; None where the labels are not the model's classes.
        head: `"softmax"`, or the policy of a cosine head.
        head_kappa: of a cosine head in evaluation: its running mean, or the number that was chosen.
        eval_kappa: of a cosine head, `"running"`, `"sample"` or that number.
        kappa: kappa* of LS, Eq. (11), summarised over the samples.
        adacos: fixed scale of AdaCos; None for two classes, where it is 0.
        expected: closed form of LS for orthogonal class weights, at cosine 0.75 to the own class.
        expected_here: the same at `mean_top_cosine`; None where that is not in (0, 1).
        mean_top_cosine: mean cosine to the nearest class.
        diversity: angles and rank of the features; angles to the nearest class where there are no labels.
        recommendations: for rejection, accuracy and transfer.
        warnings: reasons to doubt them.
    """

    num_samples: int
    num_classes: int
    dim: int
    accuracy: float | None
    head: str
    head_kappa: float | None
    eval_kappa: EvalKappa | None
    kappa: KappaSummary
    adacos: float | None
    expected: float
    expected_here: float | None
    mean_top_cosine: float
    diversity: Diversity
    recommendations: tuple[Recommendation, ...]
    warnings: tuple[str, ...]


def scan_features(cache: FeatureCache) -> KappaScan:
    """Estimate kappa for a model from its feature cache.

    Args:
        cache: of images like those to train on; its labels are used where they are the model's classes.

    Raises:
        ValueError: if the model has fewer than two classes.
    """
    info = cache.info
    statistics = KappaStatistics(torch.device("cpu"))
    statistics.update(cache.ls_kappa())
    kappa = statistics.summary()
    assert kappa is not None  # a cache has samples
    labelled = len(info.label_names) == info.num_classes
    targets = torch.from_numpy((cache.labels if labelled else cache.top_class[:, 0]).copy())
    diversity = feature_diversity(cache.embedding, targets, cache.weight)
    cosine = float(cache.top_cosine[:, 0].mean())
    return KappaScan(
        num_samples=len(cache),
        num_classes=info.num_classes,
        dim=info.dim,
        accuracy=float(cache.correct.mean()) if labelled else None,
        head="softmax" if info.kappa is None else f"cosine, {info.kappa_policy}",
        head_kappa=info.kappa,
        eval_kappa=info.eval_kappa,
        kappa=kappa,
        adacos=adacos_kappa(info.num_classes) if info.num_classes > 2 else None,
        expected=expected_kappa(info.num_classes),
        expected_here=expected_kappa(info.num_classes, cosine) if 0 < cosine < 1 else None,
        mean_top_cosine=cosine,
        diversity=diversity,
        recommendations=_recommendations(cache, kappa),
        warnings=_warnings(kappa, info.kappa_policy, labelled),
    )


def _recommendations(cache: FeatureCache, kappa: KappaSummary) -> tuple[Recommendation, ...]:
    """Return what to train with.

    Under weights that LS has trained, kappa* is where training ends.  Under other weights it is where LS would begin,
    far above; where it would end follows from the number of classes.
    """
    if cache.info.kappa_policy == "ls":
        star, how, twice = kappa.mean, "measured", f"{2 * kappa.mean:.3g}"
    else:
        star = TYPICAL * expected_kappa(cache.info.num_classes)
        how, twice = f"where LS is expected to end for {cache.info.num_classes} classes", "2ls"
    large = max(TRANSFER_KAPPA, 4 * star)
    return (
        Recommendation(
            "rejection",
            star,
            "ls",
            f"kappa*, {how}: the smallest that still separates the classes; features lie close to their class, and"
            " their cosine tells wrong predictions and outliers best (paper, Fig. 4)",
        ),
        Recommendation(
            "accuracy",
            2 * star,
            twice,
            "accuracy peaks between kappa* and twice that (paper, Table 2)",
        ),
        Recommendation(
            "transfer",
            large,
            f"{large:.3g}",
            "features are left free beyond the span of the classifiers, which linear probes gain from (paper, Table"
            " 4a); train long, with a warm-up; for a short training of pretrained weights take that of accuracy",
        ),
    )


def _warnings(kappa: KappaSummary, policy: float | str | None, labelled: bool) -> tuple[str, ...]:
    found = []
    for edge, share in (("lower", kappa.low_edge), ("upper", kappa.high_edge)):
        if share is not None and share > MANY_AT_EDGE:
            found.append(
                f"{share:.0%} of the samples lie at the {edge} edge of the grid: the mean says little, the median is"
                f" {kappa.median:.3g}"
            )
    if policy != "ls":
        found.append(
            "the weights were not trained with LS: kappa* of the images says where LS would begin, and falls as"
            " the head trains; the recommendations follow from the number of classes instead"
        )
    if not labelled:
        found.append("the labels are not the model's classes: angles are to the nearest class, accuracy is left out")
    return tuple(found)

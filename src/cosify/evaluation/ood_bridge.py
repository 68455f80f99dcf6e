"""Our scores, larger for confident samples, in OOD libraries, whose scores are larger for outliers, and back."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.rows import to_float64, to_tensor

OUTLIER = -1  # label of outliers in pytorch-ood


def to_outlier_scores(accept: ArrayLike, reject: ArrayLike) -> tuple[Tensor, Tensor]:
    """Return outlier scores and labels as `pytorch_ood.metrics.OODMetrics.update` takes them.

    The one place where the sign of scores is turned.

    Args:
        accept: scores [N] of in-distribution samples, larger for more confident ones.
        reject: scores [M] of the others.

    Returns:
        Scores [N + M], float64, larger for outliers, and labels, 0 and -1.
    """
    accepted, rejected = to_float64(accept), to_float64(reject)
    labels = torch.zeros(len(accepted) + len(rejected), dtype=torch.int64)
    labels[len(accepted) :] = OUTLIER
    return torch.from_numpy(-np.concatenate([accepted, rejected])), labels


def pytorch_ood_score(detector: Any, cache: FeatureCache, train: FeatureCache | None = None) -> NDArray[np.float64]:
    """Score the samples of a feature cache with a detector of pytorch-ood.

    Args:
        detector: of `pytorch_ood.detector`, one that takes features or logits, built with None for model or encoder.
        cache: features to score.
        train: cache of the training split; None if the detector is fitted already, or needs no fit.

    Returns:
        Scores [N], larger for more confident samples, as everywhere in cosify.

    Raises:
        TypeError: if the detector takes neither features nor logits.
    """
    for kind, blocks in (("features", FeatureCache.blocks), ("logits", FeatureCache.logits)):
        if hasattr(detector, f"predict_{kind}"):
            if train is not None and detector.requires_fit:
                getattr(detector, f"fit_{kind}")(torch.cat([*blocks(train)]), to_tensor(train.labels))
            found = getattr(detector, f"predict_{kind}")(torch.cat([*blocks(cache)]))
            return -to_float64(found)
    raise TypeError(
        f"{type(detector).__name__} takes neither features nor logits, expected a detector of pytorch-ood with"
        " predict_features or predict_logits, such as Mahalanobis(None) or MaxLogit(None)"
    )

"""Scores of confidence for the samples of a feature cache: larger means more confident, for every score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from cosify.errors import InputError
from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.mahalanobis import TiedGaussian
from cosify.evaluation.rows import to_tensor

Scores = NDArray[np.float64]
Combine = Literal["ratio", "ratio_sq", "zsum"]

MOST_NEIGHBOURS = 50_000  # the search is by brute force
NEIGHBOURS = 50  # pytorch-ood's default; Sun et al. take 50 for CIFAR-10, 200 for CIFAR-100, 1000 for ImageNet


def z_max(cache: FeatureCache) -> Scores:
    """Return the largest cosine of each sample, [N], in [-1, 1]; without kappa, which may differ between samples."""
    return cache.top_cosine[:, 0].astype(np.float64)


def norm(cache: FeatureCache) -> Scores:
    """Return the norm of the feature that the classifier is given, [N]."""
    return cache.norm


def max_logit(cache: FeatureCache) -> Scores:
    """Return the largest logit, [N], bias included; for a fixed kappa this is z_max again."""
    return cache.max_logit.astype(np.float64)


def msp(cache: FeatureCache) -> Scores:
    """Return the log of the largest softmax probability, [N] (Hendrycks & Gimpel, ICLR 2017).

    The probability itself would round to 1, and be equal, for many samples at a large kappa.
    """
    return -np.log1p(np.exp(-cache.log_odds.astype(np.float64)))


def energy(cache: FeatureCache) -> Scores:
    """Return the negative free energy, log sum exp of the logits, [N] (Liu et al., NeurIPS 2020)."""
    return cache.log_sum_exp.astype(np.float64)


@dataclass(frozen=True)
class Mahalanobis:
    """Minus the squared Mahalanobis distance to the nearest class mean (Lee et al., NeurIPS 2018).

    Attributes:
        gaussian: fitted on the training split.
    """

    gaussian: TiedGaussian

    @classmethod
    def fit(cls, train: FeatureCache, *, unit: bool = False) -> "Mahalanobis":
        """Fit on the cache of the training split; for `unit` see `TiedGaussian.fit`."""
        return cls(TiedGaussian.fit(train.embedding, to_tensor(train.labels), unit=unit))

    def __call__(self, cache: FeatureCache) -> Scores:
        """Return the score of each sample, [N]."""
        return -self.gaussian.squared_distance(cache.embedding).numpy()


@dataclass(frozen=True)
class NormMahalanobis:
    """Feature norm and Mahalanobis distance together (after Noh et al., ICCV 2023).

    Their text says only "combined"; the ways are our readings.  A plain product is none of them: the norm grows with
    confidence, and the distance falls.

    Attributes:
        mahalanobis: fitted on the features as they are.
        combine: `"ratio"` for ||x|| / D, `"ratio_sq"` for ||x|| / D^2, `"zsum"` for the sum of z-scores of ||x|| and
            -D^2.
        moments: mean and deviation of ||x|| and of -D^2 over the training split, for `"zsum"`.
    """

    mahalanobis: Mahalanobis
    combine: Combine = "ratio"
    moments: tuple[tuple[float, float], ...] = ()

    @classmethod
    def fit(cls, train: FeatureCache, combine: Combine = "ratio") -> "NormMahalanobis":
        """Fit on the cache of the training split.

        Raises:
            ValueError: for an unknown `combine`, or where `TiedGaussian.fit` raises it.
        """
        if combine not in get_args(Combine):
            raise InputError(f"combine is {combine!r}, expected one of {', '.join(get_args(Combine))}")
        mahalanobis = Mahalanobis.fit(train)
        parts = (train.norm, mahalanobis(train)) if combine == "zsum" else ()
        return cls(mahalanobis, combine, tuple((float(part.mean()), float(part.std())) for part in parts))

    def __call__(self, cache: FeatureCache) -> Scores:
        """Return the score of each sample, [N]."""
        length, minus_square = cache.norm, self.mahalanobis(cache)
        if self.combine == "zsum":
            parts = zip((length, minus_square), self.moments, strict=True)
            return np.asarray(sum((part - mean) / deviation for part, (mean, deviation) in parts))
        distance = -minus_square if self.combine == "ratio_sq" else np.sqrt(-minus_square)
        with np.errstate(over="ignore"):  # infinite at a class mean
            return np.asarray(length / np.maximum(distance, np.finfo(np.float64).tiny))


class NearestNeighbours:
    """Minus the distance to the k-th nearest training feature, all features of norm 1 (Sun et al., ICML 2022).

    Args:
        train: cache of the training split; of more than 50,000 samples, 50,000 evenly spaced ones are used.
        k: which neighbour, at most the number of these samples.

    Raises:
        ValueError: if `k` is out of range.
    """

    def __init__(self, train: FeatureCache, k: int = NEIGHBOURS) -> None:
        from sklearn.neighbors import NearestNeighbors

        num = min(len(train), MOST_NEIGHBOURS)
        if not 1 <= k <= num:
            raise InputError(f"k is {k}, expected 1 to {num}, the training samples; choose a smaller one")
        rows = to_tensor(train.embedding[np.arange(num) * len(train) // num])
        self.index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(F.normalize(rows, dim=1).numpy())

    def __call__(self, cache: FeatureCache) -> Scores:
        """Return the score of each sample, [N]."""
        found = [self.index.kneighbors(F.normalize(rows, dim=1).numpy())[0][:, -1] for rows in cache.blocks()]
        return -np.concatenate(found).astype(np.float64)


@dataclass(frozen=True)
class Score:
    """A row of the table of scores.

    Attributes:
        title: for tables and figures.
        fit: takes the cache of the training split, and returns the score as a function of any cache.
        needs_train: whether `fit` uses that cache; if not, it takes None.
        of_cosine: whether the score says anything new for a model with a cosine head.
    """

    title: str
    fit: Callable[..., Callable[[FeatureCache], Scores]]
    needs_train: bool = False
    of_cosine: bool = True


SCORES: Mapping[str, Score] = {
    "z_max": Score("z_max", lambda _: z_max),
    "norm": Score("||x||", lambda _: norm),
    "norm_mahalanobis": Score("||x|| / D", NormMahalanobis.fit, needs_train=True),
    "mahalanobis": Score("-D^2", Mahalanobis.fit, needs_train=True),
    "mahalanobis_unit": Score("-D^2, unit x", lambda train: Mahalanobis.fit(train, unit=True), needs_train=True),
    "knn": Score("k-NN", lambda train: NearestNeighbours(train, min(NEIGHBOURS, len(train))), needs_train=True),
    "msp": Score("max probability", lambda _: msp),
    "energy": Score("energy", lambda _: energy),
    "max_logit": Score("max logit", lambda _: max_logit, of_cosine=False),
}

"""Confidence of every sample of a bank: larger means more confident, for all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cosify.errors import InputError
from cosify.evaluation.bank import FeatureBank
from cosify.evaluation.mahalanobis import TiedGaussian

Scores = NDArray[np.float64]
Combine = Literal["ratio", "ratio_sq", "zsum"]

MOST_NEIGHBOURS = 50_000  # the search is by brute force
NEIGHBOURS = 50  # pytorch-ood's default; Sun et al. take 50 for CIFAR-10, 200 for CIFAR-100, 1000 for ImageNet


def z_max(bank: FeatureBank) -> Scores:
    """Return the largest cosine of each sample, [N], in [-1, 1]: without kappa, which would reorder samples."""
    return bank.top_cosine[:, 0].astype(np.float64)


def norm(bank: FeatureBank) -> Scores:
    """Return ||x|| of the feature that the classifier gets, [N]."""
    return bank.norm


def max_logit(bank: FeatureBank) -> Scores:
    """Return the largest logit, [N], bias included; for a fixed kappa this is z_max again."""
    return bank.max_logit.astype(np.float64)


def msp(bank: FeatureBank) -> Scores:
    """Return the log of the largest softmax probability, [N] (Hendrycks & Gimpel, ICLR 2017).

    The probability itself would round to 1, and be equal, for many samples at a large kappa.
    """
    return -np.log1p(np.exp(-bank.log_odds.astype(np.float64)))


def energy(bank: FeatureBank) -> Scores:
    """Return the negative free energy, log sum exp of the logits, [N] (Liu et al., NeurIPS 2020)."""
    return bank.log_sum_exp.astype(np.float64)


@dataclass(frozen=True)
class Mahalanobis:
    """Minus the squared Mahalanobis distance to the nearest class mean (Lee et al., NeurIPS 2018).

    Attributes:
        gaussian: fitted on the training split.
    """

    gaussian: TiedGaussian

    @classmethod
    def fit(cls, train: FeatureBank, *, unit: bool = False) -> "Mahalanobis":
        """Fit on a bank of the training split; for `unit` see `TiedGaussian.fit`."""
        return cls(TiedGaussian.fit(train.embedding, torch.from_numpy(np.array(train.labels)), unit=unit))

    def __call__(self, bank: FeatureBank) -> Scores:
        """Return the score of each sample, [N]."""
        return -self.gaussian.squared_distance(bank.embedding).numpy()


@dataclass(frozen=True)
class NormMahalanobis:
    """Feature norm and Mahalanobis distance together (after Noh et al., ICCV 2023).

    Their text says "combined"; how is our reading: a plain product would be larger for both more and less confident
    samples.

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
    def fit(cls, train: FeatureBank, combine: Combine = "ratio") -> "NormMahalanobis":
        """Fit on a bank of the training split.

        Raises:
            ValueError: for another `combine`, or a training split that does not suit `TiedGaussian.fit`.
        """
        if combine not in get_args(Combine):
            raise InputError(f"combine is {combine!r}, expected one of {', '.join(get_args(Combine))}")
        mahalanobis = Mahalanobis.fit(train)
        parts = (train.norm, mahalanobis(train)) if combine == "zsum" else ()
        return cls(mahalanobis, combine, tuple((float(part.mean()), float(part.std())) for part in parts))

    def __call__(self, bank: FeatureBank) -> Scores:
        """Return the score of each sample, [N]."""
        length, minus_square = bank.norm, self.mahalanobis(bank)
        if self.combine == "zsum":
            parts = zip((length, minus_square), self.moments, strict=True)
            return np.asarray(sum((part - mean) / deviation for part, (mean, deviation) in parts))
        distance = -minus_square if self.combine == "ratio_sq" else np.sqrt(-minus_square)
        with np.errstate(over="ignore"):  # infinite at a class mean
            return np.asarray(length / np.maximum(distance, np.finfo(np.float64).tiny))


class NearestNeighbours:
    """Minus the distance to the k-th nearest training feature, all of norm 1 (Sun et al., ICML 2022).

    Args:
        train: bank of the training split; of more than 50,000 samples as many are taken, evenly spaced.
        k: which neighbour, at most the number of samples.
    """

    def __init__(self, train: FeatureBank, k: int = NEIGHBOURS) -> None:
        from sklearn.neighbors import NearestNeighbors

        num = min(len(train), MOST_NEIGHBOURS)
        if not 1 <= k <= num:
            raise InputError(f"k is {k}, expected 1 to {num}, the training samples; choose a smaller one")
        rows = torch.from_numpy(np.array(train.embedding[np.arange(num) * len(train) // num]))
        self.index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(F.normalize(rows, dim=1).numpy())

    def __call__(self, bank: FeatureBank) -> Scores:
        """Return the score of each sample, [N]."""
        found = [self.index.kneighbors(F.normalize(rows, dim=1).numpy())[0][:, -1] for rows in bank.blocks()]
        return -np.concatenate(found).astype(np.float64)


@dataclass(frozen=True)
class Score:
    """A row of the table of scores.

    Attributes:
        title: for tables and figures.
        fit: from the bank of the training split to the score of any bank.
        needs_train: whether `fit` looks at it; else None will do.
        of_cosine: whether it says something new of a model with a cosine head.
    """

    title: str
    fit: Callable[..., Callable[[FeatureBank], Scores]]
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

"""Feature caches in memory, for tests that need no model."""

import dataclasses

import torch
from torch import Tensor

from cosify.evaluation.feature_cache import CacheInfo, CacheKey, FeatureCache


def make_cache(
    num_samples: int = 200,
    *,
    dim: int = 8,
    num_classes: int = 4,
    kappa: float | None = 16.0,
    bias: bool = False,
    spread: float = 0.7,
    seed: int = 0,
    embedding: Tensor | None = None,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
    predictions: Tensor | None = None,
) -> FeatureCache:
    """Return a cache of random features around the classes of a classifier, most of them classified correctly.

    Caches of the same `dim` and `num_classes` have the same classifier, whatever their `seed`: such as train and test.

    Args:
        num_samples: N; that of `embedding` or `labels` where one is given.
        dim: d; that of `weight` or `embedding` where one is given.
        num_classes: C; that of `weight` where it is given.
        kappa: of a cosine head; None for a stock linear one.
        bias: whether the stock head has one; a cosine head has none.
        spread: standard deviation of the features about the row of `weight` of their label, in each dimension.
        seed: of labels and features, not of the classifier.
        embedding: [N, d], instead of random features.
        weight: [C, d], instead of a random classifier.
        labels: [N], instead of random ones; -1 for images of no class, whose random features are around the origin.
        predictions: [N], instead of the model's own.
    """
    if weight is None:
        dim = dim if embedding is None else embedding.shape[1]
        weight = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(4242))
    num_samples = next((len(given) for given in (embedding, labels) if given is not None), num_samples)
    (num_classes, dim), generator = weight.shape, torch.Generator().manual_seed(seed)
    if labels is None:
        labels = torch.randint(num_classes, (num_samples,), generator=generator)
    if embedding is None:
        centres = torch.cat([weight, torch.zeros(1, dim)])  # row -1 is that of no class
        embedding = centres[labels] + spread * torch.randn(num_samples, dim, generator=generator)
    info = CacheInfo(
        key=CacheKey(f"random {dim} {num_classes}", f"seed {seed}", "none"),
        num_samples=num_samples,
        dim=dim,
        num_classes=num_classes,
        label_names=tuple(f"class {c}" for c in range(num_classes)),
        kappa=kappa,
        kappa_policy=kappa,
    )
    cache = FeatureCache.of_rows(info, weight, torch.linspace(-0.5, 0.5, num_classes) if bias else None, embedding)
    cache = dataclasses.replace(cache, labels=labels.numpy())
    return cache if predictions is None else dataclasses.replace(cache, predictions=predictions.numpy())

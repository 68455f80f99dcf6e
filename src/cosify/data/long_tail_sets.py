"""Long-tailed training sets from balanced ones, by the recipe that CIFAR-100-LT is made with."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cosify.data.sources import Splits
from cosify.errors import InputError


def long_tailed(splits: Splits, imbalance: float, seed: int = 0) -> Splits:
    """Return the splits with a training split whose class sizes fall exponentially, in the order of the classes.

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss" (LDAM), NeurIPS 2019: class i
    keeps int(n * imbalance ** (-i / (C - 1))) of its images, where n is the size of every class, or of the smallest.
    CIFAR-100 at 100 keeps 10,847.

    Args:
        splits: the test split stays as it is.
        imbalance: images of the first class for each of the last, from 1 on; papers have 10, 50 and 100.
        seed: of the choice of images; papers have 0.

    Raises:
        ValueError: for a stream, or if the last class would keep no image.
    """
    if splits.streaming:
        raise InputError("imbalance is set with a stream, whose classes are not known beforehand; drop one of them")
    labels = np.asarray(splits.train[splits.label_column][:])
    sizes = np.bincount(labels, minlength=len(splits.label_names))
    kept = exponential_sizes(int(sizes.min()), len(sizes), imbalance)
    if kept[-1] == 0:
        raise InputError(
            f"imbalance is {imbalance:g}, which keeps no image of the last of {len(kept)} classes, expected less"
            f" than {sizes.min()}, the size of the smallest class"
        )
    random = np.random.RandomState(seed)  # the generator of the published recipe
    rows: list[NDArray[np.intp]] = []
    for label, num in enumerate(kept):
        of_class = np.flatnonzero(labels == label)
        random.shuffle(of_class)
        rows.append(of_class[:num])
    chosen = np.concatenate(rows)
    return replace(splits, train=splits.train.select(chosen), num_train=len(chosen))


def exponential_sizes(largest: int, num_classes: int, imbalance: float) -> NDArray[np.int64]:
    """Return the size of each class, [C], from `largest` down to `largest / imbalance`, rounded down.

    Raises:
        ValueError: if `imbalance` is below 1.
    """
    if not imbalance >= 1:
        raise InputError(
            f"imbalance is {imbalance}, expected 1 or more: images of the first class for each of the last"
        )
    share = 1 / imbalance
    return np.array([int(largest * share ** (i / max(num_classes - 1, 1))) for i in range(num_classes)])

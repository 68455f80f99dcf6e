"""Split samples into two halves of the same classes: one that kappa is fitted on, one that it is measured on."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.rows import to_tensor

Rows = NDArray[np.int64]


def fitted_and_measured(labels: ArrayLike) -> tuple[Rows, Rows]:
    """Return the rows of both halves, each in ascending order: of each class every second sample, in its order.

    Rows are ordered by class, then by position, and taken in turns.  So the halves differ by at most one sample, of
    each class, too; in a set that is sorted by class they are the even and the odd rows.

    Args:
        labels: [N], integers.
    """
    order = np.argsort(np.asarray(labels), kind="stable")
    return np.sort(order[0::2]), np.sort(order[1::2])


def measured_confidence(test: FeatureCache) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the largest probability and correctness of the half that is measured on; of a single sample its own.

    The probability is taken from the log-odds, in float64: in float32 it is 1 for many samples whose odds differ.
    """
    measured = fitted_and_measured(test.labels)[1] if len(test) > 1 else slice(None)
    return to_tensor(test.log_odds[measured]).double().sigmoid().numpy(), test.correct[measured]

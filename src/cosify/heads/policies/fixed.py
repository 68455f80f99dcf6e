"""Policies without an estimate: a number that the user chose, or that follows from C, and the trainable kappa."""

import math

from cosify.errors import InputError
from cosify.functional import adacos_kappa, expected_kappa
from cosify.functional.grid import TYPICAL
from cosify.heads.policies.policy import KappaPolicy


class Fixed(KappaPolicy):
    """One number for all samples, as in Table 2; `2kappa*` is twice the final mean of an earlier LS run."""

    constant = True

    def __init__(self, value: float) -> None:
        if not (math.isfinite(value) and value > 0):
            raise InputError(
                f"kappa is {value}, expected a finite number above 0, or the name of a policy such as 'ls'"
            )
        self.value = float(value)

    def start(self, num_classes: int) -> float:
        return self.value


class AdaCosFixed(KappaPolicy):
    """Fixed AdaCos, sqrt(2) log(C - 1) (Zhang et al., CVPR 2019), a baseline."""

    constant = True
    min_classes = 3  # two classes would give kappa = 0

    def start(self, num_classes: int) -> float:
        return adacos_kappa(num_classes)


class TwiceExpected(KappaPolicy):
    """Twice the kappa* at which LS is expected to end, fixed: the paper's 2kappa* in one run instead of two.

    [ours] The number of classes tells: 5.5 at C = 10, 9.1 at 100, 12.8 at 1000, before the factor of two.  Over three
    seeds level with twice the mean of an LS run, for 10 and for 100 classes (scripts/results/README.md).  Of a
    network that does not fit its classes, kappa* lies higher: 14.0 instead of 10.2 in the published EfficientNet-Lite0.
    """

    constant = True

    def start(self, num_classes: int) -> float:
        return 2 * TYPICAL * expected_kappa(num_classes)


class Trainable(KappaPolicy):
    """kappa = exp(kappa'), kappa' learnt end to end (Section 3.1).

    Deviation: it starts at 1 / 0.07 as in CLIP (Radford et al., 2021); the paper does not say where, and kappa = 1
    stalls the first epochs.
    """

    trainable = True
    momentum = 1.0  # the running kappa mirrors the parameter

    def start(self, num_classes: int) -> float:
        return 1 / 0.07

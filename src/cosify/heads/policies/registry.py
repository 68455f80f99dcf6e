"""The table of policies; a new one adds its file and one row here."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import TypeVar

from cosify.errors import InputError
from cosify.heads.policies.adacos import AdaCosDynamic
from cosify.heads.policies.estimated import LeastSquares, MaximumLikelihood, RuleOfThumb
from cosify.heads.policies.fixed import AdaCosFixed, Fixed, Trainable, TwiceExpected
from cosify.heads.policies.policy import KappaPolicy

POLICIES: dict[str, Callable[[], KappaPolicy]] = {
    "2ls": TwiceExpected,
    "adacos": AdaCosFixed,
    "adacos-dynamic": AdaCosDynamic,
    "ls": LeastSquares,
    "ml": MaximumLikelihood,
    "rule": RuleOfThumb,
    "trainable": Trainable,
}

Setting = TypeVar("Setting")


def plain(setting: Setting) -> Setting | float:
    """Return a number, such as NumPy's float32, as Python's own, which config.json can hold; anything else as it is."""
    if isinstance(setting, (int, float)) or not isinstance(setting, Real):
        return setting
    return int(setting) if isinstance(setting, Integral) else float(setting)


def resolve_policy(kappa: float | str) -> KappaPolicy:
    """Return the policy of that name, or the fixed one of that number.

    Raises:
        ValueError: for an unknown name, or a number that is not finite and above 0.
        TypeError: for anything else.
    """
    kappa = plain(kappa)
    if isinstance(kappa, str):
        if kappa not in POLICIES:
            raise InputError(f"unknown kappa policy {kappa!r}, expected a number above 0 or one of {sorted(POLICIES)}")
        return POLICIES[kappa]()
    if isinstance(kappa, bool) or not isinstance(kappa, (int, float)):
        raise TypeError(f"kappa is {kappa!r} ({type(kappa).__name__}), expected a number or one of {sorted(POLICIES)}")
    return Fixed(kappa)

"""Cosine-softmax heads for timm and transformers, with a temperature that estimates itself.

Importing this package installs the timm plugin, and the transformers plugin for when transformers is used.
"""

from typing import Any

from cosify import functional
from cosify.evaluation import Rejector, calibrate
from cosify.heads import ClassParallelCosineLinear, CosineConv1x1, CosineLinear, CosineSoftmaxLoss
from cosify.hub import list_backbones, load, push, save
from cosify.integrations import install
from cosify.models import convert, find_classifiers, find_heads

__all__ = [
    "ClassParallelCosineLinear",
    "CosineConv1x1",
    "CosineLinear",
    "CosineSoftmaxLoss",
    "Rejector",
    "calibrate",
    "convert",
    "find_classifiers",
    "find_heads",
    "functional",
    "list_backbones",
    "load",
    "push",
    "save",
]

install()


def __getattr__(name: str) -> Any:
    """Import `KappaCallback`, which needs transformers, when it is asked for; hence it is not in `__all__`."""
    if name == "KappaCallback":
        from cosify.integrations.callbacks import KappaCallback

        return KappaCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

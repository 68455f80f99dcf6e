"""Cosine-softmax heads for timm and transformers, with a temperature that estimates itself.

Importing this package installs the timm plugin, and the transformers plugin for when transformers is used.  What
belongs to the lab, data, training, evaluation, plots and cards, is imported when it is asked for, and needs
`pip install 'cosify[lab]'`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cosify import functional
from cosify.extras import missing_from_lab
from cosify.heads import ClassParallelCosineLinear, CosineConv1x1, CosineLinear, CosineSoftmaxLoss
from cosify.hub import list_backbones, load, push, save
from cosify.integrations import install
from cosify.models import convert, find_classifiers, find_heads

if TYPE_CHECKING:
    from cosify import cards as cards
    from cosify import data as data
    from cosify import evaluation as evaluation
    from cosify import plots as plots
    from cosify import training as training
    from cosify.evaluation import Rejector, calibrate
    from cosify.integrations.callbacks import KappaCallback as KappaCallback

    __version__: str

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

# Imported when they are asked for: public names of the lab and where they are, and its packages.
_LAB_NAMES = {"Rejector": "cosify.evaluation", "calibrate": "cosify.evaluation"}
_LAB_PACKAGES = ("cards", "data", "evaluation", "plots", "training")
_OF_TRANSFORMERS = {"KappaCallback": "cosify.integrations.callbacks"}  # not in __all__: it needs transformers

if missing_from_lab():  # `from cosify import *` asks for every name
    __all__[:] = [name for name in __all__ if name not in _LAB_NAMES]

if not TYPE_CHECKING:  # or every misspelt name would pass

    def __getattr__(name: str) -> Any:
        if place := {**_LAB_NAMES, **_OF_TRANSFORMERS}.get(name):
            return getattr(import_module(place), name)
        if name in _LAB_PACKAGES:
            return import_module(f"cosify.{name}")
        if name == "__version__":
            from importlib.metadata import version

            return version("cosify")
        raise AttributeError(f"module 'cosify' has no attribute {name!r}")


def __dir__() -> list[str]:
    of_lab = () if missing_from_lab() else (*_LAB_NAMES, *_LAB_PACKAGES)
    return sorted({*globals(), *of_lab, "__version__"})


install()

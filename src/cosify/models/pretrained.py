"""Networks with their weights, by name, folder or run."""

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import timm
from torch import nn

import cosify.models.cifar_resnet  # noqa: F401  # registers its names with timm
from cosify.errors import InputError
from cosify.models.config import read_config
from cosify.models.hub_client import impatient, in_short
from cosify.models.lite0 import efficientnet_lite0_from_package

LITE0 = "efficientnet-lite0"


def load_pretrained(spec: str, head: Literal["linear"] | None = None) -> nn.Module:
    """Return a network with its weights and its own head.

    Args:
        spec: folder that `cosify.save`, timm or transformers wrote, run folder, `hf-hub:ORG/NAME` for timm, `ORG/NAME`
            for transformers, name of a timm model with weights, or `"efficientnet-lite0"` for those of the extra
            `cosify[demo]`.
        head: `"linear"` for the stock head, also of a published cosine model; timm models alone have it.

    Raises:
        ValueError: if there is no such model, or it cannot be read.
    """
    if spec == LITE0:
        try:
            return efficientnet_lite0_from_package()
        except ImportError as error:
            raise InputError(f"model {spec!r} cannot be loaded: {error}") from error
    folder = Path(spec).expanduser()
    if (folder / "export" / "config.json").is_file():
        folder = folder / "export"
    try:
        with nullcontext() if folder.is_dir() else impatient():
            model = _opened(spec, folder, head)
    except Exception as error:  # of many types, by what is wrong with a name, a file or the network
        raise InputError(
            f"model {spec!r} cannot be loaded ({in_short(error)}), expected a folder that cosify.save or timm wrote, a"
            " run folder with an export, hf-hub:ORG/NAME, or a timm model that has weights; check --model"
        ) from error
    # timm writes down what a model was made with; stock timm could not open an export that names our argument.
    getattr(model, "_model_args", {}).pop("head", None)
    return model


def _opened(spec: str, folder: Path, head: str | None) -> nn.Module:
    if head is None and _is_transformers(spec, folder):
        from transformers import AutoModelForImageClassification  # slow to import, and timm users need none of it

        native: nn.Module = AutoModelForImageClassification.from_pretrained(str(folder) if folder.is_dir() else spec)
        return native
    name = f"local-dir:{folder}" if folder.is_dir() else spec
    model: nn.Module = timm.create_model(name, pretrained=True, **({} if head is None else {"head": head}))
    return model


def _is_transformers(spec: str, folder: Path) -> bool:
    """Return whether it is a transformers folder, or an id on the hub, without timm's `hf-hub:`."""
    if folder.is_dir():
        file = folder / "config.json"
        return file.is_file() and "model_type" in read_config(file) and "architecture" not in read_config(file)
    return "/" in spec and ":" not in spec

"""Load a saved or published cosine model."""

from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import nn

from cosify.errors import InputError
from cosify.models import find_heads
from cosify.models.classifiers import owner_of_classifier
from cosify.models.config import published_spec, read_config
from cosify.models.published import backbones


def load(folder_or_hub_id: str | Path) -> nn.Module:
    """Return the model that `cosify.save` wrote, with its head, policy, kappa and classes.

    Args:
        folder_or_hub_id: a folder, `ORG/NAME` on the hub, or the name of a published backbone.

    Returns:
        A timm model, or a transformers model if it was one, in evaluation mode.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a repository.
        ValueError: if it holds no cosine head, or its description or weights are damaged.
    """
    name = str(folder_or_hub_id)
    if name in backbones():
        name = backbones()[name].source.partition(":")[2]
    local = Path(name).is_dir()
    file = Path(name, "config.json") if local else _fetch_config(name)
    config = read_config(file)
    spec = published_spec(file)
    if spec is None and config.get("model_type") != "cosified":
        raise InputError(
            f"{file} has no 'cosify' key, so {name} is not a saved cosine model; open it with timm or transformers and"
            " call cosify.convert(model)"
        )
    try:
        model = _load_timm(name, local) if "architecture" in config else _load_transformers(name)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(
            f"the weights of {name} cannot be read ({type(error).__name__}: {error}), expected the model.safetensors"
            " that cosify.save writes; save or download the model again"
        ) from error
    unknown = sorted(set() if spec is None else set(spec.starts) - set(find_heads(owner_of_classifier(model)[0])))
    if unknown:
        raise InputError(f"the 'cosify' key of {file} describes heads {unknown} that the model lacks; save it again")
    return model.eval()


def _fetch_config(name: str) -> str:
    try:
        return hf_hub_download(name, "config.json")
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a model that the hub could give ({type(error).__name__}: {error});"
            " check the spelling and the connection"
        ) from error


def _load_timm(name: str, local: bool) -> nn.Module:
    model: nn.Module = timm.create_model(("local-dir:" if local else "hf-hub:") + name, pretrained=True)
    return model


def _load_transformers(name: str) -> nn.Module:
    from transformers import AutoModelForImageClassification  # slow to import, and timm users need none of it

    model: nn.Module = AutoModelForImageClassification.from_pretrained(name)
    return model

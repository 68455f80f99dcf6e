"""Load a saved or published cosine model."""

from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from torch import nn

from cosify.models.config import published_spec, read_config


def load(folder_or_hub_id: str | Path) -> nn.Module:
    """Return the model that `cosify.save` wrote, with its head, policy, kappa and classes.

    Args:
        folder_or_hub_id: a folder, or `ORG/NAME` on the hub.

    Returns:
        A timm model, or a transformers model if it was one, in evaluation mode.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a repository.
        ValueError: if it holds no cosine head, or its description or weights are damaged.
    """
    name = str(folder_or_hub_id)
    local = Path(name).is_dir()
    file = Path(name, "config.json") if local else _fetch_config(name)
    config = read_config(file)
    if published_spec(file) is None and config.get("model_type") != "cosified":
        raise ValueError(
            f"{file} has no 'cosify' key, so {name} is not a saved cosine model; open it with timm or transformers and"
            " call cosify.convert(model)"
        )
    if "architecture" in config:
        prefix = "local-dir:" if local else "hf-hub:"
        model: nn.Module = timm.create_model(prefix + name, pretrained=True)
        return model.eval()
    return _load_transformers(name)


def _fetch_config(name: str) -> str:
    try:
        return hf_hub_download(name, "config.json")
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a model that the hub could give ({type(error).__name__}: {error});"
            " check the spelling and the connection"
        ) from error


def _load_transformers(name: str) -> nn.Module:
    from transformers import AutoModelForImageClassification  # slow to import, and timm users need none of it

    model: nn.Module = AutoModelForImageClassification.from_pretrained(name)
    return model

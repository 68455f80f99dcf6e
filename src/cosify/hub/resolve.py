"""Load a saved or published cosine model."""

import logging
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from torch import nn

from cosify.errors import InputError
from cosify.integrations import timm as timm_plugin
from cosify.integrations import transformers as transformers_plugin
from cosify.integrations.compat import MissingNameError
from cosify.models import find_heads
from cosify.models.binding import CONFIG, WEIGHTS
from cosify.models.build_limit import built_within, sizes_in
from cosify.models.classifiers import owner_of_classifier
from cosify.models.config import published_spec, read_config
from cosify.models.hub_client import SAID, impatient, in_short
from cosify.models.published import backbones

logger = logging.getLogger("cosify")


def load(folder_or_hub_id: str | Path) -> nn.Module:
    """Return the model that `cosify.save` wrote, with its head, policy, kappa and classes.

    Args:
        folder_or_hub_id: a folder, a run with an export, `ORG/NAME` on the hub, or the name of a published backbone.

    Returns:
        A timm model, or a transformers model if it was one, in evaluation mode.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a repository.
        ValueError: if it holds no cosine head, or its description or weights are damaged, whatever is wrong with them.
    """
    name = str(folder_or_hub_id)
    if name in backbones():
        name = backbones()[name].source.partition(":")[2]
    folder = Path(name).expanduser()
    if (folder / "export" / CONFIG).is_file():
        folder = folder / "export"
    if folder.is_dir():
        return _load(str(folder), folder / CONFIG, sorted(folder.glob("model*.safetensors")))
    with impatient():
        return _load(name, _fetch(name, CONFIG), None)


def _load(name: str, file: Path, weights: list[Path] | None) -> nn.Module:
    try:
        config = read_config(file)
        if "cosify" not in config and config.get("model_type") != "cosified":
            raise InputError(
                f"{file} has no 'cosify' key, so {name} is not a saved cosine model; open it with timm or transformers"
                " and call cosify.convert(model)"
            )
        if weights is None:
            weights = [_fetch(name, WEIGHTS)]
        if not weights:
            raise InputError(f"{name} lacks {WEIGHTS}, expected what cosify.save writes; save the model again")
        model = _opened(name, config, weights)
        spec = published_spec(file)
        unknown = sorted(set(spec.starts if spec else ()) - set(find_heads(owner_of_classifier(model)[0])))
        if unknown:
            raise InputError(
                f"the 'cosify' key of {file} describes heads {unknown} that the model lacks; save it again"
            )
    except (FileNotFoundError, MissingNameError):
        raise
    except Exception as error:  # of any type, by what is wrong with the files: the cause stays in the traceback
        if isinstance(error, InputError) and name in str(error)[:SAID]:
            raise
        raise InputError(
            f"{name} cannot be loaded ({in_short(error)}), expected the {CONFIG} and {WEIGHTS} that"
            " cosify.save writes; save or download the model again"
        ) from error
    return model.eval()


def _opened(name: str, config: dict[str, Any], weights: list[Path]) -> nn.Module:
    with built_within(weights, sizes_in(config), name):
        if "architecture" not in config:
            from transformers import AutoModelForImageClassification  # slow to import, and timm users need none of it

            transformers_plugin.require_hook()
            native: nn.Module = AutoModelForImageClassification.from_pretrained(name, trust_remote_code=False)
            return native
        timm_plugin.require_hook()
        source = ("local-dir:" if Path(name).is_dir() else "hf-hub:") + name
        try:
            with torch.device("meta"):
                timm.create_model(source)  # costs nothing, however large it is
        except InputError:
            raise
        except Exception as error:  # a constructor that needs numbers; whatever else is wrong is seen again below
            logger.debug("%s cannot be built without memory: %s", name, error)
    with built_within(weights, sizes_in(config), name):
        model: nn.Module = timm.create_model(source, pretrained=True)
    return model


def _fetch(name: str, file: str) -> Path:
    try:
        return Path(hf_hub_download(name, file))
    except Exception as error:  # of many types, by what is wrong with a name, the connection or the hub
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a model that the hub could give ({in_short(error)}); check the"
            " spelling and the connection"
        ) from error

"""Every private or recent name of other packages, such as timm and transformers, that cosify uses.

Any release may drop one.  A missing name breaks no import, neither ours nor the user's: one warning names it, and the
feature that needs it raises an error when it is used.  `cosify.functional`, the heads and `cosify.convert` need none of
them.
"""

import importlib
import logging
import pickle
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cosify.wrapping import wrap_once

_logger = logging.getLogger("cosify")

# Private name -> what is lost without it.
NAMES = {
    "timm.models._factory.model_entrypoint": "timm.create_model(..., head='cos')",
    "timm.models._builder.load_pretrained": "timm.create_model(..., head='cos')",
    "timm.models._factory._resolve_model_source": "timm.create_model of published backbones by name",
    "timm.models._registry._model_with_tags": "published backbones in timm.list_models",
    "timm.models._registry._model_pretrained_cfgs": "published backbones in timm.list_models",
    "timm.models._registry._model_has_pretrained": "published backbones in timm.list_models",
    "timm.models._hub.save_config_for_hf": "cosify.save of timm models, and the head in what timm itself saves",
    "transformers.modeling_utils.PreTrainedModel.post_init": "from_pretrained of saved cosine models",
    "transformers.modeling_utils.PreTrainedModel._initialize_weights": "from_pretrained of saved cosine models",
    "transformers.modeling_utils.PreTrainedModel._load_pretrained_model": "the check and commit of hub weights",
    "transformers.trainer.Trainer.get_decay_parameter_names": "weight decay of transformers' Trainer that spares kappa",
    "accelerate.state.AcceleratorState._reset_state": "a training in another precision than the one before it",
    "huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY": "time limits for what the hub is asked after an error",
}
(
    ENTRYPOINT, LOAD, SOURCE, WITH_TAGS, CFGS, HAS_PRETRAINED, SAVE_CONFIG,
    POST_INIT, INITIALIZE, READ_WEIGHTS, DECAY,
    FORGET_PRECISION, CLIENT_FACTORY,
) = NAMES  # fmt: skip
# What `timm.create_model(..., head="cos")` cannot do without, and what `from_pretrained` of a cosine model cannot.
TO_CREATE, TO_RESTORE = (ENTRYPOINT, LOAD), (POST_INIT, INITIALIZE)
# Attributes of a transformers model: patterns of names in a checkpoint that its reader passes over.
IGNORE_UNEXPECTED, IGNORE_MISSING = "_keys_to_ignore_on_load_unexpected", "_keys_to_ignore_on_load_missing"
IGNORED_BY_DDP = "_ddp_params_and_buffers_to_ignore"  # attribute of a module: what DDP does not make alike, by name
NUMPY_CORE = "numpy._core"  # where numpy 2 says in a pickle that its functions are; before it was numpy.core
# Python's own version in the place of that in C, which takes the memory that a file asks for before it has the data.
CarefulUnpickler = pickle._Unpickler
_said: set[str] = set()


class MissingNameError(RuntimeError):
    """An installed package lacks a private name that the feature in use is built on."""


def find(name: str) -> tuple[Any, str] | None:
    """Return the object that has the private name as its attribute, and the attribute; None if there is none.

    Args:
        name: one of `NAMES`.
    """
    path, _, attribute = name.rpartition(".")
    try:
        owner = pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return None
    return (owner, attribute) if hasattr(owner, attribute) else None


def find_or_warn(name: str) -> tuple[Any, str] | None:
    """Return what `find` returns; if that is None, warn once of what is lost."""
    found = find(name)
    if found is None and name not in _said:
        _said.add(name)
        _logger.warning("%s", _message(name))
    return found


def wrap(name: str, around: Callable[..., Any]) -> None:
    """Put a function around that of a private name, as `wrap_once` does; warn once if the name is missing."""
    found = find_or_warn(name)
    if found is not None:
        wrap_once(*found, around)


def require(*names: str) -> Any:
    """Return the object behind the last of some private names, all of which are needed.

    Raises:
        MissingNameError: if any of them is missing.
    """
    for name in names:
        found = find(name)
        if found is None:
            raise MissingNameError(_message(name))
        owner, attribute = found
    return getattr(owner, attribute)


def commit_of(config: Any) -> str | None:
    """Return the commit of the hub repository that a transformers configuration was read from, None if not known."""
    found: str | None = getattr(config, "_commit_hash", None)
    return found


def note_commit(config: Any, weights: Path) -> None:
    """Note in a configuration the commit that weights in the hub's cache are of, as earlier transformers did itself.

    Args:
        config: of transformers.
        weights: file of the model; one outside of the hub's cache is of no commit.
    """
    commit = re.search(r"/models--[^/]+/snapshots/([0-9a-f]{40})/", weights.as_posix())
    if commit is not None:
        config._commit_hash = commit[1]


def is_loaded(tensor: Any) -> bool:
    """Return whether transformers has read a tensor from a checkpoint; False where it no longer says so."""
    return getattr(tensor, "_is_hf_initialized", False)


def model_arguments(model: Any) -> dict[str, Any]:
    """Return timm's record of the arguments that a model was made with; it may be changed.  Empty for other models."""
    found: dict[str, Any] = getattr(model, "_model_args", {})
    return found


def fingerprint_of(rows: Any) -> str:
    """Return datasets' digest of the files or rows of a dataset, and of everything done to them since."""
    return str(rows._fingerprint)


class AsksTheWrappedModel:
    """Base of a transformers class that claims to support every attention: the model inside it decides."""

    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True


def attention_of(config: Any) -> Any:
    """Return the kind of attention that a transformers configuration asks for."""
    return config._attn_implementation


def share_attention(config: Any, other: Any) -> None:
    """Note in `config` the kind of attention that `other` asks for, without the checks of its setter."""
    config._attn_implementation_internal = other._attn_implementation


def _message(name: str) -> str:
    package = name.partition(".")[0]
    version = getattr(importlib.import_module(package), "__version__", "of unknown version")
    return (
        f"{name} is missing in {package} {version}, so cosify has to do without {NAMES[name]}; upgrade cosify, install"
        f" an older {package}, or call cosify.convert(model) after creating the model"
    )

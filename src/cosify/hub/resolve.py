"""Open a network with its weights: by folder, run, id on the hub, or name."""

import logging
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from torch import nn

from cosify.errors import InputError, NotFoundError
from cosify.hub.hub_client import SAID, impatient, in_short
from cosify.integrations import compat
from cosify.integrations.transformers import auto_model_class
from cosify.models import find_heads
from cosify.models.binding import CONFIG, WEIGHTS, is_ours
from cosify.models.build_limit import built_within, sizes_in
from cosify.models.classifiers import owner_of_classifier
from cosify.models.config import is_run, published_spec, read_config
from cosify.models.lite0 import LITE0, efficientnet_lite0_from_package
from cosify.models.published import backbones, similar_names

logger = logging.getLogger("cosify")


def load(source: str | Path, *, head: Literal["linear"] | None = None) -> nn.Module:
    """Return a network with its weights; one that cosify saved with its head, policy, kappa and classes.

    Args:
        source: a folder that `cosify.save`, timm or transformers wrote, a run with an export, `ORG/NAME` or
            `ORG/NAME@REVISION` on the hub (`hf-hub:` may stand before it), the name of a published backbone or of a
            timm model that has weights, or `"efficientnet-lite0"` for those of the extra `cosify[demo]`.
        head: `"linear"` for the stock head, also of a saved cosine model; timm models alone have it.

    Returns:
        A timm model, or a transformers model if it was one, in evaluation mode.

    Raises:
        NotFoundError: a ValueError and a FileNotFoundError, if there is no such folder, name or repository.
        ValueError: if its description or weights are damaged, whatever is wrong with them.
    """
    name = str(source)
    if name == LITE0:
        return efficientnet_lite0_from_package()
    if name in backbones():
        name = backbones()[name].source
    folder = saved_folder(name.removeprefix("local-dir:"))
    model: nn.Module
    if folder.is_dir():
        model = _open_saved(str(folder), folder, head)
    elif "/" in name:
        with impatient():
            model = _open_saved(name.removeprefix("hf-hub:"), None, head)
    else:
        model = _open_by_name(name, head)
    return model.eval()


def folder_of(source: str | Path, *more: str) -> Path:
    """Return the folder of a saved network: a run's is its export, one of the hub's is downloaded.

    Args:
        source: as `load` takes it; of timm's own names, which are no folders, the path of that name.
        more: patterns of further files to download.

    Raises:
        NotFoundError: a ValueError and a FileNotFoundError, if the hub does not give it.
    """
    name = str(source)
    if name in backbones():
        name = backbones()[name].source
    folder = saved_folder(name.removeprefix("local-dir:"))
    repo_id, _, revision = name.removeprefix("hf-hub:").partition("@")
    if folder.exists() or not (name.startswith("hf-hub:") or re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id)):
        return folder
    try:
        with impatient():
            return Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS, *more]))
    except Exception as error:  # of many types, by what is wrong with a name, the connection or the hub
        raise _not_found(name, error) from error


def saved_folder(path: str | Path) -> Path:
    """Return the folder of config and weights: of a run its export.

    Raises:
        ValueError: if it is a run without an export.
    """
    folder = Path(path).expanduser()
    if (folder / "export" / CONFIG).is_file():
        return folder / "export"
    if is_run(folder):
        raise InputError(
            f"{path} is a run without an export, expected a model; a training writes one at its end, and goes on with"
            f" --resume {path} if it was stopped"
        )
    return folder


def _open_by_name(name: str, head: str | None) -> nn.Module:
    if not timm.is_model(name) or ("." in name and name not in timm.list_models(pretrained=True)):
        close = similar_names(name)
        raise NotFoundError(
            f"{name} is neither a folder here, nor a published backbone, nor a timm model; "
            + (f"did you mean {' or '.join(close)}?" if close else "see cosify backbones and timm.list_models()")
        )
    try:
        with impatient():
            model: nn.Module = timm.create_model(name, pretrained=True, **_asked(head))
    except Exception as error:  # of many types, by what is wrong with the weights or the connection
        raise InputError(
            f"{name} cannot be loaded ({in_short(error)}), expected a timm model that has weights, and a connection to"
            " where they are; check both"
        ) from error
    return model


def _open_saved(name: str, folder: Path | None, head: str | None) -> nn.Module:
    """Open a folder, or a repository of the hub if there is none.

    Args:
        name: of the folder, or `ORG/NAME[@REVISION]`.
        folder: where it is.
        head: see `load`.
    """
    file = _fetch(name, CONFIG) if folder is None else folder / CONFIG
    try:
        config = read_config(file)
        ours = is_ours(config) or config.get("model_type") == "cosified"
        weights = []  # those of others are neither looked at nor fetched twice
        if ours:
            weights = [_fetch(name, WEIGHTS)] if folder is None else sorted(folder.glob("model*.safetensors"))
            if not weights:
                raise InputError(f"{name} lacks {WEIGHTS}, expected what cosify.save writes; save the model again")
        model = _opened(name, folder, config, weights, head)
        spec = published_spec(file) if head is None else None
        unknown = sorted(set(spec.starts if spec else ()) - set(find_heads(owner_of_classifier(model)[0])))
        if unknown:
            raise InputError(
                f"the 'cosify' key of {file} describes heads {unknown} that the model lacks; save it again"
            )
    except (FileNotFoundError, compat.MissingNameError):
        raise
    except Exception as error:  # of any type, by what is wrong with the files: the cause stays in the traceback
        if isinstance(error, InputError) and name in str(error)[:SAID]:
            raise
        raise InputError(
            f"{name} cannot be loaded ({in_short(error)}), expected the {CONFIG} and {WEIGHTS} that"
            " cosify.save, timm or transformers writes; save or download the model again"
        ) from error
    return model


def _opened(name: str, folder: Path | None, config: dict[str, Any], weights: list[Path], head: str | None) -> nn.Module:
    # transformers' own file of a TimmWrapper that was made from no saved model has nothing that timm could read.
    if "architecture" not in config or (config.get("model_type") == "timm_wrapper" and "pretrained_cfg" not in config):
        if head is not None:
            raise InputError(
                f"{name} is a model of transformers, expected one of timm: only these are opened with head={head!r},"
                " as cosify finetune does; cosify.convert takes this one, to be trained by transformers"
            )
        return _opened_by_transformers(name, config, weights)
    source = f"hf-hub:{name}" if folder is None else f"local-dir:{name}"
    if weights and all(file.name != WEIGHTS for file in weights):
        raise InputError(
            f"{name} holds its weights in {len(weights)} files, expected {WEIGHTS} alone, which is what timm reads;"
            " open it with transformers' AutoModelForImageClassification, or save it with a larger max_shard_size"
        )
    if weights:
        if head is None:
            compat.require(*compat.TO_CREATE)
        with _limited(name, config, weights):
            try:
                with torch.device("meta"):
                    timm.create_model(source)  # costs nothing, however large it is
            except InputError:
                raise
            except Exception as error:  # a constructor that needs numbers; whatever else is wrong is seen again below
                logger.debug("%s cannot be built without memory: %s", name, error)
    with _limited(name, config, weights):
        model: nn.Module = timm.create_model(source, pretrained=True, **_asked(head))
    return model


def _opened_by_transformers(name: str, config: dict[str, Any], weights: list[Path]) -> nn.Module:
    auto_model = auto_model_class(name)  # first: it says so where transformers is missing
    if weights:
        compat.require(*compat.TO_RESTORE)
    place, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
    with _limited(name, config, weights):
        model: nn.Module
        model, info = auto_model.from_pretrained(
            place, revision=revision or "main", trust_remote_code=False, output_loading_info=True
        )
    _check_whole(name, config, info, ours=bool(weights))
    return model


def _check_whole(name: str, config: dict[str, Any], info: dict[str, Any], ours: bool) -> None:
    """Raise if transformers drew a tensor at random that an image classifier holds, or read a file not made for it.

    A checkpoint of others may hold more than the model takes, such as the head of another task, and one that is no
    image classifier lacks the classifier.
    """
    is_classifier = ours or any("ForImageClassification" in kind for kind in config.get("architectures") or ())
    faults = {
        "lack": sorted(info["missing_keys"]) if is_classifier else [],
        "hold besides": sorted(info["unexpected_keys"]) if ours else [],
        "hold in another shape": sorted(each[0] for each in info["mismatched_keys"]),
    }
    for fault, tensors in faults.items():
        if tensors:
            raise InputError(
                f"the weights of {name} {fault} {', '.join(tensors[:3])}{' ...' if len(tensors) > 3 else ''}, expected"
                f" the tensors of its {CONFIG}, no more and no fewer; save or download the model again"
            )


def _limited(name: str, config: dict[str, Any], weights: list[Path]) -> Any:
    return built_within(weights, sizes_in(config), name) if weights else nullcontext()


def _asked(head: str | None) -> dict[str, str]:
    return {} if head is None else {"head": head}


def _fetch(name: str, file: str) -> Path:
    repo_id, _, revision = name.partition("@")
    try:
        return Path(hf_hub_download(repo_id, file, revision=revision or None))
    except Exception as error:  # of many types, by what is wrong with a name, the connection or the hub
        raise _not_found(name, error) from error


def _not_found(name: str, error: Exception) -> NotFoundError:
    return NotFoundError(
        f"{name} is neither a folder here nor a model that the hub could give ({in_short(error)}); check the"
        " spelling and the connection"
    )

"""Save a model as a folder in stock format, readable with and without cosify."""

import copy
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.files import alone_in, remove_left, write_json, written_aside
from cosify.functional.similarity import unit_rows
from cosify.heads import CosineHead, HeadSpec
from cosify.hub.contents import PROCESSOR
from cosify.hub.hub_client import in_short
from cosify.integrations import compat
from cosify.models import find_classifiers, find_heads
from cosify.models.binding import CONFIG, DIGEST, WEIGHTS, check_binding, digest_of
from cosify.models.classifiers import (
    is_timm,
    is_transformers,
    names_in,
    num_classes_of,
    owner_of_classifier,
    unwrap_cosified,
)
from cosify.models.config import published_spec, read_config

_ROUNDING = 1e-4  # of rows that were saved, loaded, and saved again, in float32


def save(model: nn.Module, folder: str | Path, *, label_names: Sequence[str] | None = None) -> Path:
    """Write `config.json` and `model.safetensors`, for timm and transformers with the plugin and without.

    A cosine head is stored as a stock layer: rows of one norm, kappa / E||x|| or what `calibrate` fitted, bias zero.
    Stock readers predict the same labels; their probabilities are close only where ||x|| varies little.  Head settings
    and kappa stand under the key `cosify` of `config.json`, where the plugin finds them.  To resume training, keep an
    ordinary checkpoint: the norms of the rows, part of the effective learning rate, are not those of training.  A
    softmax head is stored as it is; timm's own `save_for_hf` is not used for it: it notes `num_classes` twice, and
    transformers' TimmWrapper cannot open that (timm 1.0.31, transformers 5.23).  A native transformers model takes the
    `preprocessor_config.json` along that lies beside the weights it was opened with, in a folder or in the hub's cache.

    Args:
        model: a timm or transformers model with a cosine or a softmax head; not wrapped in DDP or `torch.compile`.
        folder: created if need be; other files in it stay.
        label_names: name of each class, in order.

    Returns:
        The folder.

    Raises:
        ValueError: if the model has no classifier, holds adapters, is not what its configuration builds, or its head or
            the names do not match its classes.
        TypeError: if it is neither from timm nor from transformers.
        OSError: if the folder cannot be written; no file is left half-written.
    """
    outer, model = model, unwrap_cosified(model)
    adapted = [name for name, module in model.named_modules() if type(module).__module__.partition(".")[0] == "peft"]
    if adapted:
        raise InputError(
            f"{adapted[0] or type(model).__name__} is an adapter of PEFT, which a reader of the folder would not build,"
            " expected the layers of the model alone; save what merge_and_unload() of the PEFT model returns"
        )
    if hasattr(model, "_orig_mod") or not (is_timm(model) or is_transformers(model)):
        raise TypeError(
            f"{type(model).__name__} is neither a timm nor a transformers model; unwrap it first (model.module of DDP,"
            " model._orig_mod of torch.compile)"
        )
    owner, _ = owner_of_classifier(model)
    heads = find_heads(owner)
    if not heads and not find_classifiers(model):
        raise InputError(
            f"{type(model).__name__} has no classifier (num_classes=0), expected a cosine or a softmax head; call"
            " cosify.convert(model, num_classes=...) before saving it"
        )
    num_classes = num_classes_of(owner if is_timm(owner) else model)
    for name, head in heads.items():
        if head.num_classes != num_classes:
            raise InputError(
                f"the head {name!r} has {head.num_classes} classes and {type(model).__name__} says it has"
                f" {num_classes}, expected the same; give it such a head by"
                f" cosify.convert(model, num_classes={head.num_classes})"
            )
    if isinstance(label_names, str) or (label_names is not None and not all(isinstance(n, str) for n in label_names)):
        raise TypeError(f"label_names is {label_names!r}, expected a sequence of strings, one for each class")
    if label_names is not None and len(label_names) != num_classes:
        raise InputError(f"{len(label_names)} label_names came for {num_classes} classes, expected one each")
    if is_timm(owner):
        config = _timm_config(owner, label_names or names_in(model))
    else:
        config = _transformers_config(model, label_names)
    config.pop("cosify", None)  # of a head that was replaced since
    state = _as_readers_take_it(owner, config, stock_state_dict(owner, heads))
    if heads:
        config["cosify"] = HeadSpec.of_heads(heads).to_config()
    processor = None if is_timm(owner) else _processor_of(outer) or _processor_of(model)
    write_model(Path(folder), config, state)
    if processor is not None:
        with written_aside(Path(folder) / PROCESSOR) as aside:
            aside.write_bytes(processor)
    return Path(folder)


def stock_state_dict(owner: nn.Module, heads: dict[str, CosineHead]) -> dict[str, Tensor]:
    """Return the state dict with stock classifiers in place of cosine heads; they predict the same labels."""
    state = {name: value.detach().cpu().clone().contiguous() for name, value in owner.state_dict().items()}
    for name, head in heads.items():
        for own in (*CosineHead.statistics, "log_kappa"):
            state.pop(f"{name}.{own}", None)
        state[f"{name}.weight"] = head.stock_weight().cpu().contiguous()
        state[f"{name}.bias"] = torch.zeros(head.num_classes)
    return state


def holds_weights_of(folder: str | Path, model: nn.Module) -> bool:
    """Return whether a folder of `save` holds the weights of a model.

    A kappa for evaluation that was fitted since, and the norm that it gave the rows of a cosine head, do not matter.

    Args:
        folder: of the saved model; it may be missing.
        model: as in `save`.
    """
    owner, _ = owner_of_classifier(unwrap_cosified(model))
    heads = find_heads(owner)
    state, weights = stock_state_dict(owner, heads), Path(folder) / WEIGHTS
    try:
        config = read_config(Path(folder) / CONFIG)
        check_binding(config, weights)
        saved = load_file(weights)
    except (OSError, ValueError, SafetensorError):  # nothing there, or nothing whole
        return False
    for name in heads:  # of zeros, and of some classifiers not saved
        if f"{name}.bias" not in saved:
            state.pop(f"{name}.bias")
    shapes, own = ({name: value.shape for name, value in each.items()} for each in (saved, state))
    if shapes != own or ("cosify" in config) != bool(heads):
        return False
    for name in heads:
        one, other = (unit_rows(each.pop(f"{name}.weight").flatten(1).float()) for each in (saved, state))
        if not torch.allclose(one, other, rtol=0, atol=_ROUNDING):
            return False
    return all(torch.equal(value, saved[name]) for name, value in state.items())


def fitted_kappa(folder: str | Path) -> float | None:
    """Return the kappa that was fitted for evaluation to a saved model; None if there is none."""
    try:
        spec = published_spec(Path(folder) / CONFIG)
    except (OSError, ValueError):  # nothing there, or nothing whole
        return None
    return None if spec is None or isinstance(spec.eval_kappa, str) else float(spec.eval_kappa)


def _timm_config(owner: nn.Module, label_names: Sequence[str] | None) -> dict[str, Any]:
    extra: dict[str, Any] = {} if label_names is None else {"label_names": list(label_names)}
    save_config_for_hf = compat.require(compat.SAVE_CONFIG)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            save_config_for_hf(owner, os.path.join(scratch, CONFIG), model_config=extra)
        except ValueError as error:  # an argument that JSON cannot hold
            raise InputError(
                f"the configuration of {type(owner).__name__} cannot be written ({in_short(error)}), expected names and"
                " numbers; give timm.create_model names in the place of objects, such as act_layer='silu'"
            ) from error
        config: dict[str, Any] = json.loads(Path(scratch, CONFIG).read_text(encoding="utf-8"))
    config.setdefault("model_args", {}).pop("num_classes", None)  # TimmWrapper passes it itself
    return config


def _transformers_config(model: Any, label_names: Sequence[str] | None) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=True))
    config["architectures"] = [type(model).__name__]
    label_names = label_names or names_in(model)
    if label_names is not None:
        config["id2label"] = {str(index): name for index, name in enumerate(label_names)}
        config["label2id"] = {name: index for index, name in enumerate(label_names)}
    return config


def _as_readers_take_it(owner: Any, config: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the zero biases of heads whose stock classifiers have none.

    transformers passes over tensors that it does not know, such as the weights of a loss, and timm does not.

    Raises:
        ValueError: if what stock readers build from the config does not take them: none could open the folder.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch, torch.device("meta"):
            if is_timm(owner):
                Path(scratch, CONFIG).write_text(json.dumps(config), encoding="utf-8")
                rebuilt = timm.create_model(f"local-dir:{scratch}", num_classes=config["num_classes"])
            else:
                rebuilt = type(owner)(type(owner.config).from_dict(copy.deepcopy(config)))
    except Exception:  # of many types: an architecture of the user's own, or one that needs data to be built
        return state
    stock = rebuilt.state_dict()
    without = {f"{name}.bias" for name in find_heads(owner)} - set(stock)
    state = {name: value for name, value in state.items() if name not in without}
    known = state if is_timm(owner) else {name: value for name, value in state.items() if name in stock}
    try:
        rebuilt.load_state_dict(known, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"{type(owner).__name__} is not what its configuration builds, so that no reader could open the folder"
            f" ({in_short(error)}); change the model by arguments of timm.create_model (head=, drop_rate=, in_chans=)"
            " or in the config of transformers, not by hand; to keep it as it is, save model.state_dict()"
        ) from error
    return state


def _processor_of(model: Any) -> bytes | None:
    """Return the image processor's file that lies beside the weights of a transformers model, None if none is here."""
    name = model.config.name_or_path
    if not name:  # of a model that was made anew
        return None
    file: Any = Path(name, PROCESSOR)
    if not Path(name).is_dir():
        try:
            file = try_to_load_from_cache(name, PROCESSOR, revision=compat.commit_of(model.config))
        except HFValidationError:  # a folder that is gone
            return None
    return Path(file).read_bytes() if isinstance(file, (str, Path)) and Path(file).is_file() else None


def write_model(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Write both files aside, then rename them; they carry one digest, so that our readers refuse a mixture.

    Nothing renames two files at once.  The description goes first: between the two renames, and after a kill there, it
    names weights that the folder does not hold yet.

    Args:
        folder: created if need be; other files in it stay.
        config: of the model.
        state: its tensors, contiguous on the CPU.

    Raises:
        OSError: if the folder cannot be written; then it is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description, weights, digest = folder / CONFIG, folder / WEIGHTS, digest_of(state)
    with alone_in(folder) as alone:
        if alone:
            remove_left(folder, CONFIG, WEIGHTS, PROCESSOR)
        before = description.read_bytes() if description.is_file() else None
        new: os.stat_result | None = None
        try:
            with written_aside(weights) as aside:
                save_file(state, aside, metadata={"format": "pt", DIGEST: digest})
                new = aside.stat()
                write_json(description, {**config, DIGEST: digest})
        except BaseException:  # Ctrl-C, or Windows, which refuses to replace weights that another program reads
            if new is not None and weights.exists() and os.path.samestat(new, weights.stat()):
                raise  # both are in place
            if before is None:
                description.unlink(missing_ok=True)
            elif description.read_bytes() != before:
                with written_aside(description) as aside:
                    aside.write_bytes(before)
            raise

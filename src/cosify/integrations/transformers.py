"""The transformers plugin: models whose config has a `cosify` key get their cosine head back.

Nothing here imports transformers before the user's program does.  `PreTrainedModel` is touched at the two moments that
every model passes on its way through `from_pretrained`: the end of construction, where the head is put in, and the
initialisation of what the checkpoint did not hold, where kappa gets the value that the config recorded; and before
`save_pretrained`, where the config learns which heads there are.  The Trainer keeps weight decay off kappa.
This serves `TimmWrapperForImageClassification`, the native models, pipelines and the Trainer alike.  Before weights
that cosify wrote are read, their digest is compared with that of config.json, and their sha256 where the hub knows it.
The commit of weights of the hub is noted in the model's config, so that their image processor is of the same one.
"""

import functools
from importlib import import_module
from pathlib import Path
from typing import Any

from cosify.extras import require_transformers
from cosify.heads import CosineHead, HeadSpec
from cosify.integrations import compat
from cosify.models import apply_spec, find_heads
from cosify.models.binding import CONFIG, DIGEST, WEIGHTS, check_binding, is_ours
from cosify.models.classifiers import unwrap_cosified
from cosify.models.config import read_config
from cosify.models.download import check_download
from cosify.wrapping import wrap_once


def auto_model_class(name: str) -> Any:
    """Return transformers' `AutoModelForImageClassification`, imported here: it is slow, and timm users do not need it.

    Args:
        name: of the model that it is to open, for the message.

    Raises:
        MissingExtraError: if transformers is not installed.
    """
    require_transformers(f"{name} is a model of transformers, so it")
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification


def install() -> None:
    """Teach the base class of transformers' models, once; later calls do nothing."""
    compat.wrap(compat.POST_INIT, functools.partial(_then, _convert_from_config))
    compat.wrap(compat.INITIALIZE, functools.partial(_then, _start_kappa))
    compat.wrap(compat.READ_WEIGHTS, _check_before_reading)
    wrap_once(import_module("transformers.modeling_utils").PreTrainedModel, "save_pretrained", _describe_heads)


def install_trainer() -> None:
    """Teach transformers' Trainer, once."""
    compat.wrap(compat.DECAY, _without_kappa)


def _without_kappa(original: Any, trainer: Any, model: Any) -> list[str]:
    """Return the parameters with weight decay: not a trainable kappa, whose logarithm decay would pull to 0."""
    return [name for name in original(trainer, model) if name.rpartition(".")[2] != "log_kappa"]


def _describe_heads(original: Any, model: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Write into the config what heads an image classifier has, whoever put them there or took them out."""
    if "ForImageClassification" in type(model).__name__:
        heads = find_heads(model)
        inner: Any = unwrap_cosified(model)
        for config in (model.config, inner.config):  # of one model, or copies
            if heads:
                config.cosify = HeadSpec.settings_of(heads).to_config()
            else:
                vars(config).pop("cosify", None)
    return original(model, *args, **kwargs)


def _then(ours: Any, original: Any, model: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call the original method, then ours."""
    result = original(model, *args, **kwargs)
    ours(model, *args)
    return result


def _check_before_reading(
    original: Any, model: Any, state_dict: Any, checkpoint_files: Any, *args: Any, **kwargs: Any
) -> Any:
    """Check the weights that cosify wrote before transformers reads them, and note the commit of any of the hub."""
    for file in list(checkpoint_files or ())[:1]:
        compat.note_commit(model.config, Path(file))
    if is_ours(vars(model.config)):
        for file in map(Path, checkpoint_files or ()):
            check_download(file)
            description = file.with_name(CONFIG)  # as saved, without later changes
            if file.name == WEIGHTS and description.is_file():
                check_binding(read_config(description), file)
        vars(model.config).pop(DIGEST, None)  # save_pretrained will write other weights
    return original(model, state_dict, checkpoint_files, *args, **kwargs)


def _convert_from_config(model: Any) -> None:
    """Put in the head that `config.cosify` describes."""
    saved = getattr(model.config, "cosify", None)
    if saved is None or "ForImageClassification" not in type(model).__name__ or find_heads(model):
        return
    compat.require(*compat.TO_RESTORE)
    apply_spec(model, HeadSpec.from_config(saved, f"the config of {type(model).__name__}"))
    prefixes = [name.replace(".", r"\.") for name in find_heads(model)]
    # A published folder is in stock format: it holds a zero bias that Eq. (1) lacks, and kappa stands in its config.
    _ignore(model, compat.IGNORE_UNEXPECTED, {rf"{prefix}\.bias$" for prefix in prefixes})
    kappa = "|".join((*CosineHead.statistics, "log_kappa"))
    _ignore(model, compat.IGNORE_MISSING, {rf"{prefix}\.({kappa})$" for prefix in prefixes})


def _ignore(model: Any, attribute: str, patterns: set[str]) -> None:
    """Add names that a model's reader of weights passes over; its class may have none, or a list for all its models."""
    setattr(model, attribute, set(getattr(model, attribute, None) or ()) | patterns)


def _start_kappa(_: Any, module: Any, *args: Any) -> None:
    """Fill what a checkpoint in stock format did not hold, and check what it did.

    transformers' own guard spares loaded tensors.  It sets these one by one, without `load_state_dict`, so they are
    checked here.
    """
    if isinstance(module, CosineHead):
        module.init_non_persistent_buffers()
        is_new = compat.is_loaded(module.kappa) and not compat.is_loaded(module.weight)
        if is_new or module.policy.constant:  # for other classes (ignore_mismatched_sizes) the kappa read is not
            module.start_kappa_anew()
        if is_new and not isinstance(module.eval_kappa, str):
            module.eval_kappa = "running"
        module.check_statistics()

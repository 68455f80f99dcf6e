"""The timm plugin: `timm.create_model(..., head="cos")` for every classifier of timm, and the published backbones.

timm has no plugin interface, so functions are replaced where its factory looks them up.  Two exist unchanged since
timm 0.9.16: `_factory.model_entrypoint` sees each model's keyword arguments, and `_builder.load_pretrained` runs after
construction and before weights are read, the one moment at which a head can be put in so that cosine checkpoints load
strictly and stock ones keep their classifier weight.  `_factory._resolve_model_source` turns a name into where its
settings and weights are; a published backbone is a folder or a repository there, with its head, width and classes.
`_hub.save_config_for_hf` writes down how a model is made; `save_for_hf` and `push_to_hf_hub` call it.
"""

import functools
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.heads import HeadSpec
from cosify.heads.cosine_head import stock_rows
from cosify.heads.spec import asks_for_cosine
from cosify.integrations import compat
from cosify.models.binding import WEIGHTS, check_binding, is_ours
from cosify.models.classifiers import find_heads
from cosify.models.config import published_spec, read_config
from cosify.models.conversion import apply_spec
from cosify.models.download import check_download
from cosify.models.published import backbones

logger = logging.getLogger("cosify")
# Architecture and head of the model under construction; the architecture, because a model may build another one inside.
_pending: ContextVar[tuple[str, HeadSpec] | None] = ContextVar("cosify_pending", default=None)


def install() -> None:
    """Install the hook, once; later calls do nothing.  What this timm lacks is said once and left out."""
    compat.wrap(compat.ENTRYPOINT, _cosine_entrypoint)
    compat.wrap(compat.LOAD, _convert_before_loading)
    compat.wrap(compat.SOURCE, _resolve_published)
    compat.wrap(compat.SAVE_CONFIG, _note_head)
    register_backbones()


def register_backbones() -> None:
    """Make `timm.list_models(pretrained=True)` list the published backbones, and `timm.get_pretrained_cfg` know them.

    timm takes tags from the module that defines an architecture, and some backbones have an architecture of timm's.  So
    this writes what `register_model` writes for a tag (timm 1.0.31).  A name that timm has already stays timm's.
    """
    found = [compat.find_or_warn(name) for name in (compat.WITH_TAGS, compat.CFGS, compat.HAS_PRETRAINED)]
    if None in found:
        return
    with_tags, cfgs, has_pretrained = (getattr(*place) for place in found if place is not None)
    for name, backbone in backbones().items():
        architecture = name.partition(".")[0]
        if name not in with_tags[architecture]:
            with_tags[architecture].append(name)
            cfgs[name] = backbone.cfg
            has_pretrained.add(name)


def _cosine_entrypoint(original: Callable[..., Any], model_name: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Return timm's entrypoint of `model_name`, taught to understand `head` and `kappa`."""
    entrypoint = original(model_name, *args, **kwargs)

    @functools.wraps(entrypoint)
    def create(**settings: Any) -> nn.Module:
        return _create(model_name, entrypoint, settings)

    return create


def _create(model_name: str, entrypoint: Callable[..., nn.Module], settings: dict[str, Any]) -> nn.Module:
    spec = _requested_spec(settings)
    if spec is None or settings.get("features_only"):
        with_head = "head" in settings
        try:
            return entrypoint(**settings)
        except TypeError as error:
            if with_head and "unexpected keyword argument" in str(error) and "'head'" in str(error):
                raise InputError(
                    f"head={settings['head']!r} is unknown to {model_name}, expected 'cos', 'linear' or"
                    " {'type': 'cos', 'kappa': ...}"
                ) from error
            raise
    compat.require(*compat.TO_CREATE)
    token = _pending.set((model_name, spec))
    try:
        model = entrypoint(**settings)
    finally:
        _pending.reset(token)
    if not hasattr(model, "cosify_memory"):  # without pretrained weights nothing was loaded
        apply_spec(model, spec.without_starts())
    return model


def _requested_spec(settings: dict[str, Any]) -> HeadSpec | None:
    """Take `head` and `kappa` out of `settings` if they are ours, and return the head to build, or None."""
    head, kappa = settings.get("head"), settings.get("kappa")
    if isinstance(head, str) and head == "linear":  # the stock head, also of a published cosine model
        del settings["head"]
        if kappa is not None:
            raise InputError(f"kappa={kappa!r} has no effect with head='linear'; drop it or use head='cos'")
        return None
    published = _published(settings.get("pretrained_cfg"), settings.get("cache_dir"))
    if asks_for_cosine(head):
        asked = HeadSpec.from_user(settings.pop("head"), settings.pop("kappa", None), published)
    elif published is not None:  # also beside a head= of the model's own, such as HRNet's
        settings.pop("kappa", None)
        asked = published if kappa is None else HeadSpec(kappa, published.eval_kappa)
    elif head is None and kappa is not None:
        raise InputError(f"kappa={kappa!r} has no effect without a cosine head; add head='cos'")
    else:
        return None  # a value of the model's own, such as HRNet's head="classification"
    if published is not None and published.kappa == asked.kappa:
        asked = replace(asked, starts=published.starts)
    return asked


def _published(pretrained_cfg: object, cache_dir: Any) -> HeadSpec | None:
    """Return the head of the folder or hub repository that the configuration was read from, or None."""
    file = _config_file(pretrained_cfg, cache_dir)
    return None if file is None else published_spec(file)


def _config_file(pretrained_cfg: object, cache_dir: Any) -> str | None:
    """Return the config.json of the folder or hub repository that weights come from, None if there is none."""
    if not isinstance(pretrained_cfg, Mapping):
        return None
    if pretrained_cfg.get("source") == "local-dir":
        file = f"{pretrained_cfg['file']}/config.json"
        return file if Path(file).is_file() else None
    if pretrained_cfg.get("source") == "hf-hub":
        with suppress(EntryNotFoundError):  # a user's own pretrained_cfg may name a repository of weights alone
            return _from_hub(pretrained_cfg["hf_hub_id"], "config.json", cache_dir)
    return None


def _from_hub(hub_id: str, name: str, cache_dir: Any) -> str:
    """Return a file of the hub repository `OWNER/NAME@REVISION`; one that is in the cache costs no request."""
    repo_id, _, revision = hub_id.partition("@")
    cached = try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=revision or None)
    if isinstance(cached, str):
        return cached
    return hf_hub_download(repo_id, name, revision=revision or None, cache_dir=cache_dir)


def _convert_before_loading(original: Callable[..., None], model: nn.Module, *args: Any, **kwargs: Any) -> None:
    pending, cache_dir = _pending.get(), kwargs.get("cache_dir")
    cfg = kwargs.get("pretrained_cfg") or getattr(model, "pretrained_cfg", {})
    spec = pending[1] if pending is not None and cfg.get("architecture") == pending[0] else None
    if spec is not None and not hasattr(model, "cosify_memory"):
        apply_spec(model, spec)
    _check_ours(cfg, cache_dir)
    published = _published(cfg, cache_dir)
    if spec is None or (published is not None and published.kappa != spec.kappa):  # another head than was trained
        kwargs["filter_fn"] = _with_stock_classifiers(kwargs.get("filter_fn"), model, published)
    original(model, *args, **kwargs)


def _with_stock_classifiers(
    filter_fn: Callable[..., Any] | None, model: nn.Module, published: HeadSpec | None
) -> Callable[..., Any]:
    """Return a filter that reads a cosine head as it was trained, as timm itself saves it, into a stock layer."""
    fitted = None if published is None or isinstance(published.eval_kappa, str) else float(published.eval_kappa)

    def filtered(state: dict[str, Tensor], *more: Any) -> Any:
        state, own = dict(state), model.state_dict()
        for name in [key.removesuffix(".embedding_norm") for key in state if key.endswith(".embedding_norm")]:
            if f"{name}.kappa" in state:
                norm, running = state.pop(f"{name}.embedding_norm"), state.pop(f"{name}.kappa")
                log_kappa = state.pop(f"{name}.log_kappa", None)  # of a trainable kappa
                kappa = fitted or (running if log_kappa is None else log_kappa.float().exp())
                weight = stock_rows(state[f"{name}.weight"], kappa, norm)
                state[f"{name}.weight"] = weight
                if f"{name}.bias" in own:
                    state[f"{name}.bias"] = torch.zeros(len(weight))
        return state if filter_fn is None else filter_fn(state, *more)

    return filtered


def _check_ours(cfg: Mapping[str, Any], cache_dir: Any) -> None:
    """Check weights that cosify wrote before timm reads them; those of others are left alone."""
    file = _config_file(cfg, cache_dir)
    config = {} if file is None else read_config(file)
    if not is_ours(config):
        return
    if cfg["source"] == "local-dir":
        weights = Path(cfg["file"], WEIGHTS)
    else:
        try:
            weights = Path(_from_hub(cfg["hf_hub_id"], WEIGHTS, cache_dir))
        except EntryNotFoundError:
            return
        check_download(weights)
    if weights.is_file():
        check_binding(config, weights)


def _resolve_published(original: Callable[..., Any], model_name: str, pretrained_cfg: object, *args: Any) -> Any:
    """Turn `NAME.TAG`, or `NAME` with a tag as `pretrained_cfg`, into the place of a published backbone."""
    name = f"{model_name}.{pretrained_cfg}" if isinstance(pretrained_cfg, str) else model_name
    backbone = backbones().get(name)
    if backbone is not None and (pretrained_cfg is None or isinstance(pretrained_cfg, str)):
        return original(backbone.source, None, *args)
    return original(model_name, pretrained_cfg, *args)


def _note_head(original: Callable[..., None], model: nn.Module, config_path: str, *args: Any, **kwargs: Any) -> None:
    """Write the head that a model has now: timm notes what it was made with, and stock timm knows none of ours."""
    made_with = compat.model_arguments(model)
    if made_with.get("head") == "linear" or asks_for_cosine(made_with.get("head")):
        del made_with["head"]
    made_with.pop("kappa", None)
    original(model, config_path, *args, **kwargs)
    heads, memory = find_heads(model), getattr(model, "cosify_memory", None)
    try:
        if heads:
            spec = HeadSpec.of_heads(heads)
        elif memory is not None and getattr(model, "num_classes", None) == 0:
            spec = memory.spec.without_starts()
        else:
            return
    except InputError as error:
        logger.warning("%s does not say which head %s has: %s", config_path, type(model).__name__, error)
        return
    config = {**read_config(config_path), "cosify": spec.to_config()}
    Path(config_path).write_text(json.dumps(config, indent=2), encoding="utf-8")


install()  # here, when all is defined: importing this module may be what imports timm

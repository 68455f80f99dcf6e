"""Identify a network by a digest of everything that its outputs depend on."""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from cosify.errors import InputError
from cosify.models.binding import digest_of
from cosify.models.classifiers import find_heads, names_in, owner_of_classifier, unwrap_cosified

logger = logging.getLogger("cosify")

NAMED = 5  # classes, at most, that a message names
# Keys of a transformers configuration that say where it comes from, or that a save adds: the outputs do not depend on
# them.
WITHOUT_EFFECT = ("architectures", "cosify", "dtype", "torch_dtype", "transformers_version")
# Plain attributes of timm's modules on which outputs depend, shown by no tensor and no module's description.
UNSEEN = ("global_pool", "num_heads", "pool_include_prefix", "window_size")


def model_digest(model: nn.Module) -> str:
    """Return the architecture, a digest of all but cosine heads, and one of these; equal for equal networks.

    `cosify.save` scales the rows of a cosine head's weight.  This changes the bytes, but not what the head returns; so
    heads have a digest of their own, which `same_network` leaves aside.  It also takes a model out of its wrapper.

    Args:
        model: of timm or transformers.
    """
    model, _ = owner_of_classifier(unwrap_cosified(model))
    heads = find_heads(model)
    of_heads = tuple(f"{name}." for name in heads)
    tensors = {name: value for name, value in model.state_dict().items() if not name.endswith("embedding_norm")}
    inside = {name: value for name, value in tensors.items() if name.startswith(of_heads)}
    outside = {name: value for name, value in tensors.items() if name not in inside}
    config: Any = getattr(model, "config", None)
    described = {} if config is None else config.to_dict()
    settings = {k: v for k, v in described.items() if not k.startswith("_") and k not in WITHOUT_EFFECT}
    # The modules' own description has what no tensor shows: activations, strides, the policy of a head.
    text = repr(model) + json.dumps(settings, sort_keys=True, default=str) + "".join(plain_attributes(model))
    architecture = getattr(model, "pretrained_cfg", {}).get("architecture", type(model).__name__)
    return f"{architecture} {digest_of(outside, text)} {digest_of(inside)}"


def plain_attributes(model: nn.Module) -> Iterator[str]:
    """Yield what timm's modules keep as plain attributes alone, such as how a ViT pools."""
    for path, module in model.named_modules():
        if type(module).__module__.startswith("timm."):
            for name in UNSEEN:
                value = getattr(module, name, None)
                if isinstance(value, (str, bool, int, tuple)):  # convolutional networks pool by a module, which shows
                    yield f"{path}.{name}={value}\n"


def same_network(one: str, other: str) -> bool:
    """Return whether two digests are of the same network, cosine heads left aside."""
    return one.rpartition(" ")[0] == other.rpartition(" ")[0]


def check_label_names(model: nn.Module, label_names: Sequence[str]) -> None:
    """Compare the class names of a saved model to those of a data set; names that only one has are a warning.

    Args:
        model: of timm or transformers.
        label_names: of the data, in order.

    Raises:
        ValueError: if a name of both has another number: labels would be wrong, and nothing would show it.
    """
    own = names_in(model)
    if own is None or len(own) != len(label_names) or list(own) == list(label_names):
        return
    there, here = (
        _listed([name for name in names if name not in set(others)])
        for names, others in ((own, label_names), (label_names, own))
    )
    first = next((index for index, name in enumerate(label_names) if name in own and own[index] != name), None)
    if first is None:
        logger.warning("the model's classes have other names than the data's: %s in the place of %s", there, here)
        return
    numbers = f"class {first} is {own[first]!r} there and {label_names[first]!r} here"
    if here:
        raise InputError(
            f"the model's classes have other names than the data's: {there} in the model alone, {here} in the data"
            f" alone, so that {numbers}, expected the same; name the classes of the data as the model does"
        )
    raise InputError(
        f"the model's classes have another order than the data's: {numbers}, expected the same; number the classes of"
        " the data as the model does"
    )


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more

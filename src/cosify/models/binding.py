"""Weights and their description belong together: both files of a saved model carry one digest of the weights.

config.json holds it under `cosify_weights`, model.safetensors among its metadata.  Other programs keep the digest in
config.json, and write weights without one: such weights open with a warning.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cosify.errors import InputError
from cosify.files import left_aside

logger = logging.getLogger("cosify")

CONFIG, WEIGHTS = "config.json", "model.safetensors"
DIGEST = "cosify_weights"  # key in config.json and in the metadata of the weights


def digest_of(state: Mapping[str, Tensor], text: str = "") -> str:
    """Return a digest of a text and of the names, shapes, dtypes and bytes of tensors."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_ours(config: Mapping[str, Any]) -> bool:
    """Return whether cosify wrote a config.json."""
    return "cosify" in config or DIGEST in config


def check_binding(config: Mapping[str, Any], weights: Path) -> None:
    """Compare the digests in a config.json of ours and in the weights beside it, before these are read.

    A folder without any was written by an earlier edition, and passes.

    Args:
        config: what config.json holds.
        weights: a safetensors file.

    Raises:
        ValueError: if they are not of one save, or the file cannot be opened.
    """
    found, expected = _digest_in(weights), config.get(DIGEST)
    if found == expected:
        return
    if found is None:
        if "cosify" in config:
            logger.warning(
                "%s was written by another program than the %s beside it: kappa and class names there may be those of"
                " the weights before; load it and call cosify.save to bind both",
                weights,
                CONFIG,
            )
        return
    rests = [rest / weights.name for rest in left_aside(weights)]
    left = [rest for rest in rests if rest.is_file() and _digest_in(rest) == expected]
    remedy = f", or rename {left[0]}, which a save that was stopped left, to {weights.name}" if left else ""
    raise InputError(
        f"{weights} and the {CONFIG} beside it are of two different saves ({found} and {expected}): one was replaced"
        f" without the other; save the model again with cosify.save{remedy}"
    )


def _digest_in(weights: Path) -> str | None:
    with opened(weights) as file:
        found: str | None = (file.metadata() or {}).get(DIGEST)
    return found


@contextmanager
def opened(weights: Path) -> Iterator[Any]:
    """Open a safetensors file, of which the header alone is read until a tensor is asked for.

    Raises:
        ValueError: if it cannot be read, also for reads inside of the block.
    """
    try:
        with safe_open(weights, "pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the weights {weights} cannot be read ({type(error).__name__}: {error}), expected the {WEIGHTS} that"
            " cosify.save writes; save or download the model again"
        ) from error

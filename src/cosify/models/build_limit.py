"""A description may not ask for a network much larger than the weights that are to fill it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from cosify.errors import InputError
from cosify.models.binding import opened

# There is room for layers that are made and replaced, and for modules without tensors: of 220 architectures of timm
# none makes more than 3.3 modules a tensor, or 2.3 times the elements that it keeps.
ELEMENTS = 4, 1 << 24  # elements allowed for each in the file, and in any case
MODULES = 20, 2000  # modules allowed for each tensor in the file, and in any case
LARGEST = 1_000_000  # a number of layers, channels or pixels is smaller than this, or than the number of elements


@contextmanager
def built_within(weights: Iterable[Path], sizes: object, where: str) -> Iterator[None]:
    """Raise as soon as a network that is built inside, in this thread, outgrows its weights.

    Args:
        weights: safetensors files; their headers alone are read.
        sizes: what a config.json says of the architecture: numbers in it are sizes and counts.
        where: the folder or the repository, for messages.

    Raises:
        ValueError: if the network, or a number in `sizes`, is too large for the weights, or a file is damaged.
    """
    shapes = [shape for file in weights for shape in _shapes(file)]
    elements = sum(shapes)
    for key, number in _numbers(sizes, ""):
        if abs(number) > max(elements, LARGEST):
            raise InputError(f"{key} in {where} is {number:.3g}, expected no more than its weights have elements")
    left = [ELEMENTS[0] * elements + ELEMENTS[1], MODULES[0] * len(shapes) + MODULES[1]]
    thread = get_ident()

    def spend(_: nn.Module, __: str, value: object) -> None:
        if get_ident() != thread:
            return
        left[0] -= value.numel() if isinstance(value, Tensor) else 0
        left[1] -= isinstance(value, nn.Module)
        if min(left) < 0:
            raise InputError(
                f"{where} describes a network that is many times as large as its weights, expected the one that they"
                " were saved from; save or download the model again"
            )

    # Registering is what every layer does, before it fills its parameters with numbers.
    with ExitStack() as hooks:
        for register in (
            torch_module.register_module_parameter_registration_hook,
            torch_module.register_module_buffer_registration_hook,
            torch_module.register_module_module_registration_hook,
        ):
            hooks.callback(register(spend).remove)
        yield


def _shapes(file: Path) -> list[int]:
    """Return the number of elements of each tensor in a file."""
    with opened(file) as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118  # no mapping
    return [math.prod(shape) for shape in shapes]


def _numbers(value: object, key: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield key, value


def sizes_in(config: Mapping[str, Any]) -> object:
    """Return the part of a config.json that says how large a network is."""
    names = ("model_args", "num_classes")
    return {name: config.get(name) for name in names} if "architecture" in config else config

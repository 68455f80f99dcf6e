"""Save a class-parallel head as one safetensors file of a plain head, and load it on any number of processes."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from cosify.errors import InputError
from cosify.files import written_aside
from cosify.heads.class_parallel import ClassParallelCosineLinear, place_in
from cosify.heads.class_parallel_rows import pieces_in_order

SAFETENSORS_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}


def save_class_parallel(head: ClassParallelCosineLinear, path: str | Path) -> Path:
    """Write what `CosineLinear(...).state_dict()` would hold: `weight` [C, d] in the order of classes, and kappa.

    The first process receives the others' rows in pieces and writes them one behind the other: no process holds more
    than its own rows and a piece.  The file appears when it is whole.

    Args:
        head: on every process of its group; all have to call this together.
        path: of the file; only the first process writes.

    Raises:
        OSError: on all processes, if the file cannot be written; what was there before stays.
    """
    path, error = Path(path), ""
    pieces = pieces_in_order(head, head.weight.detach())
    if place_in(head.process_group)[0] == 0:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside, aside.open("wb") as file:
                file.write(_header(head))
                for piece in pieces:
                    file.write(_bytes(piece))
                for value in _small(head).values():
                    file.write(_bytes(value))
        except OSError as problem:
            error = str(problem)
    for _ in pieces:  # after an error, too: the other processes would wait for ever with a piece that nobody takes
        pass
    if head.process_group is not None:
        message = [error]
        dist.broadcast_object_list(message, group=head.process_group, group_src=0)
        error = message[0]
    if error:
        raise OSError(f"{path} cannot be written ({error}), expected a folder of ours with room for the file")
    return path


@torch.no_grad()
def load_class_parallel(head: ClassParallelCosineLinear, path: str | Path) -> None:
    """Read this process' rows, and kappa, from a file of `save_class_parallel` or of a plain head.

    Args:
        head: to fill, on any number of processes.
        path: of the file; each process reads its part.

    Raises:
        ValueError: if the file holds another number of classes or features.
    """
    with safe_open(str(path), framework="pt") as file:
        rows = file.get_slice("weight")
        shape = rows.get_shape()
        if shape != [head.num_classes, head.in_features]:
            raise InputError(
                f"{path} holds a weight of shape {shape}, this head has {[head.num_classes, head.in_features]}"
                f" ([classes, features]); build it with num_classes={shape[0]} and in_features={shape[1]}"
            )
        names = [name for name in file.keys() if name != "weight"]  # noqa: SIM118  # no mapping
        state = {name: file.get_tensor(name) for name in names}
        state["weight"] = rows[head.classes.start : head.classes.stop]
    head.load_state_dict(state)


def _small(head: ClassParallelCosineLinear) -> dict[str, Tensor]:
    """Return what is alike on all processes."""
    return {name: value for name, value in head.state_dict().items() if name != "weight"}


def _header(head: ClassParallelCosineLinear) -> bytes:
    """Return the length and the table that a safetensors file begins with."""
    table: dict[str, dict[str, object]] = {}
    offset = 0
    weight = torch.empty(head.num_classes, head.in_features, dtype=head.weight.dtype, device="meta")
    for name, value in {"weight": weight, **_small(head)}.items():
        size = value.numel() * value.element_size()
        table[name] = {
            "dtype": SAFETENSORS_DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **table}).encode()
    text += b" " * (-len(text) % 8)  # aligned, as safetensors does it
    return len(text).to_bytes(8, "little") + text


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

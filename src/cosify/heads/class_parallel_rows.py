"""Rows of all classes, which the first process receives from the others piece by piece."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from cosify.errors import InputError
from cosify.functional.search.shards import Shards
from cosify.heads.class_parallel import ClassParallelCosineLinear, class_range, place_in

PIECE_BYTES = 64 << 20  # sent and written at once


def pieces_in_order(head: ClassParallelCosineLinear, rows: Tensor) -> Iterator[Tensor]:
    """Yield the rows of all classes, in order, on the first process; send them there from the others.

    Args:
        head: on every process of its group; all have to take all pieces.
        rows: [c, d], one for each class held here: the weight, or what an optimiser keeps beside it.
    """
    group = head.process_group
    step = max(1, PIECE_BYTES // (head.in_features * rows.element_size()))
    rank, world_size = place_in(group)
    if rank != 0:
        for piece in rows.split(step):
            dist.send(piece.contiguous(), group=group, group_dst=0)
        return
    yield from rows.split(step)
    for source in range(1, world_size):
        num_rows = len(class_range(head.num_classes, source, world_size))
        for start in range(0, num_rows, step):
            piece = rows.new_empty(min(step, num_rows - start), head.in_features)
            dist.recv(piece, group=group, group_src=source)
            yield piece


@torch.no_grad()
def gather_rows(head: ClassParallelCosineLinear, rows: Tensor) -> Tensor:
    """Return the rows of all classes [C, d], on the first process and in its main memory; on others their own.

    Args:
        head: on every process of its group; all have to call this together.
        rows: [c, d], as in `pieces_in_order`.

    Raises:
        ValueError: on all processes, if the first one has no room for them.
    """
    group = head.process_group
    is_first, whole = place_in(group)[0] == 0, rows
    fits = torch.ones(1, dtype=torch.bool, device=rows.device)
    if is_first:
        try:
            whole = torch.empty(head.num_classes, head.in_features, dtype=rows.dtype)
        except RuntimeError:  # torch's error of an allocation
            fits.zero_()
    if not bool(Shards(group).agreed(fits)):
        raise InputError(
            f"the first process has no room for rows of all classes, {head.num_classes} x {head.in_features} numbers of"
            f" {rows.element_size()} bytes, expected enough main memory (not the GPU's); give it more, or write the"
            " weight with cosify.heads.save_class_parallel, which needs none"
        )
    start = 0
    for piece in pieces_in_order(head, rows.detach()):
        whole[start : start + len(piece)] = piece
        start += len(piece)
    return whole

"""Classes that are spread over processes: all collectives of a search."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp, all_reduce, broadcast


class Shards:
    """The processes that share the classes; each holds all samples and gets the result for all classes.

    Args:
        group: the processes; None: this one holds all classes, and nothing is exchanged.
    """

    def __init__(self, group: ProcessGroup | None) -> None:
        self.group = group

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, in place."""
        if self.group is not None:
            all_reduce(values, group=self.group)
        return values

    def max(self, values: Tensor) -> Tensor:
        """Return the maximum over the processes."""
        if self.group is not None:
            values = values.clone()
            all_reduce(values, ReduceOp.MAX, self.group)
        return values

    def agreed(self, decision: Tensor) -> Tensor:
        """Return the first process' mask, so that all processes take the same next step."""
        if self.group is None:
            return decision
        shared = decision.to(torch.uint8)
        broadcast(shared, group=self.group, group_src=0)
        return shared.bool()

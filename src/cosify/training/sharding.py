"""Weights and buffers that differ between processes: under FSDP2, and statistics of batch norms and heads."""

from typing import Any

from torch import nn

from cosify.errors import InputError
from cosify.settings.training import RunArguments


def check_sharding(args: RunArguments, accelerator: Any) -> None:
    """Raise a ValueError for settings that do not work with FSDP, and correct accelerate's own settings."""
    if accelerator.distributed_type != "FSDP":
        return
    if not accelerator.is_fsdp2:
        raise InputError("fsdp_version is 1, expected 2; start with accelerate launch --use_fsdp --fsdp_version 2")
    if args.ema_decay is not None:
        raise InputError(
            f"ema_decay is {args.ema_decay} with FSDP, whose processes hold parts of the weights, expected none; drop"
            " ema_decay, or start without --use_fsdp"
        )
    if args.class_parallel:
        raise InputError(
            "class_parallel is on with FSDP, which would shard the rows of each process once more, expected DDP; start"
            " without --use_fsdp, or drop class_parallel"
        )
    if args.mixed_precision == "fp16":
        raise InputError("mixed_precision is 'fp16' with FSDP, expected bf16 or no; change --mixed-precision")
    plugin = accelerator.state.fsdp_plugin
    # accelerate 1.15 assumes that all of a state dict is sharded, but buffers (batch norm, kappa) are not.
    plugin.cpu_ram_efficient_loading = False
    # It would cast batch norms and the cosine to bfloat16; autocast, as elsewhere, leaves them in float32.
    plugin.mixed_precision_policy = None


def gather_weights(sharded: nn.Module, whole: nn.Module) -> None:
    """Copy weights and buffers of a network under FSDP into an unsharded one on each rank."""
    from torch.distributed.tensor import DTensor

    source = sharded.state_dict()
    for name, value in whole.state_dict().items():
        part = source[name]
        value.copy_(part.full_tensor() if isinstance(part, DTensor) else part)


def take_buffers_of_main(model: nn.Module) -> None:
    """Give all ranks the buffers (batch norm, kappa) of the main process, which are the ones that get saved.

    DDP does so at the start of the next step, which after the last one never comes.
    """
    from accelerate.utils import broadcast

    for buffer in model.buffers():
        broadcast(buffer)

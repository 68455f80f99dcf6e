"""float64 where the device has it: Apple GPUs, and some of Intel's, have none and raise an error."""

import torch
from torch import Tensor


def has_float64(device: torch.device) -> bool:
    """Return whether a device computes in float64."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def float64_device(device: torch.device) -> torch.device:
    """Return a device itself, or the CPU if it has no float64."""
    return device if has_float64(device) else torch.device("cpu")


def in_float64(values: Tensor) -> Tensor:
    """Return values in float64, on the CPU if their device has none."""
    return values.to(float64_device(values.device)).double()


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype for sums on a device that nobody waits for: float64, or float32 if the device has none.

    Sums of an epoch in float32 count 16 million samples exactly, and lose a millionth of a mean over 10,000 steps.
    """
    return torch.float64 if has_float64(device) else torch.float32

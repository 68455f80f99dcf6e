"""How fast the network could go if images cost nothing."""

import time
from typing import Any

import torch
from torch import Tensor

STEPS = 3


def ceiling_images_per_second(accelerator: Any, objective: Any, images: Tensor, labels: Tensor) -> float:
    """Measure forward and backward passes on one batch, over all ranks; weights and buffers are left as they were.

    Args:
        accelerator: of the run.
        objective: prepared network with its loss, in training mode.
        images: a batch, as the loop feeds it.
        labels: [B].
    """
    buffers = {name: value.clone() for name, value in objective.named_buffers()}
    images = torch.randn_like(images)
    for step in range(STEPS + 1):  # the first one warms up
        if step == 1:
            _wait(images.device)
            start = time.perf_counter()
        loss, _ = objective(images, labels)
        accelerator.backward(loss)
        objective.zero_grad()
    _wait(images.device)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        for name, value in objective.named_buffers():
            value.copy_(buffers[name])
    return STEPS * len(labels) * int(accelerator.num_processes) / seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

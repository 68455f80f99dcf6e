"""How the benchmarks time: the contenders take turns in one process, so that all of them meet the same machine."""

import time
from collections.abc import Callable, Mapping


def wait_for(device: str) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def interleaved(
    steps: Mapping[str, Callable[[], object]], repeats: int, device: str, *, at_once: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of a step of each contender, `repeats` of them, after one round that warms up.

    Args:
        steps: make one step each.
        repeats: timed rounds.
        device: waited for before and after.
        at_once: steps between two waits; more than one lets a GPU's queue run ahead, as it does in training.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 1):
        for name, step in steps.items():
            wait_for(device)
            begin = time.perf_counter()
            for _ in range(at_once):
                step()
            wait_for(device)
            if number > 0:
                seconds[name].append((time.perf_counter() - begin) / at_once)
    return seconds

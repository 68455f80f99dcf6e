"""SIGINT and SIGTERM end a run after the current step, with a checkpoint."""

import signal
import threading
from types import FrameType
from typing import Any

import torch

CHECK_EVERY = 10  # steps between two agreements of the ranks; one process checks at every step


class Interrupts:
    """Context that notes a signal.  A second signal acts at once, as if this context were not there.

    Args:
        accelerator: of the run; its ranks agree on when to stop.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._noted = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted = number
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def agreed(self, step: int) -> int:
        """Return the signal that any rank received, 0 for none; every rank must call this after each step.

        Args:
            step: optimiser steps done.
        """
        if self._accelerator.num_processes == 1:
            return self._noted
        if step % CHECK_EVERY != 0:
            return 0
        noted = torch.tensor([self._noted], device=self._accelerator.device)
        return int(self._accelerator.gather(noted).max())

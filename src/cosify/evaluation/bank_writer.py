"""Making a bank: beside its place, by one process or several, and then at once in it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor

from cosify.errors import InputError
from cosify.evaluation.bank import DTYPES, FORMAT, BankInfo, classifier_logits, measured, shapes
from cosify.files import write_whole

CHECKED = 1000  # samples whose logits are computed again from their embeddings
SAME_LOGIT = 1e-2  # how close they must come, relative and absolute; reduced precision in the model differs by less


class BankWriter:
    """A bank in the making, beside its folder; several processes may each write their rows.

    Args:
        folder: where the bank will be.
        info: of the bank.
    """

    def __init__(self, folder: Path, info: BankInfo) -> None:
        self.folder, self.info = folder, info
        self.aside = folder.with_name(f".{folder.name}.new")
        self._arrays: dict[str, Any] = {}
        self._lock = FileLock(folder.with_name(f".{folder.name}.lock"))

    def create(self) -> None:
        """Make the files; for one process, before any other opens them.

        Raises:
            ValueError: if another program makes a bank there just now.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"the bank {self.folder} is being made by another program; wait for it, or choose another folder"
            ) from error
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir(parents=True)
        for name, shape in shapes(self.info).items():
            np.lib.format.open_memmap(self.aside / f"{name}.npy", mode="w+", dtype=DTYPES[name], shape=shape)

    def open(self) -> None:
        """Open the files that one process has made."""
        self._arrays = {name: np.load(self.aside / f"{name}.npy", mmap_mode="r+") for name in DTYPES}

    def write(self, start: int, embedding: Tensor, logits: Tensor, labels: Tensor, weight: Tensor) -> None:
        """Write the rows of a batch.

        Args:
            start: number of its first sample.
            embedding: [B, d].
            logits: [B, C], of the model.
            labels: [B].
            weight: [C, d].
        """
        for name, value in measured(embedding, logits, labels, weight).items():
            self._arrays[name][start : start + len(labels)] = value

    def close(self) -> None:
        """Hand this process' rows to the disk."""
        for array in self._arrays.values():
            array.flush()
        self._arrays = {}

    def release(self) -> None:
        """Let other programs make a bank there."""
        self._lock.release()

    def finish(self, weight: Tensor, bias: Tensor | None) -> None:
        """Complete the bank and put it in its place; for one process, after all have closed theirs."""
        tensors = {"weight": weight.detach().float().cpu().contiguous()}
        if bias is not None:
            tensors["bias"] = bias.detach().float().cpu().contiguous()
        save_file(tensors, self.aside / "classifier.safetensors")
        info = replace(
            self.info, output_is_classifier=self._output_is_classifier(tensors["weight"], tensors.get("bias"))
        )
        write_whole(self.aside / "bank.json", json.dumps({"format": FORMAT, **asdict(info)}, indent=2) + "\n")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.aside.replace(self.folder)

    def _output_is_classifier(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Return whether the model's largest logits are those of the classifier alone."""
        embedding, largest = (np.load(self.aside / f"{name}.npy", mmap_mode="r") for name in ("embedding", "max_logit"))
        rows = torch.from_numpy(np.array(embedding[:CHECKED]))
        logits = classifier_logits(self.info, rows, weight, bias).amax(dim=1).numpy()
        return bool(np.allclose(logits, largest[:CHECKED], rtol=SAME_LOGIT, atol=SAME_LOGIT))

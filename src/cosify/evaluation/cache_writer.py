"""Writing a feature cache: beside its folder, by one process or several, then renamed into place in one step."""

import json
import os
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor

from cosify.errors import InputError
from cosify.evaluation.feature_cache import (
    CLASSIFIER,
    DESCRIPTION,
    DTYPES,
    FORMAT,
    OWN,
    CacheInfo,
    cache_arrays,
    classifier_logits,
    shapes,
)
from cosify.evaluation.rows import to_tensor
from cosify.files import ASIDE, write_json, written_aside
from cosify.folders import foreign_files, put_in_place, remove_own

CHECKED = 1000  # samples whose logits are computed again from their embeddings
SAME_LOGIT = 1e-2  # tolerance of that comparison, relative and absolute; reduced precision in the model needs less


class CacheWriter:
    """Writes a feature cache beside its folder; several processes may each write their rows.

    Args:
        folder: where the cache will be.
        info: of the cache.
    """

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        self.folder, self.info = folder, info
        self.aside = folder.with_name(f".{folder.name}.new")
        self._arrays: dict[str, Any] = {}
        self._lock = FileLock(folder.with_name(f".{folder.name}.lock"))

    def create(self) -> None:
        """Create the files; one process calls this, before any other opens them.

        Raises:
            ValueError: if another program is writing a cache there, or the folder holds something that is not ours.
            OSError: if the disk is full.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"the feature cache {self.folder} is being made by another program; wait for it, or choose another"
                " folder"
            ) from error
        check_ours(self.folder)
        if self.aside.is_dir() and not foreign_files(self.aside, (*OWN, *ASIDE)):  # of a process that was killed
            remove_own(self.aside, (*OWN, *ASIDE))
        try:
            self.aside.mkdir()  # not the user's
            for name, shape in shapes(self.info).items():
                _make(self.aside / f"{name}.npy", DTYPES[name], shape)
        except OSError as error:
            if not isinstance(error, FileExistsError):
                remove_own(self.aside, OWN)
            raise OSError(
                f"the feature cache {self.folder} cannot be made ({error.strerror}: {self.aside}), expected room for"
                f" {self.info.num_samples} rows and a folder of ours; make room, or choose another folder"
            ) from error

    def open(self) -> None:
        """Open the files that one process has created."""
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
        for name, value in cache_arrays(embedding, logits, labels, weight).items():
            self._arrays[name][start : start + len(labels)] = value

    def close(self) -> None:
        """Flush this process' rows to the disk."""
        for array in self._arrays.values():
            array.flush()
        self._arrays = {}

    def release(self) -> None:
        """Let other programs write a cache there."""
        self._lock.release()

    def finish(self, weight: Tensor, bias: Tensor | None) -> None:
        """Complete the cache and put it in place; one process calls this, after all have closed their files."""
        tensors = {"weight": weight.detach().float().cpu().contiguous()}
        if bias is not None:
            tensors["bias"] = bias.detach().float().cpu().contiguous()
        with written_aside(self.aside / CLASSIFIER) as file:
            save_file(tensors, file)
        info = replace(
            self.info, output_is_classifier=self._output_is_classifier(tensors["weight"], tensors.get("bias"))
        )
        made = secrets.token_hex(8)  # no two caches have the same description
        write_json(self.aside / DESCRIPTION, {"format": FORMAT, "made": made, **asdict(info)})
        check_ours(self.folder)
        old = put_in_place(self.aside, self.folder)
        if old is not None:
            remove_own(old, OWN)

    def _output_is_classifier(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Return whether the model's largest logits are those that its classifier alone gives."""
        embedding, largest = (np.load(self.aside / f"{name}.npy", mmap_mode="r") for name in ("embedding", "max_logit"))
        rows = to_tensor(embedding[:CHECKED])
        logits = classifier_logits(self.info, rows, weight, bias).amax(dim=1).numpy()
        return bool(np.allclose(logits, largest[:CHECKED], rtol=SAME_LOGIT, atol=SAME_LOGIT))


def check_ours(folder: Path) -> None:
    """Raise a ValueError if there is a file, or a folder that is not a feature cache: it is not ours to replace."""
    if not folder.exists() and not folder.is_symlink():
        return
    found = set(os.listdir(folder)) if folder.is_dir() and not folder.is_symlink() else {folder.name}
    # A damaged cache is known by its file names, all of them; no folder of a user has exactly these.
    if found and (found - set(OWN) or (found != set(OWN) and not _describes_cache(folder / DESCRIPTION))):
        raise InputError(
            f"{folder} holds {sorted(found)[:5]}, which is no feature cache of cosify, expected a new or empty folder,"
            " or a cache alone; choose another folder"
        )


def _describes_cache(file: Path) -> bool:
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(saved, dict) and {"format", "key", "num_samples"} <= set(saved)


def _make(file: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    """Create an array's file and reserve its space: a write to a map on a full disk would kill the process."""
    np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("rb+") as opened:
            os.posix_fallocate(opened.fileno(), 0, max(1, file.stat().st_size))

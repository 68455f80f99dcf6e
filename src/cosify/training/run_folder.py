"""The folder of a run: config.json, metrics.jsonl, environment.json, checkpoints/ and export/."""

import json
import os
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cosify.errors import InputError
from cosify.files import ASIDE, left_aside, remove_left, write_json, write_whole
from cosify.folders import (
    LOCK,
    foreign_files,
    locked,
    moved_lock,
    new_folder_beside,
    put_in_place,
    refuse_links_out,
    remove_own,
)
from cosify.models.config import RUN_MARK, is_run

FORMAT = 1
OWN = (
    *("config.json", "metrics.jsonl", "environment.json", "kappa_trace.png", LOCK, ".*.new", "trackers/*"),
    *(where + left for where in ("", "export/", "features/*/") for left in ASIDE),
    *("checkpoints/step-*", "checkpoints/best.safetensors", "checkpoints/.*.new*", "export/.*.new", "export/.saving-*"),
    *("export/config.json", "export/model.safetensors", "export/preprocessor_config.json"),
    *("export/rejector.json", "export/rejector*.safetensors"),
    *("features/*/*.npy", "features/*/bank.json", "features/*/classifier.safetensors"),
    *("features/.*.lock", ".features.lock"),
)  # what our programs write into a run folder


class RunFolder:
    """A run's folder.  Each file and folder in it is written aside and renamed when whole.

    Only one process writes to it: the one that made or opened it, which holds a lock while this object lives.

    Attributes:
        path: of the folder.
        place: path that the folder takes when `put_in_place` is called; until then an earlier run stays there.  None if
            the folder is there already.
    """

    def __init__(self, path: Path, place: Path | None = None) -> None:
        self.path, self.place = path, place
        self._lock: Any = None
        self._before: Any = None  # lock of the run that this one replaces

    @property
    def checkpoints(self) -> Path:
        """Folder of states to resume from."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """Folder of the model for others."""
        return self.path / "export"

    @classmethod
    def create(cls, path: Path | str, config: Mapping[str, Any], *, overwrite: bool = False) -> "RunFolder":
        """Make the folder together with its config.json, so that a run that is killed at once can be resumed.

        If it replaces an earlier run, the new folder lies beside that one until `put_in_place`.

        Args:
            path: of the folder; parents are made.
            config: script and arguments, all that is needed to start.
            overwrite: replace an earlier run.  Other folders are never replaced.

        Raises:
            FileExistsError: if it holds foreign files, or holds a run and `overwrite` is False.
            ValueError: if another process writes to it.
            OSError: if it cannot be made or written to.
        """
        path = Path(path)
        place = path.resolve()
        before = None
        if place.is_dir() and any(place.iterdir()):
            _check_replaceable(path, overwrite)
            before = locked(place)
        try:
            for left in left_aside(place):  # of a process that was killed
                with suppress(InputError):  # if it lives
                    lock = locked(left) if is_run(left) else None
                    remove_own(left, OWN if lock is not None else ())
            folder = cls(new_folder_beside(place), path)
            weakref.finalize(folder, _drop, folder.path, os.getpid())
            folder._lock = locked(folder.path)
            folder.checkpoints.mkdir()
            folder.write_config(config)
            if before is None:
                folder.path.rename(place)  # fails if another process was quicker
                folder._has_place()
        except OSError as error:
            raise OSError(
                f"run folder {path} cannot be written to ({error.strerror}), expected a folder that is new or empty"
                " and ours to write; choose another --output"
            ) from error
        folder._before = before
        return folder

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Open the folder of a run to go on with it.

        Raises:
            ValueError: if another process writes to it, or a symbolic link leads out of it.
            OSError: if it is not ours to write to.
        """
        folder = cls(Path(path))
        refuse_links_out(folder.path)
        folder._lock = locked(folder.path)
        remove_left(folder.path, "config.json", "environment.json", "metrics.jsonl", "kappa_trace.png")
        return folder

    def put_in_place(self) -> None:
        """Move the folder to its place, and drop the earlier run there; for the main process alone."""
        if self.place is not None:
            old = put_in_place(self.path, self.place.resolve())
            if old is not None:
                remove_own(old, OWN)
            self._has_place()

    def was_put_in_place(self) -> None:
        """Tell another process that the main one has called `put_in_place`."""
        self.path, self.place = self.place or self.path, None

    def _has_place(self) -> None:
        assert self.place is not None
        self.path, self.place, self._before = self.place, None, None
        moved_lock(self._lock, self.path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json: script, arguments and what they became."""
        write_json(self.path / "config.json", {RUN_MARK: FORMAT, **config})

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write versions, commit and device to environment.json."""
        write_json(self.path / "environment.json", environment)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl.  The file is short and is written anew, so that it is never half a line."""
        path = self.path / "metrics.jsonl"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        write_whole(path, before + json.dumps(record) + "\n")

    def drop_metrics_after(self, step: int) -> None:
        """Drop what was recorded after `step`: a resumed run records it again.

        Raises:
            ValueError: if the file is damaged.
        """
        path = self.path / "metrics.jsonl"
        records = _records(path) if path.exists() else []
        kept = [record for record in records if record["step"] <= step]
        if len(kept) < len(records):
            write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))


def _check_replaceable(path: Path, overwrite: bool) -> None:
    if not is_run(path):
        found = sorted(entry.name for entry in path.iterdir())[:5]
        raise FileExistsError(
            f"run folder {path} holds {found}, which no run has written, expected a new or empty folder;"
            " choose another --output"
        )
    # A run that failed before its first checkpoint or epoch has nothing to lose.
    has_results = (path / "metrics.jsonl").exists() or any((path / "checkpoints").glob("*"))
    if has_results and not overwrite:
        raise FileExistsError(
            f"run folder {path} holds an earlier run, expected a new or empty folder; choose another"
            " --output, or pass --overwrite to replace it"
        )
    foreign = foreign_files(path, OWN)
    if foreign:
        raise FileExistsError(
            f"run folder {path} holds {foreign[:5]} beside an earlier run, expected what a run writes alone; move them"
            " away, or choose another --output"
        )


def _drop(aside: Path, process: int) -> None:
    """Remove the folder of a run that ended before it took its place."""
    if os.getpid() == process:
        remove_own(aside, OWN)


def read_config(path: Path | str) -> dict[str, Any]:
    """Return a run's config.json.

    Args:
        path: of the run folder.

    Raises:
        ValueError: if the folder is missing or is no run folder.
    """
    file = Path(path) / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(config, dict) and {RUN_MARK, "script", "arguments"} <= set(config):
            return config
        found = f"{file} has the keys {sorted(config)[:8]}"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        found = f"{file} cannot be read ({type(error).__name__})"
    raise InputError(f"{path} is no run folder: {found}, expected one that a training script wrote; check --resume")


def read_metrics(path: Path | str, kind: str = "epoch") -> list[dict[str, Any]]:
    """Return records of a run's metrics.jsonl.

    Args:
        path: of the run folder.
        kind: `"epoch"` for one record an epoch, `"step"` for evaluations within epochs.

    Raises:
        ValueError: if it is damaged.
        OSError: if it cannot be read.
    """
    return [record for record in _records(Path(path) / "metrics.jsonl") if record.get("kind", "epoch") == kind]


def best_evaluation(path: Path | str) -> dict[str, Any]:
    """Return the record of a run's metrics.jsonl whose weights `export: best` takes: the first of the largest accuracy.

    Args:
        path: of the run folder.

    Raises:
        ValueError: if the file is damaged.
        OSError: if it cannot be read.
    """
    evaluated = [record for record in _records(Path(path) / "metrics.jsonl") if "test_accuracy" in record]
    return max(evaluated, key=lambda record: record["test_accuracy"])


def _records(file: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise InputError("it is no mapping")
            records.append(record)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"line {number} of {file} is damaged ({error}), expected what a run wrote, a JSON object a line;"
                " remove the line, or start a new run"
            ) from error
    return records

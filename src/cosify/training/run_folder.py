"""The folder of a run: config.json, metrics.jsonl, environment.json, checkpoints/ and export/."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
MARK = "cosify_run"  # the key of config.json by which a run folder is known


class RunFolder:
    """A run's folder.  Every file and folder in it appears at once, whole.

    Attributes:
        path: of the folder.
        checkpoints: folder of states to resume from.
        export: folder of the model for others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.export = path / "export"

    @classmethod
    def create(cls, path: Path | str, *, overwrite: bool = False) -> "RunFolder":
        """Make the folder, empty.

        Args:
            path: of the folder; parents are made.
            overwrite: drop an earlier run in it.  What is no run of ours is never dropped.

        Raises:
            FileExistsError: if it holds files of something else, or a run and `overwrite` is False.
            OSError: if it cannot be made or written to.
        """
        folder = cls(Path(path))
        if folder.path.is_dir() and any(folder.path.iterdir()):
            folder._clear(overwrite)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder._write("config.json", json.dumps({MARK: FORMAT}))
        except OSError as error:
            raise OSError(
                f"run folder {path} cannot be written to ({error.strerror}), expected a folder that is new or empty"
                " and ours to write; choose another --output"
            ) from error
        folder.checkpoints.mkdir()
        return folder

    def _clear(self, overwrite: bool) -> None:
        if not self._is_run():
            found = sorted(path.name for path in self.path.iterdir())[:5]
            raise FileExistsError(
                f"run folder {self.path} holds {found}, which no run has written, expected a new or empty folder;"
                " choose another --output"
            )
        has_results = (self.path / "metrics.jsonl").exists()  # a run that failed before its first epoch has none
        if has_results and not overwrite:
            raise FileExistsError(
                f"run folder {self.path} holds an earlier run, expected a new or empty folder; choose another"
                " --output, or pass --overwrite to replace it"
            )
        shutil.rmtree(self.path)

    def _is_run(self) -> bool:
        try:
            return MARK in json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return False

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved arguments to config.json."""
        self._write("config.json", json.dumps({MARK: FORMAT, **config}, indent=2) + "\n")

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write versions, commit and device to environment.json."""
        self._write("environment.json", json.dumps(environment, indent=2) + "\n")

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl.  The file is written anew: short, and never torn."""
        path = self.path / "metrics.jsonl"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        self._write("metrics.jsonl", before + json.dumps(record) + "\n")

    def put_in_place(self, aside: Path, target: Path) -> None:
        """Let the finished folder `aside` take the name of `target`, whose old content goes."""
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        aside.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    def _write(self, name: str, text: str) -> None:
        aside = self.path / f".{name}.new"
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path / name)


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Return the records of a run's metrics.jsonl, one an epoch.

    Args:
        path: of the run folder.
    """
    text = (Path(path) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]

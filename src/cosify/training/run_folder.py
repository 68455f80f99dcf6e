"""The folder of a run: config.json, metrics.jsonl, environment.json, checkpoints/ and export/."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosify.errors import InputError
from cosify.files import write_whole

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
    def create(cls, path: Path | str, config: Mapping[str, Any], *, overwrite: bool = False) -> "RunFolder":
        """Make the folder.  It appears with its config.json, so that a run that is killed at once can be resumed.

        Args:
            path: of the folder; parents are made.
            config: script and arguments, all that is needed to start.
            overwrite: drop an earlier run in it.  What is no run of ours is never dropped.

        Raises:
            FileExistsError: if it holds files of something else, or a run and `overwrite` is False.
            OSError: if it cannot be made or written to.
        """
        folder = cls(Path(path))
        if folder.path.is_dir() and any(folder.path.iterdir()):
            folder._clear(overwrite)
        aside = cls(folder.path.with_name(f".{folder.path.name}.new"))
        try:
            shutil.rmtree(aside.path, ignore_errors=True)
            aside.checkpoints.mkdir(parents=True)
            aside.write_config(config)
            aside.path.replace(folder.path)
        except OSError as error:
            shutil.rmtree(aside.path, ignore_errors=True)
            raise OSError(
                f"run folder {path} cannot be written to ({error.strerror}), expected a folder that is new or empty"
                " and ours to write; choose another --output"
            ) from error
        return folder

    def _clear(self, overwrite: bool) -> None:
        if not self._is_run():
            found = sorted(path.name for path in self.path.iterdir())[:5]
            raise FileExistsError(
                f"run folder {self.path} holds {found}, which no run has written, expected a new or empty folder;"
                " choose another --output"
            )
        # A run that failed before its first checkpoint or epoch has nothing to lose.
        has_results = (self.path / "metrics.jsonl").exists() or any((self.path / "checkpoints").glob("*"))
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
        """Write script, arguments and what became of them to config.json."""
        write_whole(self.path / "config.json", json.dumps({MARK: FORMAT, **config}, indent=2) + "\n")

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write versions, commit and device to environment.json."""
        write_whole(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl.  The file is written anew: short, and never torn."""
        write_whole(self.path / "metrics.jsonl", "".join([*self._lines(), json.dumps(record) + "\n"]))

    def drop_metrics_after(self, step: int) -> None:
        """Forget what was recorded after `step`: a resumed run comes there again."""
        lines = self._lines()
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            write_whole(self.path / "metrics.jsonl", "".join(kept))

    def _lines(self) -> list[str]:
        path = self.path / "metrics.jsonl"
        return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def read_config(path: Path | str) -> dict[str, Any]:
    """Return a run's config.json.

    Args:
        path: of the run folder.

    Raises:
        ValueError: if the folder is missing, or no run of ours.
    """
    file = Path(path) / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if {MARK, "script", "arguments"} <= set(config):
            return config
        found = f"{file} has the keys {sorted(config)[:8]}"
    except (OSError, ValueError, TypeError) as error:
        found = f"{file} cannot be read ({type(error).__name__})"
    raise InputError(f"{path} is no run folder: {found}, expected one that a training script wrote; check --resume")


def read_metrics(path: Path | str, kind: str = "epoch") -> list[dict[str, Any]]:
    """Return records of a run's metrics.jsonl.

    Args:
        path: of the run folder.
        kind: `"epoch"`, one for each, or `"step"`, evaluations between.
    """
    text = (Path(path) / "metrics.jsonl").read_text(encoding="utf-8")
    return [record for record in map(json.loads, text.splitlines()) if record.get("kind", "epoch") == kind]

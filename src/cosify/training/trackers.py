"""Trackers such as TensorBoard and wandb, which get the numbers of metrics.jsonl."""

from collections.abc import Mapping
from typing import Any

from cosify.errors import InputError
from cosify.training.run_folder import RunFolder, read_metrics

FOLDER = "trackers"  # in the run folder, for TensorBoard's files
PROJECT = "cosify"  # on the dashboards of the others, where each run has the name of its folder
NAMED = ("wandb", "trackio")


class Trackers:
    """The trackers of a run.  They start when the run folder is in its place, and then catch up.

    Args:
        accelerator: of the run.
        run: its folder.
        settings: of the run, as text, by name.
        step: of the checkpoint that a resumed run goes on from; what TensorBoard was told after it is done again, and
            no longer shown.  0 for a new run.
    """

    def __init__(self, accelerator: Any, run: RunFolder, settings: Mapping[str, str], step: int = 0) -> None:
        self._accelerator, self._run, self._settings, self._step = accelerator, run, settings, step
        self._started = False
        if run.place is None:
            self._start()

    def _start(self) -> None:
        self._accelerator.project_configuration.logging_dir = str(self._run.path)
        named = any(str(tracker) in NAMED for tracker in self._accelerator.log_with)
        more: dict[str, dict[str, Any]] = {tracker: {"name": self._run.path.name} for tracker in NAMED}
        more["tensorboard"] = {"purge_step": self._step + 1}
        try:
            self._accelerator.init_trackers(PROJECT if named else FOLDER, config=self._settings, init_kwargs=more)
        except Exception as error:  # of many types, by tracker: not logged in, no server, no room
            raise InputError(
                f"tracker {self._settings['tracker']!r} cannot start ({type(error).__name__}: {error}), expected one"
                " that is set up; log in there, or pass --tracker none"
            ) from error
        self._started = True

    def log(self, record: Mapping[str, Any]) -> None:
        """Log the numbers of a record of metrics.jsonl."""
        if self._started:
            numbers = {key: value for key, value in record.items() if isinstance(value, (int, float))}
            self._accelerator.log(numbers, step=record["step"])
        elif self._run.place is None:
            self._start()
            if self._accelerator.is_main_process:
                records = read_metrics(self._run.path) + read_metrics(self._run.path, "step")
                for each in sorted(records, key=lambda record: int(record["step"])):
                    self.log(each)

    def finish(self) -> None:
        """Let the trackers write what they still hold."""
        if not self._started:
            self.log({})
        for tracker in self._accelerator.trackers:  # not end_training: it would end the process group too
            tracker.finish()

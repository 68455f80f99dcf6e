"""The files in a published folder beside weights and config, and what is read from them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosify.training import CosifyArguments, FinetuneArguments, TrainArguments
from cosify.training.parse import command_line

RUN, METRICS, ENVIRONMENT, EVALUATION, FINETUNE = (
    "run.json", "metrics.jsonl", "environment.json", "evaluation.json", "finetune.json",
)  # fmt: skip
WEIGHTS = "model.safetensors"
SCRIPTS = {
    "TrainArguments": ("scripts/train.py", TrainArguments),
    "CosifyArguments": ("scripts/cosify_pretrained.py", CosifyArguments),
    "FinetuneArguments": ("scripts/finetune.py", FinetuneArguments),
}


@dataclass(frozen=True)
class Weights:
    """The file that was measured.

    Attributes:
        sha256: of model.safetensors.
        num_bytes: its size.
        dtype: of matrices and filters.
    """

    sha256: str
    num_bytes: int
    dtype: str

    @classmethod
    def of_file(cls, file: Path) -> "Weights":
        """Look at a model.safetensors."""
        from safetensors.torch import load_file

        kinds = {str(value.dtype).removeprefix("torch.") for value in load_file(file).values() if value.ndim > 1}
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        return cls(sha256, file.stat().st_size, " and ".join(sorted(kinds)))


@dataclass(frozen=True)
class Finetuned:
    """The backbone after fine-tuning on another task.

    Attributes:
        task: name of the data.
        command: of the run.
        head: new head, `"softmax"` or a kappa.
        epochs: of the run.
        accuracy: of the last epoch, on the task's test split, in [0, 1].
        num_train: images.
        num_test: images.
        seed: of the run.
        weights_sha256: of what it started from.
    """

    task: str
    command: str
    head: str
    epochs: int
    accuracy: float
    num_train: int
    num_test: int
    seed: int
    weights_sha256: str

    @property
    def standard_error(self) -> float:
        """Of the accuracy, sqrt(p (1 - p) / N)."""
        return float((self.accuracy * (1 - self.accuracy) / self.num_test) ** 0.5)


def command_of(run: dict[str, Any]) -> str:
    """Return the command that repeats a run.

    Args:
        run: its config.json.
    """
    script, kind = SCRIPTS[run["script"]]
    return command_line(script, kind, run["arguments"])


def read_json(path: Path) -> Any:
    """Return a file that a script wrote.

    Raises:
        ValueError: if it is not there.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing, expected the output of a script; run it first")
    return json.loads(path.read_text(encoding="utf-8"))

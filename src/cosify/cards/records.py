"""Records in the JSON files of a published folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosify.errors import InputError
from cosify.evaluation import Verification
from cosify.evaluation.transferability import standard_error
from cosify.files import sha256_of
from cosify.hub.contents import ENVIRONMENT, METRICS, RUN
from cosify.models.binding import CONFIG, WEIGHTS

MEASURED = (CONFIG, WEIGHTS, RUN, METRICS, ENVIRONMENT)  # the files that an evaluation is about


@dataclass(frozen=True)
class Measured:
    """The files that were evaluated.

    Attributes:
        sha256: of each file in `MEASURED`.
        num_bytes: of the weights.
        dtype: of their matrices and filters.
    """

    sha256: Mapping[str, str]
    num_bytes: int
    dtype: str

    @classmethod
    def of_folder(cls, folder: Path) -> "Measured":
        """Return the record of the files in a folder."""
        from safetensors.torch import load_file

        tensors = load_file(folder / WEIGHTS).values()
        kinds = {str(value.dtype).removeprefix("torch.") for value in tensors if value.ndim > 1}
        sha256 = {name: sha256_of(folder / name) for name in MEASURED}
        return cls(sha256, (folder / WEIGHTS).stat().st_size, " and ".join(sorted(kinds)))

    def changed(self, folder: Path) -> list[str]:
        """Return the files in a folder that have changed; a missing file is not counted."""
        return [
            name for name in MEASURED if (folder / name).is_file() and sha256_of(folder / name) != self.sha256[name]
        ]


@dataclass(frozen=True)
class Finetuned:
    """The backbone after fine-tuning on another task.

    Attributes:
        task: name of the data.
        command: of the run.
        head: new head, `"softmax"` or a kappa.
        epochs: that the run made.
        accuracy: of the last epoch, on the task's test split, in [0, 1].
        num_train: images.
        num_test: images.
        seed: of the run.
        weights_sha256: of the weights that it started from.
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
        """Standard error of the accuracy."""
        return standard_error(self.accuracy, self.num_test)


@dataclass(frozen=True)
class Verified:
    """What `cosify verify` found for pairs of pictures.

    Attributes:
        data: name of the pairs.
        dataset_id: of the pairs on the hub; None if they are not there.
        command: of the verification.
        num_pictures: different ones.
        found: what was measured.
        weights_sha256: of the weights.
    """

    data: str
    dataset_id: str | None
    command: str
    num_pictures: int
    found: Verification
    weights_sha256: str


@dataclass(frozen=True)
class AgainstStart:
    """Probes on few images of another task, beside those of the weights that training began with.

    Attributes:
        task: name of the data.
        command: of the comparison.
        begun_with: name of the weights before.
        top1: mean accuracy of the probes, in [0, 1].
        start: that with the weights before.
        standard_error: of the difference of the two, paired by probe and by image.
        per_class: images of a class that fit a probe; all others test it.
        num_images: of the task.
        weights_sha256: of the weights.
    """

    task: str
    command: str
    begun_with: str
    top1: float
    start: float
    standard_error: float
    per_class: int
    num_images: int
    weights_sha256: str

    @property
    def difference(self) -> float:
        """How far the probes are above those of the start."""
        return self.top1 - self.start


def read_json(path: Path) -> Any:
    """Return the content of a JSON file that a script wrote.

    Raises:
        ValueError: if it is missing or is no JSON.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing, expected the output of a script; run it first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}), expected the output of a script; run it again") from error

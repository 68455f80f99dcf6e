"""The result of a run, in memory."""

from dataclasses import dataclass

from torch import nn

from cosify.data import Data
from cosify.heads.kappa_statistics import KappaSummary
from cosify.training.evaluation import Evaluation
from cosify.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves in memory; its files hold the rest.

    Attributes:
        folder: of the run.
        model: that of the last step, the EMA or the best one, as the settings say; unwrapped, float32, on the training
            device.  With class_parallel, the main process has it with a plain head and on the CPU, the others with
            their own rows.
        evaluation: of that model on the test split.
        kappa: of the last epoch's training samples; None for a stock softmax head.
        data: both splits, as batches.
        seconds: of training and evaluation, all sessions of the run together.
        is_main: whether this process is the one that writes files.
    """

    folder: RunFolder
    model: nn.Module
    evaluation: Evaluation
    kappa: KappaSummary | None
    data: Data
    seconds: float
    is_main: bool

    def __repr__(self) -> str:
        kappa = "" if self.kappa is None else f", kappa {self.kappa.mean:.2f} in the last epoch"
        found = self.evaluation
        right = f"{found.accuracy:.2%} of {found.num_samples} test images right"
        return f"TrainResult({right}{kappa}; {self.seconds:.0f} s; {self.folder.path})"

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.data.label_names

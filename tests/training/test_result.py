"""What a run's result looks like in a notebook."""

from types import SimpleNamespace
from typing import Any

from torch import nn

from cosify.heads.kappa_statistics import KappaSummary
from cosify.training.evaluation import Evaluation
from cosify.training.result import TrainResult


def test_one_line() -> None:
    folder: Any = SimpleNamespace(path="runs/x")
    found = Evaluation(accuracy=0.9724, loss=0.1, mean_angle_deg=30.0, num_samples=597)
    kappa = KappaSummary(5.312, 5.3, 5.0, 6.0, 0.0, 0.0, (0,) * 20)
    data: Any = None
    result = TrainResult(folder, nn.Linear(2, 2), found, kappa, data, 41.7, is_main=True)
    assert repr(result) == "TrainResult(97.24% of 597 test images right, kappa 5.31 in the last epoch; 42 s; runs/x)"
    softmax = TrainResult(folder, nn.Linear(2, 2), found, None, data, 41.7, is_main=True)
    assert repr(softmax) == "TrainResult(97.24% of 597 test images right; 42 s; runs/x)"

"""Labels that a trained model gives to its test split."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cosify.training.evaluation import EVAL_BATCH

if TYPE_CHECKING:
    from cosify.training.result import TrainResult


@torch.no_grad()
def predict_labels(result: "TrainResult") -> Tensor:
    """Return the predicted label of each test sample, int64 [N] on the CPU, in the order of the split."""
    model = result.model.eval()
    return torch.cat([model(images).argmax(dim=1) for images, _ in result.data.test_batches(EVAL_BATCH)]).cpu()

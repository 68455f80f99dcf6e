"""Labels that a trained model gives to its test split."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cosify.data import eval_batches

if TYPE_CHECKING:
    from cosify.training.loop import TrainResult

BATCH_SIZE = 256


@torch.no_grad()
def predict_labels(result: "TrainResult") -> Tensor:
    """Return the predicted label of each test sample, int64 [N] on the CPU, in the order of the split."""
    model = result.model.eval()
    normalizer = result.normalization.on(result.test.images.device)
    batches = eval_batches(result.test, BATCH_SIZE)
    return torch.cat([model(normalizer(images)).argmax(dim=1) for images, _ in batches]).cpu()

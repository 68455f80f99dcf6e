"""Accuracy, loss and the angle between features and the weight of their class."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.functional.float64 import sum_dtype
from cosify.models import in_evaluation, linear_classifier


@dataclass(frozen=True)
class Evaluation:
    """Means over a set, all ranks together.

    Attributes:
        accuracy: share of samples whose highest logit is that of their label, in [0, 1].
        loss: cross entropy, nats.
        mean_angle_deg: between a sample's feature and the weight row of its label, degrees.
        num_samples: how many samples there were.
    """

    accuracy: float
    loss: float
    mean_angle_deg: float
    num_samples: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    all_sum: Callable[[Tensor], Tensor] = lambda values: values,
) -> Evaluation:
    """Measure a classifier with a cosine head or a stock linear one; the model's mode is restored.

    Args:
        model: timm classifier, not wrapped by DDP: ranks may have different numbers of batches.
        batches: this rank's normalised images [B, channels, H, W] and labels [B].
        device: of model and batches.
        all_sum: returns the sum of a tensor over all ranks; every rank must call this together.

    Raises:
        ValueError: if the model has no classifier, or there are no samples at all.
    """
    classifier = linear_classifier(model)
    sums = torch.zeros(4, dtype=sum_dtype(device), device=device)  # correct, loss, degrees, samples
    with in_evaluation(model, classifier) as answers:
        for images, labels in batches:
            rows, logits = answers(images)
            own_weight = classifier.weight.detach().flatten(1).float()[labels]
            cosine = F.cosine_similarity(rows, own_weight).clamp(-1, 1)
            sums[0] += (logits.argmax(dim=1) == labels).sum()
            sums[1] += F.cross_entropy(logits, labels, reduction="sum")
            sums[2] += torch.rad2deg(cosine.acos()).to(sums.dtype).sum()
            sums[3] += len(labels)
    correct, loss, degrees, samples = all_sum(sums).tolist()
    if samples == 0:
        raise InputError("there are no samples to evaluate, expected at least one batch; check the test split")
    return Evaluation(correct / samples, loss / samples, degrees / samples, int(samples))

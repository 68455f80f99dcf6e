"""Accuracy, loss and the angle between features and the weight of their class."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.functional.float64 import sum_dtype
from cosify.heads import CosineSoftmaxLoss
from cosify.models import embed, evaluation_mode, in_evaluation, linear_classifier
from cosify.models.layout import evaluation_layout
from cosify.training.class_parallel import class_parallel_heads

Batches = Iterable[tuple[Tensor, Tensor]]
EVAL_BATCH = 256
SUM = Callable[[Tensor], Tensor]


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
    batches: Batches,
    *,
    device: torch.device,
    all_sum: SUM = lambda values: values,
) -> Evaluation:
    """Measure a classifier with a cosine head, plain or class-parallel, or a stock one; the model's mode is restored.

    Args:
        model: timm classifier, not wrapped by DDP: ranks may have different numbers of batches.
        batches: this rank's normalised images [B, channels, H, W] and labels [B].
        device: of model and batches.
        all_sum: returns the sum of a tensor over all ranks; every rank must call this together.

    Raises:
        ValueError: if the model has no classifier, or there are no samples at all.
    """
    measure = _measure_spread if class_parallel_heads(model) else _measure
    sums = torch.zeros(4, dtype=sum_dtype(device), device=device)  # correct, loss, degrees, samples
    measure(model, batches, sums, all_sum)
    correct, loss, degrees, samples = all_sum(sums).tolist()
    if samples == 0:
        raise InputError("there are no samples to evaluate, expected at least one batch; check the test split")
    return Evaluation(correct / samples, loss / samples, degrees / samples, int(samples))


def _measure(model: nn.Module, batches: Batches, sums: Tensor, _: SUM) -> None:
    """Add this rank's right answers, losses, angles and samples to `sums`."""
    classifier = linear_classifier(model)
    with in_evaluation(model, classifier) as answers:
        for images, labels in batches:
            rows, logits = answers(images)
            own_weight = classifier.weight.detach().flatten(1).float()[labels]
            cosine = F.cosine_similarity(rows, own_weight)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            _add(sums, logits.argmax(dim=1) == labels, loss, cosine)


def _measure_spread(model: nn.Module, batches: Batches, sums: Tensor, all_sum: SUM) -> None:
    """Do the same where each rank holds some of the classes: all ranks take each step together."""
    (head,) = class_parallel_heads(model).values()
    loss_of, layout = CosineSoftmaxLoss(head), evaluation_layout(model)
    nothing = head.weight.new_zeros(0, head.in_features), torch.zeros(0, dtype=torch.int64, device=sums.device)
    own = iter(batches)
    with evaluation_mode(model):
        while True:
            batch = next(own, None)
            if int(all_sum(torch.tensor([int(batch is not None)], device=sums.device))) == 0:
                break
            rows, labels = nothing
            if batch is not None:
                images, labels = batch
                rows = embed(model, head, images.to(memory_format=layout)).float()
            nearest, _ = head.predict(rows)
            # The mean over the samples of all ranks; each rank adds the part of its own.
            _add(sums, nearest == labels, loss_of(rows, labels) * len(labels), head.cosine_to(rows, labels))


def _add(sums: Tensor, right: Tensor, loss: Tensor, cosine: Tensor) -> None:
    sums[0] += right.sum()
    sums[1] += loss
    sums[2] += torch.rad2deg(cosine.clamp(-1, 1).acos()).to(sums.dtype).sum()
    sums[3] += len(right)

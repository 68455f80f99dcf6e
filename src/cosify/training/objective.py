"""The training objective: network and loss as one module, so that DDP, FSDP and autocast see one forward pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.functional.prior import log_prior
from cosify.heads import CosineSoftmaxLoss
from cosify.models import embed, find_heads
from cosify.settings.training import RunArguments


class Objective(nn.Module):
    """Map images and targets to the mean loss and the number of correct answers.

    The loss is cross-entropy on the network's logits, Eq. (2).  With a margin, or a class-parallel head, it is
    `CosineSoftmaxLoss` on the embedding; it never holds all logits, so correct answers are not counted.

    Under balance `"logits"` the logarithm of each class' share of the training images is added to its logit in the loss
    alone: the logit-adjusted loss of Menon et al., ICLR 2021, Eq. (10) at strength 1, which is the balanced softmax of
    Ren et al., NeurIPS 2020.  kappa is estimated from the cosines as ever, and answers are counted by the plain logits.

    Args:
        model: timm network.
        args: margins, label smoothing, balance.
        class_counts: training samples of each class, [C], on the CPU; needed to balance loss or logits.

    Raises:
        ValueError: if there is a margin and not exactly one cosine head, or balance is `"logits"` and a class has no
            training samples.
    """

    class_weights: Tensor | None
    log_prior: Tensor | None

    def __init__(self, model: nn.Module, args: RunArguments, class_counts: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = args.label_smoothing
        weights = None
        if args.balance == "loss":
            assert class_counts is not None
            # n / (C n_c), as scikit-learn's "balanced": over all samples the mean weight is 1.
            weights = class_counts.sum() / (len(class_counts) * class_counts.clamp_min(1).double())
        self.register_buffer("class_weights", None if weights is None else weights.float(), persistent=False)
        prior = None
        if args.balance == "logits":
            assert class_counts is not None
            prior = log_prior(class_counts).float()
        self.register_buffer("log_prior", prior, persistent=False)
        # In a tuple, so that the head is not registered as a submodule twice.
        self._embedding_loss: tuple[CosineSoftmaxLoss, ...] = ()
        if args.from_embeddings:
            heads = list(find_heads(model).values())
            if len(heads) != 1 or not hasattr(model, "forward_head"):
                raise InputError(
                    f"a margin needs one cosine head in a timm model, found {len(heads)} in {type(model).__name__}; use"
                    " --head cos and a model with a single classifier"
                )
            loss = CosineSoftmaxLoss(
                heads[0], args.cosine_margin, args.angular_margin, label_smoothing=args.label_smoothing
            )
            self._embedding_loss = (loss,)

    @property
    def counts_correct(self) -> bool:
        """Whether `forward` counts correct answers."""
        return not self._embedding_loss

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the number of correct answers, scalars.

        Args:
            images: [B, channels, H, W].
            targets: class indices [B], or class probabilities [B, C] from mixup, smoothed already.
        """
        if self._embedding_loss:
            embedding = embed(self.model, self._embedding_loss[0].head, images)
            weights = None if self.class_weights is None else self._sample_weights(targets, self.class_weights)
            loss = self._embedding_loss[0](embedding, targets, weights)
            if weights is not None:
                loss = loss * self._embedding_loss[0].head.mean_of_all(weights)
            return loss, torch.zeros((), device=images.device)
        logits = self.model(images).float()
        soft = targets.ndim == 2
        smoothing = 0.0 if soft else self.label_smoothing
        adjusted = logits if self.log_prior is None else logits + self.log_prior
        losses = F.cross_entropy(adjusted, targets, label_smoothing=smoothing, reduction="none")
        if self.class_weights is not None:
            # Not cross_entropy's `weight`: it weighs the smoothed part of a target by the weights of the other classes.
            losses = losses * self._sample_weights(targets, self.class_weights)
        labels = targets.argmax(dim=1) if soft else targets
        # The mean over samples, not over weights: ranks and accumulated batches then add up to one large batch.
        return losses.mean(), (logits.detach().argmax(dim=1) == labels).sum()

    def _sample_weights(self, targets: Tensor, class_weights: Tensor) -> Tensor:
        """Return the weight of each sample, [B]: that of its class; for a mixed image, the mean over its two labels.

        The target is not changed: the share of a rare class in a mixed image does not grow.
        """
        if targets.ndim == 1:
            return class_weights[targets]
        smoothing = self.label_smoothing  # it is spread evenly over all classes, whatever the labels are
        return (targets @ class_weights - smoothing * class_weights.mean()) / (1 - smoothing)

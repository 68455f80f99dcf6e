"""The training prior in the logits: added in the loss, or taken away after training."""

from torch import Tensor

from cosify.errors import InputError


def adjust_logits(logits: Tensor, train_counts: Tensor, strength: float = 1.0) -> Tensor:
    """Return logits less the logarithm of the training prior, for a test set with as many images of each class.

    Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, Eq. (9); for a cosine head the logits are kappa
    times the cosine, so that a small kappa is adjusted more.

    Args:
        logits: [N, C].
        train_counts: [C], training images of each class, at least 1.
        strength: factor of the logarithm; 1 is what follows for a classifier whose probabilities are right.

    Raises:
        ValueError: if a class has no training images, whose prior has no logarithm.
    """
    return logits - strength * log_prior(train_counts).to(logits)


def log_prior(train_counts: Tensor) -> Tensor:
    """Return the logarithm of each class' share of the training images, [C], float64.

    Raises:
        ValueError: if a class has no training images.
    """
    if not bool((train_counts > 0).all()):
        empty = (train_counts <= 0).nonzero().flatten().tolist()
        raise InputError(
            f"{len(empty)} of {len(train_counts)} classes have no training images, such as {empty[:10]}, expected one"
            " at least: the logarithm of their share is not finite; leave them out"
        )
    counts = train_counts.double()
    return (counts / counts.sum()).log()

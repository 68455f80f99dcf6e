"""Features and logits of a classifier, in evaluation mode; and its features alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from cosify.errors import InputError
from cosify.models.classifiers import find_classifiers
from cosify.models.layout import evaluation_layout


@contextmanager
def in_evaluation(model: nn.Module, classifier: nn.Module) -> Iterator[Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """Give a function from images to embeddings [B, d] and logits [B, C], both float32, of `model` in evaluation mode.

    Works for cosine heads and stock linear ones.

    Args:
        model: the mode of each of its modules is restored at the end.
        classifier: the layer of it that embeddings are given to.
    """
    embedding: list[Tensor] = []
    layout = evaluation_layout(model)

    def answers(images: Tensor) -> tuple[Tensor, Tensor]:
        embedding.clear()
        logits = logits_of(model, images.to(memory_format=layout) if images.ndim == 4 else images)
        return embedding[0].flatten(1).float(), logits.float()

    hook = classifier.register_forward_pre_hook(lambda _, inputs: embedding.append(inputs[0]))
    try:
        with evaluation_mode(model):
            yield answers
    finally:
        hook.remove()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode within the block; then each module gets its own mode back.

    A model in training mode may hold modules in evaluation mode, such as frozen batch norms.
    """
    modes = [(module, module.training) for module in model.modules()]
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)  # cosine heads forget the kept norms of their classes
        for module, mode in modes:
            module.training = mode


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits [B, C] of a timm or transformers model."""
    output = model(images)
    if isinstance(output, Tensor):
        return output
    logits: Tensor = output.logits if hasattr(output, "logits") else output[0]  # PP-LCNet gives them another name
    return logits


def embed(model: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    """Return what a model gives its head for images, [B, d]; the head itself is not run, so there are no logits.

    timm's `forward_head(..., pre_logits=True)` is not always that: it leaves out a norm in front of the classifier
    (timm's `NormLinear`) and, in some networks, dropout.

    Args:
        model: with one head; the mode is as it is.
        head: a layer of it.
        images: [B, channels, H, W].
    """
    given: list[Tensor] = []

    def take(embedding: Tensor) -> Tensor:
        given.append(embedding)
        return embedding

    # Not a hook that raises an error: those of FSDP have to run to the end.
    head.forward = take
    try:
        model(images)
    finally:
        del head.forward
    return given[0].flatten(1)


def linear_classifier(model: nn.Module) -> Any:
    """Return the layer that maps features to logits, the first one of a model with several.

    Raises:
        ValueError: if the model has none.
    """
    classifiers = find_classifiers(model)
    if not classifiers:
        raise InputError(
            f"{type(model).__name__} has no classifier (num_classes=0), expected an image classifier; build the model"
            " with num_classes > 0"
        )
    return next(iter(classifiers.values()))

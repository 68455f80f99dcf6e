"""Features and logits of a classifier in evaluation mode."""

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
        model: its mode is restored at the end.
        classifier: the layer of it that embeddings are given to.
    """
    embedding: list[Tensor] = []
    layout = evaluation_layout(model)

    def answers(images: Tensor) -> tuple[Tensor, Tensor]:
        embedding.clear()
        output = model(images.to(memory_format=layout) if images.ndim == 4 else images)
        logits = getattr(output, "logits", output)  # transformers puts them into an object
        return embedding[0].flatten(1).float(), logits.float()

    hook = classifier.register_forward_pre_hook(lambda _, inputs: embedding.append(inputs[0]))
    was_training = model.training
    model.eval()
    try:
        yield answers
    finally:
        hook.remove()
        model.train(was_training)


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

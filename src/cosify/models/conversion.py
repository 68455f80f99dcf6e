"""Give a timm or transformers classifier a cosine head, in place."""

import logging
from typing import TypeVar

from torch import nn

from cosify.errors import InputError
from cosify.functional.checks import check_num_classes
from cosify.heads import EvalKappa, HeadSpec, resolve_policy
from cosify.models.classifiers import (
    find_classifiers,
    forget_names,
    is_transformers,
    owner_of_classifier,
    unwrap_cosified,
)
from cosify.models.guards import refuse_multi_label, warn_about_projection
from cosify.models.memory import Memory
from cosify.models.replacement import replace_classifiers

Model = TypeVar("Model", bound=nn.Module)
_logger = logging.getLogger(__name__)


def convert(
    model: Model,
    kappa: float | str = "ls",
    num_classes: int | None = None,
    *,
    eval_kappa: EvalKappa = "running",
) -> Model:
    """Replace the classifier layers of `model` by cosine heads, in place.

    Without `num_classes`, the weight parameter stays the same object; a bias is dropped, because Eq. (1) has none.
    `reset_classifier` keeps the cosine head from now on, and `fuse()` leaves it alone.  Distilled and multi-head models
    get one head for each classifier.

    Args:
        model: a timm model or a transformers `...ForImageClassification`.
        kappa: a number above 0 or the name of a policy, as in `CosineLinear`.
        num_classes: of a new classifier, with a new weight and without label names, also if the model has as many
            classes already; default: the model's own classifier.
        eval_kappa: as in `CosineLinear`.

    Returns:
        The same model.

    Raises:
        ValueError: for a model without a classifier, fewer than two classes, a bad kappa, or a multi-label model.
        TypeError: if the model is neither from timm nor from transformers.
    """
    leaves = {} if num_classes is not None else find_classifiers(unwrap_cosified(model))
    if num_classes is None and not leaves:
        raise InputError(
            f"{type(model).__name__} has no classifier (num_classes=0), so there is nothing to convert; call"
            " cosify.convert(model, num_classes=...)"
        )
    apply_spec(model, HeadSpec(kappa, eval_kappa), num_classes)
    for name, leaf in leaves.items():
        if getattr(leaf, "bias", None) is not None:
            _logger.info("%s: cosine head, kappa=%r, bias dropped", name, kappa)
    return model


def apply_spec(model: Model, spec: HeadSpec, num_classes: int | None = None) -> Model:
    """Convert as `spec` says; a model with `num_classes=0` only remembers it, for its next `reset_classifier`."""
    inner = unwrap_cosified(model)
    if inner is not model:
        apply_spec(inner, spec, num_classes)
        if num_classes is not None:
            model.config.num_labels = model.num_labels = num_classes  # type: ignore[union-attr, assignment]
            forget_names(model)
        return model
    refuse_multi_label(model)
    if num_classes is not None:
        check_num_classes(num_classes, resolve_policy(spec.kappa).min_classes)
    owner, _ = owner_of_classifier(model)
    if num_classes is None:
        warn_about_projection(owner)
    elif hasattr(owner, "reset_classifier"):
        owner.reset_classifier(num_classes)  # type: ignore[operator]
    # The new weight of a model that cannot reset its classifier is made with the head.
    heads = replace_classifiers(model, spec, None if hasattr(owner, "reset_classifier") else num_classes)
    Memory.attach(owner, spec.for_new_classes(), heads)
    if is_transformers(model):
        if num_classes is not None:
            model.config.num_labels = model.num_labels = num_classes  # type: ignore[union-attr, assignment]
        model.config.cosify = spec.without_starts().to_config()  # type: ignore[union-attr]
        model.config.problem_type = "single_label_classification"  # type: ignore[union-attr]  # never guessed as BCE
    if num_classes is not None:
        forget_names(model)
    return model

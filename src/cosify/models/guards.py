"""Refuse what cannot train a cosine head, and warn about what should not have one."""

import logging

from torch import nn

from cosify.errors import InputError

_logger = logging.getLogger(__name__)

# Widths of CLIP's joint image-text space: a "classifier" of that many outputs is an image projection.
_PROJECTION_WIDTHS = (512, 640, 768, 1024, 1152, 1280)


def warn_about_projection(model: nn.Module) -> None:
    """Warn where a CLIP tower's image projection is about to be taken for a classifier."""
    cfg = getattr(model, "pretrained_cfg", {})
    name = f"{cfg.get('architecture')} {cfg.get('tag')} {cfg.get('hf_hub_id')} {cfg.get('notes')}".lower()
    num_classes = getattr(model, "num_classes", 0)
    if "clip" in name and num_classes in _PROJECTION_WIDTHS and num_classes == cfg.get("num_classes"):
        _logger.warning(
            "%s: the %d outputs of this CLIP tower are an image projection, not classes; pass num_classes to train a"
            " classifier",
            cfg.get("architecture"),
            num_classes,
        )


def refuse_multi_label(model: nn.Module) -> None:
    """Raise for a transformers model that trains with a sigmoid or a regression loss."""
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if problem in ("multi_label_classification", "regression"):
        raise InputError(
            f"config.problem_type is {problem!r}, expected single-label classification: a cosine head has no bias, so a"
            " sigmoid cannot put its threshold anywhere but at 90 degrees, and kappa is defined by a softmax"
        )

"""The model of a run: a timm network, with a cosine head if the run asks for one."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
from torch import nn

import cosify.models.cifar_resnet  # noqa: F401  # registers its names with timm
from cosify.data import BUILT_IN, Normalization
from cosify.models import convert
from cosify.training.arguments import TrainArguments

# For sets of a few hundred small images: stock architecture, stage sizes 8, 4, 2 and 1 at 32 pixels.
SMALL_MODEL = "resnet10t"
SMALL_MODEL_KWARGS: dict[str, Any] = {"stem_width": 8, "channels": [16, 32, 64, 128]}
SMALL_IMAGE_SIZE = 32
LARGE_MODEL = "resnet18_cifar"


@dataclass(frozen=True)
class ModelChoice:
    """Which network a run trains.

    Attributes:
        name: of the timm model.
        kwargs: for `timm.create_model`.
        image_size: side of the images, pixels; None to keep theirs.
    """

    name: str
    kwargs: dict[str, Any]
    image_size: int | None

    @classmethod
    def of(cls, args: TrainArguments) -> "ModelChoice":
        """Resolve the defaults, which depend on the data.

        Raises:
            ValueError: if a model argument does not read key=value.
        """
        kwargs = parse_model_kwargs(args.model_kwargs)
        if args.model is None and args.data in BUILT_IN:
            image_size = SMALL_IMAGE_SIZE if args.image_size is None else args.image_size
            return cls(SMALL_MODEL, {**SMALL_MODEL_KWARGS, **kwargs}, image_size)
        return cls(LARGE_MODEL if args.model is None else args.model, kwargs, args.image_size)


def parse_model_kwargs(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `["width=0.25", "act_layer=gelu"]`; values are Python literals, and text where they are not.

    Raises:
        ValueError: for a pair without `=`.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"model argument {pair!r} does not read key=value, expected for example width=0.25")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


def default_image_size(name: str) -> int:
    """Return the side in pixels that a timm model is made for.

    Raises:
        ValueError: if timm knows no such model.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name.split(".")[0]) else None
    if config is None:
        close = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:5]
        raise ValueError(
            f"unknown model {name!r}, expected a name of timm.list_models(), such as {close or [LARGE_MODEL]}"
        )
    return int(config.input_size[-1])


def build_model(choice: ModelChoice, args: TrainArguments, num_classes: int, in_chans: int) -> nn.Module:
    """Build the network, with its own softmax head or a cosine head.

    Args:
        choice: which network.
        args: head, kappa, pretrained.
        num_classes: C.
        in_chans: channels of the images.

    Raises:
        ValueError: if the model does not take its arguments, or the head does not suit it.
    """
    try:
        model: nn.Module = timm.create_model(
            choice.name, pretrained=args.pretrained, num_classes=num_classes, in_chans=in_chans, **choice.kwargs
        )
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"model {choice.name!r} cannot be built ({error}), expected arguments that it takes, got {choice.kwargs};"
            " change --model-kwargs, or drop --pretrained if it has no weights"
        ) from error
    if args.head == "cos":
        convert(model, kappa=args.kappa_policy)
    return model


def normalization_of(model: nn.Module, args: TrainArguments, images: Any) -> Normalization:
    """Return the statistics of pretrained weights, or those of the training `images` for a model from scratch."""
    if not args.pretrained:
        return Normalization.of_images(images)
    config: Any = model.pretrained_cfg
    return Normalization.of_pretrained(config["mean"], config["std"], images.shape[1])


def record_preprocessing(model: nn.Module, normalization: Normalization, image_shape: Sequence[int]) -> None:
    """Write into the model's timm config how images reach it, so that an export carries it.

    Args:
        model: timm model.
        normalization: of its inputs.
        image_shape: channels, height and width.
    """
    config: Any = model.pretrained_cfg
    config.update(
        input_size=tuple(image_shape),
        mean=normalization.mean,
        std=normalization.std,
        crop_pct=1.0,
        crop_mode="center",
        interpolation="bilinear",
    )

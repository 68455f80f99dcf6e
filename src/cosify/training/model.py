"""The model of a run: a timm network, with a cosine head if the run asks for one."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from torch import nn

from cosify.data import BUILT_IN, Preprocessing, base_and_split
from cosify.errors import InputError
from cosify.integrations import compat
from cosify.models.classifiers import input_shape
from cosify.models.conversion import convert
from cosify.models.inference import evaluation_mode
from cosify.models.published import similar_names
from cosify.settings.training import TrainArguments, kappa_policy

# For sets of a few hundred small images: stock architecture, stage sizes 8, 4, 2 and 1 at 32 pixels.
SMALL_MODEL = "resnet10t"
SMALL_MODEL_KWARGS: dict[str, Any] = {"stem_width": 8, "channels": [16, 32, 64, 128]}
SMALL_IMAGE_SIZE = 32
LARGE_MODEL = "resnet18_cifar"
WIDE_IMAGE_MODEL_KWARGS: dict[str, Any] = {"width": 0.25}  # for images of 8 by 16 pixels


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
            ValueError: if a model argument is not key=value.
        """
        kwargs = parse_model_kwargs(args.model_kwargs)
        base, _ = base_and_split(args.data)
        if args.model is None and base == "two-digits":
            return cls(LARGE_MODEL, {**WIDE_IMAGE_MODEL_KWARGS, **kwargs}, args.image_size)
        if args.model is None and base in BUILT_IN:
            image_size = SMALL_IMAGE_SIZE if args.image_size is None else args.image_size
            return cls(SMALL_MODEL, {**SMALL_MODEL_KWARGS, **kwargs}, image_size)
        return cls(LARGE_MODEL if args.model is None else args.model, kwargs, args.image_size)


def parse_model_kwargs(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `["width=0.25", "act_layer=gelu"]`; a value that is no Python literal is text.

    Raises:
        ValueError: for a pair without `=`.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"model argument {pair!r} is not key=value, expected for example width=0.25")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


def preprocessing_of(choice: ModelChoice, *, pretrained: bool) -> Preprocessing:
    """Return what a timm model expects of its images.

    Raises:
        ValueError: if timm knows no such model, or `in_chans` is neither 1 nor 3.
    """
    name, channels = choice.name, choice.kwargs.get("in_chans")
    if channels not in (None, 1, 3):
        raise InputError(f"in_chans is {channels!r}, expected 1 (grey) or 3 (colour); change --model-kwargs")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name.split(".")[0]) else None
    if config is None:
        close = similar_names(name) or [LARGE_MODEL]
        raise InputError(f"unknown model {name!r}, expected a name of timm.list_models(); did you mean {close[0]}?")
    return replace(Preprocessing.of_model(config, choice.image_size, pretrained=pretrained), channels=channels)


def build_model(
    choice: ModelChoice, args: TrainArguments, num_classes: int, in_chans: int, size: Sequence[int] | None = None
) -> nn.Module:
    """Build the network, with its own softmax head or a cosine head.

    Args:
        choice: which network.
        args: head, kappa, pretrained.
        num_classes: C.
        in_chans: channels of the images.
        size: height and width of the images; None for those that the model takes.

    Raises:
        ValueError: if the model does not take its arguments or images of that size, or the head does not suit it.
    """
    try:
        # Its own linear head first, even for a published cosine model; `convert` makes the cosine head below.
        settings = {"num_classes": num_classes, "in_chans": in_chans, "head": "linear", **choice.kwargs}
        config = timm.get_pretrained_cfg(choice.name, allow_unregistered=True)
        if size is not None and config is not None and _is_made_for_another(config.to_dict(), size):
            settings.setdefault("img_size", tuple(size))
        model: nn.Module = timm.create_model(choice.name, pretrained=args.pretrained, **settings)
    except InputError:
        raise
    except Exception as error:  # its type depends on the network and the argument
        raise InputError(
            f"model {choice.name!r} cannot be built ({type(error).__name__}: {error}), expected arguments it takes,"
            f" got {choice.kwargs}; change --model-kwargs, or drop --pretrained if it has no weights"
        ) from error
    if size is not None and "img_size" in settings:
        _check_size(model, (in_chans, *size))
    if args.head == "cos":
        convert(model, kappa=kappa_policy(args.kappa))
    return model


def set_image_size(model: nn.Module, image_size: int) -> None:
    """Let a pretrained network that takes one image size alone take square images of another side.

    timm resamples its position embeddings; an export keeps the size.

    Args:
        model: of timm or transformers.
        image_size: the side, pixels.

    Raises:
        ValueError: if the network takes no images of that size.
    """
    config: Any = getattr(model, "pretrained_cfg", None)
    channels, *_ = input_shape(model)
    if config is not None and not _is_made_for_another(config, (image_size, image_size)):
        return
    if hasattr(model, "set_input_size"):
        try:
            model.set_input_size(img_size=(image_size, image_size))  # type: ignore[operator]  # a method of timm's
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise _wrong_size(model, (image_size, image_size), error) from error
        compat.model_arguments(model)["img_size"] = (image_size, image_size)
    _check_size(model, (channels, image_size, image_size))


def _is_made_for_another(config: Mapping[str, Any], size: Sequence[int]) -> bool:
    """Return whether a network takes images of one size alone, by timm's configuration, and not of this size."""
    return bool(config.get("fixed_input_size")) and tuple(config["input_size"][-2:]) != tuple(size)


@torch.no_grad()
def _check_size(model: nn.Module, shape: Sequence[int]) -> None:
    """Raise an InputError if the network does not take an image of that shape."""
    try:
        with evaluation_mode(model):
            model(torch.zeros(1, *shape))
    except (AssertionError, RuntimeError, ValueError) as error:  # timm's and transformers' layers, each in its own way
        raise _wrong_size(model, shape[1:], error) from error


def _wrong_size(model: nn.Module, size: Sequence[int], error: Exception) -> InputError:
    return InputError(
        f"{type(model).__name__} takes no images of {size[0]}x{size[1]} pixels ({error}); drop --image-size, choose one"
        " that it takes, or another model"
    )


def checkpoint_gradients(model: nn.Module) -> None:
    """Let a timm network recompute activations in the backward pass; a ValueError if it cannot."""
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AssertionError, AttributeError) as error:
        raise InputError(
            f"grad_checkpointing is on, which {type(model).__name__} of timm does not offer; drop it"
        ) from error

"""What a network expects of its images: side, mean and deviation, how they are scaled and cropped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cosify.errors import InputError

PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers of PIL.Image.Resampling


@dataclass(frozen=True)
class Preprocessing:
    """How images reach a network.

    Attributes:
        image_size: side in pixels that was asked for; None to keep that of the images.
        fallback_size: the same, for images that differ in size.
        mean: of pixels in [0, 1], one a channel; None for a network from scratch: that of the training images.
        std: the same for the standard deviation.
        interpolation: how images are scaled, as timm names it.
        crop_pct: share of the short side that the centre crop keeps.
        channels: 1 or 3 that images are converted to; None for 1 if all are grey, else 3.
    """

    image_size: int | None
    fallback_size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    channels: int | None = None

    @classmethod
    def of_model(cls, config: Any, image_size: int | None, *, pretrained: bool) -> "Preprocessing":
        """Read a timm model's configuration.

        Args:
            config: `model.pretrained_cfg`, as an object or a mapping.
            image_size: side that was asked for, pixels.
            pretrained: whether the weights are; those from scratch have no mean and deviation of their own.
        """
        entry: Callable[[str], Any] = (
            config.get if isinstance(config, Mapping) else lambda key: getattr(config, key, None)
        )
        return cls(
            image_size,
            fallback_size=int(entry("input_size")[-1]),
            mean=tuple(entry("mean")) if pretrained else None,
            std=tuple(entry("std")) if pretrained else None,
            interpolation=entry("interpolation") or "bilinear",
            crop_pct=float(entry("crop_pct") or 1.0),
        )

    @classmethod
    def of_pretrained(cls, model: nn.Module, image_size: int | None = None) -> "Preprocessing":
        """Return what a pretrained network expects of its images, channels too.

        transformers models are read from their image processor; images that it would squash to a square are cropped.

        Args:
            model: of timm or transformers.
            image_size: side in pixels instead of its own.

        Raises:
            ValueError: if a transformers model has neither an image processor nor an image size.
        """
        config: Any = getattr(model, "pretrained_cfg", None)
        if config is None:
            return _of_transformers(model, image_size)
        found = cls.of_model(config, image_size, pretrained=True)
        height, width = config["input_size"][-2:]
        if image_size is None and height == width:  # others, such as strips of text, keep the size of the images
            found = replace(found, image_size=found.fallback_size)
        return replace(found, channels=int(config["input_size"][0]))


def _of_transformers(model: Any, image_size: int | None) -> Preprocessing:
    from transformers import AutoImageProcessor

    name = model.config.name_or_path
    try:
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name!r} has no image processor ({type(error).__name__}), expected preprocessor_config.json"
            " beside its weights: mean, deviation and size of its images; save the processor there"
        ) from error
    size: Any = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    side = int(size["height"] if "height" in size else size["shortest_edge"])
    resized: Any = processor.size
    short = int(resized["height"] if "height" in resized else resized["shortest_edge"])
    return Preprocessing(
        side if image_size is None else image_size,
        fallback_size=side,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        interpolation=PIL_FILTERS[int(processor.resample)],
        crop_pct=getattr(processor, "crop_pct", None) or side / short,  # ConvNeXt has one
        channels=int(getattr(model.config, "num_channels", 3)),
    )


def record_preprocessing(
    model: nn.Module,
    image_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    crop_pct: float,
) -> None:
    """Write into the model's timm config how images reached it, so that an export carries it.

    Args:
        model: timm model.
        image_shape: channels, height and width.
        mean: of pixels in [0, 1], one a channel.
        std: their standard deviation.
        interpolation: how images were scaled.
        crop_pct: share of the short side that the centre crop kept.
    """
    config: Any = model.pretrained_cfg
    config.update(
        input_size=tuple(image_shape),
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=crop_pct,
        crop_mode="center",
        interpolation=interpolation,
    )

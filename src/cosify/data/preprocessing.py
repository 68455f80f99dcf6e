"""What a network expects of its images: size, mean and deviation, how they are scaled and cropped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cosify.data.normalize import Normalization
from cosify.data.processor import ImageProcessor
from cosify.integrations import compat
from cosify.models.classifiers import input_shape, owner_of_classifier

PLAIN: dict[str, Any] = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"}
UNCHANGED = (0.0, 1 / 255)  # mean and deviation that leave a processor's output as it is, to the bit


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a network.

    Attributes:
        image_size: side in pixels that was asked for; None to keep the size of the images.
        fallback_size: the same, for images that differ in size.
        mean: of pixels in [0, 1], one a channel; None for a network from scratch: that of the training images.
        std: the same for the standard deviation.
        interpolation: how images are scaled, as timm names it.
        crop_pct: share of the short side that the centre crop keeps.
        channels: 1 or 3, to which images are converted; None for 1 if all are grey, else 3.
        crop_mode: of timm: `"center"` crops the middle, `"squash"` ignores the aspect ratio, `"border"` adds borders.
        processor: JSON of transformers' image processor, which then does everything, normalisation too; None for timm's
            transform.
    """

    image_size: int | None
    fallback_size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    channels: int | None = None
    crop_mode: str = "center"
    processor: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether images are only scaled (bilinear) and cropped, as the pipeline on the device does it."""
        return self.processor is None and self == replace(self, **PLAIN)

    @property
    def is_own(self) -> bool:
        """Whether a pretrained network's own scaling and crop apply on the device, too: images have its own size.

        Where another size was asked for, the device scales whole images (bilinear), as from scratch.
        """
        return self.mean is not None and self.image_size == self.fallback_size

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Preprocessing":
        """Return what `dataclasses.asdict` wrote to JSON, whose lists were tuples."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
        return cls(**fields)

    @classmethod
    def of_model(cls, config: Any, image_size: int | None, *, pretrained: bool) -> "Preprocessing":
        """Read a timm model's configuration.

        Args:
            config: `model.pretrained_cfg`, as an object or a mapping.
            image_size: side that was asked for, pixels.
            pretrained: whether the weights are pretrained; a network from scratch has no mean and deviation of its own.
        """
        from timm.data import resolve_data_config

        names = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
        settings = {
            name: config.get(name) if isinstance(config, Mapping) else getattr(config, name, None) for name in names
        }
        found = resolve_data_config(pretrained_cfg=settings)
        return cls(
            image_size,
            fallback_size=int(found["input_size"][-1]),
            mean=tuple(found["mean"]) if pretrained else None,
            std=tuple(found["std"]) if pretrained else None,
            interpolation=found["interpolation"],
            crop_pct=float(found["crop_pct"]),
            crop_mode=found["crop_mode"],
        )

    @classmethod
    def of_pretrained(cls, model: nn.Module, image_size: int | None = None) -> "Preprocessing":
        """Return what a pretrained network expects of its images, channels too.

        transformers models bring their own image processor; timm models, also inside of TimmWrapper, their settings.

        Args:
            model: of timm or transformers.
            image_size: side in pixels instead of its own.

        Raises:
            ValueError: if a transformers model has no image processor, one that gives something else than images, or
                one that cannot be set to `image_size`.
        """
        config = _timm_config(model)
        if config is None:
            return _of_transformers(model, image_size)
        found = cls.of_model(config, image_size, pretrained=True)
        height, width = config["input_size"][-2:]
        if image_size is None and height == width:  # for others, such as strips of text, images keep their size
            found = replace(found, image_size=found.fallback_size)
        made_with = compat.model_arguments(owner_of_classifier(model)[0])  # a configuration knows of no other channels
        return replace(found, channels=int(made_with.get("in_chans", config["input_size"][0])))


def _timm_config(model: Any) -> Any:
    """Return timm's description of a model's images, None for a native transformers model."""
    inner = getattr(model, "timm_model", None)  # of transformers' TimmWrapper
    own = None if inner is None else getattr(model.config, "pretrained_cfg", None)  # of the weights; else of timm's own
    return own or getattr(model if inner is None else inner, "pretrained_cfg", None)


def _of_transformers(model: Any, image_size: int | None) -> Preprocessing:
    processor = ImageProcessor.of(model.config.name_or_path, compat.commit_of(model.config))
    channels = input_shape(model)[0]
    if image_size is not None:
        processor = processor.resized(image_size, channels)
    side = processor.side(channels)
    return Preprocessing(
        side,
        fallback_size=max(processor.shape_of((64, 64), channels)[1:]),
        mean=UNCHANGED[:1] * channels,
        std=UNCHANGED[1:] * channels,
        channels=channels,
        processor=processor.description,
    )


def record_preprocessing(
    model: nn.Module, image_shape: Sequence[int], pixels: Normalization, scaling: Preprocessing
) -> None:
    """Write into the model's timm config how images reached it, so that an export carries it.

    Args:
        model: timm model.
        image_shape: channels, height and width.
        pixels: their normalisation.
        scaling: how images were scaled and cropped.
    """
    config: Any = model.pretrained_cfg
    config.update(
        input_size=tuple(image_shape),
        mean=pixels.mean,
        std=pixels.std,
        crop_pct=scaling.crop_pct,
        crop_mode=scaling.crop_mode,
        interpolation=scaling.interpolation,
    )

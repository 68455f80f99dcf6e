"""Prepare images by the image processor that a transformers model brings.

A processor may flip channels, squash, pad, and rescale by other numbers or not at all.  Nothing but the processor
itself shows that: so it is run as it is, and kept as its JSON.
"""

import json
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cosify.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

PROBES = ((96, 64), (64, 96))  # width and height of two images, to see what size comes out
PILLOW_ALONE = (4, 5)  # PIL.Image.Resampling.BOX and HAMMING, which transformers' default backend lacks


class ImageProcessor:
    """Map an image of Pillow to the model's input, float [channels, H, W].

    Args:
        description: JSON of the processor, as its `to_json_string` writes it.
        shape: channels, height and width that must come out; None for any.
    """

    def __init__(self, description: str, shape: tuple[int, int, int] | None = None) -> None:
        self.description, self.shape = description, shape

    @classmethod
    def of(cls, name: str, revision: str | None = None) -> "ImageProcessor":
        """Return the image processor of a model.

        Args:
            name: folder or hub id.
            revision: of the hub's repository; None for its main branch.

        Raises:
            ValueError: if there is none.
        """
        from transformers import AutoImageProcessor

        try:
            found = AutoImageProcessor.from_pretrained(name, revision=revision or "main", trust_remote_code=False)
        except Exception as error:  # of many types, by what is wrong with a name, a file or the network
            raise InputError(
                f"model {name!r} has no image processor ({type(error).__name__}: {error}), expected"
                " preprocessor_config.json beside its weights: mean, deviation and size of its images; save the"
                " processor there"
            ) from error
        return cls(found.to_json_string())

    @cached_property
    def processor(self) -> Any:
        """The processor itself."""
        from transformers import AutoImageProcessor

        backend = "pil" if json.loads(self.description).get("resample") in PILLOW_ALONE else None
        with TemporaryDirectory() as folder:
            Path(folder, "preprocessor_config.json").write_text(self.description, encoding="utf-8")
            return AutoImageProcessor.from_pretrained(folder, backend=backend, trust_remote_code=False)

    def __call__(self, image: "Image") -> Tensor:
        """Process one image.

        Raises:
            ValueError: if the processor cannot, or gives something else than an image of `shape`.
        """
        try:
            found = self.processor(images=image, return_tensors="pt")
            shapes = {name: tuple(value.shape) for name, value in found.items()}
        except Exception as error:  # foreign code with foreign settings
            raise InputError(
                f"the model's image processor cannot process an image of {image.width}x{image.height} pixels"
                f" ({type(error).__name__}: {error}); look at its preprocessor_config.json"
            ) from error
        if set(shapes) != {"pixel_values"} or len(shapes["pixel_values"]) != 4:
            raise InputError(
                f"the model's image processor gives {shapes}, expected pixel_values [1, channels, H, W] alone; use a"
                " model that takes images of one size"
            )
        if self.shape is not None and shapes["pixel_values"][1:] != self.shape:
            raise InputError(
                f"the model's image processor makes {list(shapes['pixel_values'][1:])} of an image of"
                f" {image.width}x{image.height} pixels, expected {list(self.shape)} as of the others: images of a batch"
                " have one size; set size or crop_size in its preprocessor_config.json to height and width"
            )
        pixels: Tensor = found["pixel_values"][0].float()
        return pixels

    def shape_of(self, size: tuple[int, int], channels: int) -> tuple[int, int, int]:
        """Return channels, height and width of the result for an image of that width and height."""
        from PIL import Image

        shape = self(Image.new("L" if channels == 1 else "RGB", size)).shape
        return shape[0], shape[1], shape[2]

    def side(self, channels: int) -> int | None:
        """Return the side of the square that every image becomes; None if they do not all become one."""
        shapes = {self.shape_of(size, channels)[1:] for size in PROBES}
        height, width = shapes.pop()
        return height if not shapes and height == width else None

    def resized(self, image_size: int, channels: int) -> "ImageProcessor":
        """Return a processor whose sizes are scaled so that images of another side come out.

        Args:
            image_size: the side, pixels.
            channels: 1 or 3.

        Raises:
            ValueError: if that cannot be done.
        """
        side, settings = self.side(channels), json.loads(self.description)
        if side is not None:
            for name in ("size", "crop_size"):
                if isinstance(settings.get(name), dict):
                    settings[name] = {key: round(edge * image_size / side) for key, edge in settings[name].items()}
            made = ImageProcessor(json.dumps(settings))
            if made.side(channels) == image_size:
                return made
        raise InputError(
            f"image_size is {image_size}, but the model's image processor cannot be set to it; drop --image-size, or"
            " set its preprocessor_config.json"
        )

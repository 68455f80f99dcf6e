"""Whatever a user gives as an image, a path, an image of Pillow or an array of pixels, as an image of Pillow."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cosify.data import standard_image
from cosify.data.decode import read_image
from cosify.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency
PIXELS = "uint8 pixels, [H, W] or [H, W, 3] of numpy, [H, W] or [3, H, W] of torch"


def is_array(value: Any) -> bool:
    """Return whether a value is an array of numpy or a tensor."""
    return isinstance(value, np.ndarray | Tensor)


def is_pixels(array: Any) -> bool:
    """Return whether an array or tensor holds pixels: unsigned integers of 8 or 16 bits."""
    return str(array.dtype).removeprefix("torch.") in ("uint8", "uint16")


def given_image(image: Any, where: str = "image") -> "Image":
    """Return an image of any kind as one of Pillow, upright, opaque, with 8 bits a channel.

    Args:
        image: path of a file, image of Pillow, or pixels: uint8 (uint16 for grey), [H, W], or [H, W, channels] of
            numpy, or [channels, H, W] of torch, with 1, 3 or 4 channels.
        where: what messages call it.

    Returns:
        As `standard_image`.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if it is something else.
        ValueError: if the file is not an image, or the array does not hold pixels.
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        path = Path(image).expanduser()
        where = f"{where} {str(path)!r}"
        if path.is_dir():
            raise InputError(f"{where} is a folder, expected a file; give a list of its files")
        if not path.exists():
            raise FileNotFoundError(f"{where} does not exist, expected the path of an image; check the spelling")
        return read_image(path, where)
    if isinstance(image, Image.Image):
        return standard_image(image, where)
    if is_array(image):
        return standard_image(_of_pixels(image, where), where)
    raise TypeError(
        f"{where} is a {type(image).__name__}, expected the path of a file, an image of Pillow, or an array of {PIXELS}"
    )


def _of_pixels(pixels: Any, where: str) -> "Image":
    from PIL import Image

    array = pixels
    if isinstance(pixels, Tensor):
        array = (pixels.permute(1, 2, 0) if pixels.ndim == 3 else pixels).cpu().numpy()
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    whole = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS and array.dtype == np.uint8)
    if not (is_pixels(array) and whole and array.size > 0):
        kind = f"{type(pixels).__name__} of {str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)}"
        raise InputError(f"{where} is a {kind}, expected {PIXELS}")
    return Image.fromarray(np.ascontiguousarray(array))

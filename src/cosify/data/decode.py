"""From a file, or an image of Pillow, to the pixels that all else works with: upright, opaque, 8 bits.

Both pipelines use it, and so do images that a user gives.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from cosify.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = 0x0112  # EXIF tag: how the camera was held
SIXTEEN_BITS = 65535
NEARLY_GREY = 8  # of 255: difference between red, green and blue that JPEG gives to grey


def undecoded(split: Any, column: str) -> Any:
    """Return the split with bytes or paths in place of images: we decode these, so that an error can name the row."""
    import datasets

    return split.cast_column(column, datasets.Image(decode=False))


def open_image(value: dict[str, Any] | None, row: int, name: str) -> "Image":
    """Decode a cell of an undecoded split.

    Args:
        value: bytes or path.
        row: for messages.
        name: of the split, for messages.

    Returns:
        As `standard_image`.

    Raises:
        ValueError: if Pillow cannot, or the pixels are of a kind without a known range.
    """
    path, content = (None, None) if value is None else (value["path"], value["bytes"])
    where = f"image in row {row} of split {name!r} ({path if content is None or path else f'{len(content)} bytes'})"
    return read_image(path if content is None else io.BytesIO(content), where)


def read_image(file: Any, where: str) -> "Image":
    """Decode a file.

    Args:
        file: path, or open file.
        where: which one it is, for messages.

    Returns:
        As `standard_image`.

    Raises:
        ValueError: as `open_image`.
    """
    from PIL import Image

    try:
        image = Image.open(file)
    except Exception as error:  # Pillow's decoders raise errors of a dozen unrelated types for damaged files
        raise _unreadable(where, error) from error
    try:
        return standard_image(image, where)
    except InputError:
        image.close()  # a whole image has closed its file
        raise


def size_in_file(value: dict[str, Any], where: str) -> tuple[int, int]:
    """Return width and height as the head of an image's file gives them; its pixels are not decoded.

    Args:
        value: bytes or path, a cell of an undecoded split.
        where: which one it is, for messages.

    Raises:
        ValueError: if Pillow does not know the file, or it has more pixels than Pillow takes for an honest image.
    """
    from PIL import Image

    try:
        with Image.open(value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"])) as image:
            width, height = image.size
    except Exception as error:  # as in `read_image`
        raise _unreadable(where, error) from error
    return width, height


def standard_image(image: "Image", where: str) -> "Image":
    """Return the image upright, opaque, and with 8 bits a channel.

    The orientation of EXIF is applied, as by browsers and the decoder of datasets; 16-bit grey is divided by 257;
    transparent pixels are laid on white.

    Args:
        image: of Pillow; left as it is.
        where: which one it is, for messages.

    Returns:
        An image of mode L if it is grey, else RGB; an upright image of such a mode is returned itself.

    Raises:
        ValueError: if it cannot be decoded, or has pixels of 32 bits or floats, whose range is not known.
    """
    from PIL import ImageOps

    try:
        image.load()
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            image = _to_8_bits(image, where)
        if image.mode == "F":
            raise InputError(
                f"{where} has floating point pixels, whose range is not known, expected 8 or 16 bits; convert it"
            )
        if image.has_transparency_data:
            return _on_white(image)
        return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    except InputError:
        raise
    except Exception as error:  # as in `open_image`
        raise _unreadable(where, error) from error


def channels_of(image: "Image") -> int:
    """Return the channels of a standard image: 1 for a grey one, else 3."""
    return 1 if image.mode == "L" else 3


def has_colour(image: "Image") -> bool:
    """Return whether a standard image shows colour; many grey ones are stored as RGB."""
    from PIL import ImageChops

    if image.mode != "RGB":
        return False
    red, green, blue = image.split()
    differences = (ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return any(np.asarray(each).max() > NEARLY_GREY for each in differences)


def _to_8_bits(image: "Image", where: str) -> "Image":
    """Return 16-bit grey as mode L: its values divided by 257, rounded."""
    from PIL import Image

    pixels = np.asarray(image).astype(np.int64)
    # Mode I, of 32 bits, also holds images of 16: from PGM files, and from TIFF files that older Pillow wrote from PNG.
    known = image.mode != "I" or image.format in ("PNG", "PPM")
    lowest, highest = int(pixels.min()), int(pixels.max())
    if not known and (lowest < 0 or highest > SIXTEEN_BITS or 0 < highest <= 255):
        raise InputError(
            f"{where} has 32-bit pixels from {lowest} to {highest}, expected 8 bits, or 16 bits up to {SIXTEEN_BITS};"
            " convert it"
        )
    transparent = image.info.get("transparency")  # a grey level, as the PNG file says it
    if transparent is not None:
        pixels[pixels == transparent] = SIXTEEN_BITS
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))


def _on_white(image: "Image") -> "Image":
    from PIL import Image

    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode == "La":
        image = image.convert("LA")  # from La there is no other way
    colours = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, colours).convert("L" if grey else "RGB")


def _unreadable(where: str, error: Exception) -> InputError:
    return InputError(
        f"{where} cannot be read ({type(error).__name__}: {error}), expected a file that Pillow opens; repair or remove"
        " it"
    )

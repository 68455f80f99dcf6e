"""Find every image that cannot be read, so that they can be mended at once and not one in a run."""

import logging
from typing import TYPE_CHECKING, Any

from cosify.data.decode import open_image, undecoded
from cosify.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from cosify.data.sources import Splits

NAMED = 5  # images, at most, that a message names
SEARCHED = 20_000  # images of a set, at most, that are all decoded before training to name those that cannot be read
logger = logging.getLogger("cosify")


def unreadable_images(splits: "Splits") -> dict[str, str]:
    """Decode every image of both splits, and return what is wrong with those that cannot be read.

    Args:
        splits: as `load_splits` and `load_images` return them; no streams.

    Returns:
        For each such image its path, or its row where it has none, and the reason.

    Raises:
        ValueError: for a stream.
    """
    if splits.streaming:
        raise InputError("the splits are streams, expected rows that can be read twice; load them without streaming")
    column, found = splits.image_column, {}
    for name in ("train", "test"):
        for row, cells in enumerate(undecoded(splits.split(name).select_columns([column]), column)):
            try:
                open_image(cells[column], row, name)
            except InputError as error:
                path = None if cells[column] is None else cells[column]["path"]
                found[path or f"row {row} of split {name!r}"] = str(error)
    return found


def open_or_hint(value: dict[str, Any] | None, row: int, name: str) -> "Image":
    """Decode a cell as `open_image`; the error says what lists all images that cannot be read."""
    try:
        return open_image(value, row, name)
    except InputError as error:
        raise InputError(f"{error}; unreadable_images of cosify.data lists all such images of a set") from error


def open_or_name_all(splits: "Splits", value: dict[str, Any] | None, row: int, name: str) -> "Image":
    """Decode a cell as `open_image`; if it cannot be read, the error counts and names all images that cannot.

    Args:
        splits: that are searched then; of a stream, the error names this image alone.
        value: bytes or path.
        row: for messages.
        name: of the split, for messages.
    """
    try:
        return open_image(value, row, name)
    except InputError as error:
        if splits.streaming:
            raise
        logger.info("an image cannot be read; looking for others that cannot")
        found = list(unreadable_images(splits))
        if len(found) < 2:
            raise
        more = ", ..." if len(found) > NAMED else ""
        raise InputError(
            f"{error}; {len(found)} images of these data cannot be read: {', '.join(found[:NAMED])}{more}"
        ) from error

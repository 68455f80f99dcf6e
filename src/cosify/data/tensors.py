"""Whole data sets as tensors on the training device: every image is decoded once, before the first step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cosify.data.sources import Splits
from cosify.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA", "I", "F", "I;16")


@dataclass(frozen=True)
class ImageSet:
    """A split in memory.

    Attributes:
        images: uint8 [N, channels, H, W].
        labels: int64 [N], in [0, C).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Layout:
    """What every decoded image looks like: its channels and side lengths, and whether it is resized or converted."""

    channels: int
    height: int
    width: int
    resize: bool
    convert: bool = False

    @property
    def num_bytes(self) -> int:
        """Of one image, uint8."""
        return self.channels * self.height * self.width


class _OtherLayoutError(Exception):
    """An image does not fit the layout that the images before it had."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout


def decode_splits(
    splits: Splits,
    *,
    image_size: int | None,
    fallback_size: int,
    device: torch.device,
    channels: int | None = None,
    show_progress: bool = False,
) -> tuple[ImageSet, ImageSet]:
    """Decode both splits to tensors on `device`.

    Images keep their size if all have the same; otherwise, or if `image_size` is given, the short side is resized
    (bilinear) and the centre cropped.  One channel if all images are grey, else three.

    Args:
        splits: what to decode.
        image_size: side of the square images, pixels; None to keep their size.
        fallback_size: the same, for images that differ in size.
        device: where the tensors go.
        channels: 1 or 3 that images are converted to; None for 1 if all are grey, else 3.
        show_progress: draw a progress bar.

    Returns:
        Train and test set.

    Raises:
        ValueError: if an image cannot be read, a label is out of range, or the tensors exceed half of the free memory.
    """
    layout = _first_layout(splits.train, splits.image_column, image_size)
    if channels is not None:
        layout = replace(layout, channels=channels, convert=True)
    while True:
        check_memory(len(splits.train) + len(splits.test), layout, device)
        try:
            sets = [
                _decode(split, name, splits, layout, fallback_size, show_progress)
                for name, split in (("train", splits.train), ("test", splits.test))
            ]
        except _OtherLayoutError as found:
            layout = found.layout
            continue
        train, test = (ImageSet(decoded.images.to(device), decoded.labels.to(device)) for decoded in sets)
        return train, test


def check_memory(num_images: int, layout: Layout, device: torch.device) -> None:
    """Raise if `num_images` of that layout take more than half of the memory that is free on `device`."""
    needed = num_images * layout.num_bytes
    free = free_memory(device)
    if needed > free // 2:
        raise InputError(
            f"{num_images} images of {layout.height}x{layout.width} pixels and {layout.channels} channels take"
            f" {needed / 2**30:.2f} GiB, expected at most half of the {free / 2**30:.2f} GiB free on {device}; use a"
            " smaller --image-size or --limit-train"
        )


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]  # it ships no types; a dependency of accelerate

    return int(psutil.virtual_memory().available)


def _first_layout(train: "Dataset", column: str, image_size: int | None) -> Layout:
    _, image = next(_images(train.select([0]), "train", column))
    if image_size is not None:
        return Layout(channels_of(image), image_size, image_size, resize=True)
    return Layout(channels_of(image), image.height, image.width, resize=False)


def _decode(
    split: "Dataset", name: str, splits: Splits, layout: Layout, fallback_size: int, show_progress: bool
) -> ImageSet:
    from rich.progress import track

    images = np.empty((len(split), layout.height, layout.width, layout.channels), dtype=np.uint8)
    rows = _images(split, name, splits.image_column)
    for row, image in track(
        rows, description=f"decoding {name}", total=len(split), disable=not show_progress, transient=True
    ):
        images[row] = _pixels(image, layout, fallback_size)
    labels = torch.tensor(split[splits.label_column][:], dtype=torch.int64)
    check_labels(labels, name, len(splits.label_names))
    return ImageSet(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)


def undecoded(split: "Dataset", column: str) -> Any:
    """Return the split with bytes or paths in place of images: decoding is ours, so that a broken row is known."""
    import datasets

    return split.cast_column(column, datasets.Image(decode=False))


def open_image(value: dict[str, Any] | None, row: int, name: str) -> "Image":
    """Decode a cell of an undecoded split.

    Args:
        value: bytes or path.
        row: for messages.
        name: of the split, for messages.

    Raises:
        ValueError: if Pillow cannot.
    """
    from PIL import Image

    value = {"bytes": None, "path": None} if value is None else value
    try:
        image = Image.open(_source(value))
        image.load()
    except (OSError, ValueError, AttributeError, SyntaxError) as error:  # what Pillow raises for damaged files
        where = value["path"] if value["bytes"] is None else f"{len(value['bytes'])} bytes"
        raise InputError(
            f"image in row {row} of split {name!r} ({where}) cannot be read ({type(error).__name__}: {error}),"
            " expected a file that Pillow opens; repair or remove it"
        ) from error
    return image


def _images(split: "Dataset", name: str, column: str) -> Iterator[tuple[int, "Image"]]:
    for row, cell in enumerate(undecoded(split.select_columns([column]), column)):
        yield row, open_image(cell[column], row, name)


def _source(value: dict[str, Any]) -> Any:
    import io

    return value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"])


def channels_of(image: "Image") -> int:
    """Return 1 for a grey image, else 3."""
    return 1 if image.mode in GREY_MODES else 3


def _pixels(image: "Image", layout: Layout, fallback_size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return uint8 [H, W, channels], or raise `_OtherLayoutError` with the layout that also takes this image."""
    from torchvision.transforms import functional as transforms

    if channels_of(image) > layout.channels and not layout.convert:
        raise _OtherLayoutError(replace(layout, channels=3))
    if layout.resize:
        image = image.convert("L" if layout.channels == 1 else "RGB")
        image = transforms.center_crop(transforms.resize(image, layout.height), [layout.height, layout.width])
    elif (image.height, image.width) != (layout.height, layout.width):
        raise _OtherLayoutError(replace(layout, height=fallback_size, width=fallback_size, resize=True))
    else:
        image = image.convert("L" if layout.channels == 1 else "RGB")
    return np.asarray(image, dtype=np.uint8).reshape(layout.height, layout.width, layout.channels)


def check_labels(labels: Tensor, name: str, num_classes: int) -> None:
    """Raise a ValueError that names the first label out of range.

    Args:
        labels: [N].
        name: of the split, for the message.
        num_classes: C.
    """
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(wrong) > 0:
        row = int(wrong[0])
        raise InputError(
            f"label in row {row} of split {name!r} is {int(labels[row])}, and {len(wrong)} labels in all are out of"
            f" range, expected 0 to {num_classes - 1} for {num_classes} classes; use a split that has labels, with the"
            " same classes as the training split"
        )

"""Whole data sets as tensors on the training device: every image is decoded once, before the first step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cosify.data.decode import channels_of, undecoded
from cosify.data.sources import Splits
from cosify.data.unreadable import open_or_name_all
from cosify.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]  # [H, W, channels]
COPIED = 1 << 24  # bytes of pixels that go to the device at once


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
    """Channels and side lengths of every decoded image, and whether images are resized or converted to them."""

    channels: int
    height: int
    width: int
    resize: bool
    convert: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes of one image, uint8."""
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
    scaled_by: Callable[[int], Callable[[Any], Any]] | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Decode both splits to tensors on `device`.

    Images keep their size if all have the same; otherwise, or if `image_size` is given, the short side is resized
    (bilinear) and the centre cropped.  One channel if all images are grey, else three.

    Args:
        splits: what to decode.
        image_size: side of the square images, pixels; None to keep their size.
        fallback_size: the same, for images that differ in size.
        device: where the tensors go.
        channels: 1 or 3, to which images are converted; None for 1 if all are grey, else 3.
        show_progress: draw a progress bar.
        scaled_by: returns, for a number of channels, what scales and crops a PIL image to `image_size`, uint8
            [channels, H, W]; None for bilinear and the centre.

    Returns:
        Train and test set.

    Raises:
        ValueError: if images cannot be read (it counts and names them), a label is out of range, or the tensors exceed
            half of the free memory.
    """
    layout = _first_layout(splits, image_size)
    if channels is not None:
        layout = replace(layout, channels=channels, convert=True)
    while True:
        check_memory(len(splits.train) + len(splits.test), layout, device)
        try:
            transform = None if scaled_by is None else scaled_by(layout.channels)
            to_pixels = partial(_pixels, layout=layout, fallback_size=fallback_size, transform=transform)
            train = _decode(splits, "train", layout, to_pixels, device, show_progress)
            return train, _decode(splits, "test", layout, to_pixels, device, show_progress)
        except _OtherLayoutError as found:
            layout = found.layout


def check_memory(num_images: int, layout: Layout, device: torch.device) -> None:
    """Raise if `num_images` of that layout take more than half of the memory that is free on `device`."""
    needed = num_images * layout.num_bytes
    free = free_memory(device)
    if needed > free // 2:
        raise InputError(
            f"{num_images} images of {layout.height}x{layout.width} pixels and {layout.channels} channels take"
            f" {needed / 2**30:.2f} GiB, expected at most half of the {free / 2**30:.2f} GiB free on {device}; free"
            " some, or use --set pipeline=workers, a smaller --image-size, or --limit-train"
        )


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]  # it ships no types; a dependency of accelerate

    return int(psutil.virtual_memory().available)


def _first_layout(splits: Splits, image_size: int | None) -> Layout:
    image = next(_images(splits, "train"))
    if image_size is not None:
        return Layout(channels_of(image), image_size, image_size, resize=True)
    return Layout(channels_of(image), image.height, image.width, resize=False)


def _decode(
    splits: Splits,
    name: str,
    layout: Layout,
    to_pixels: Callable[["Image"], Pixels],
    device: torch.device,
    show_progress: bool,
) -> ImageSet:
    """Decode a split, some megabytes at a time, so that the host does not hold a second copy of the tensor."""
    from rich.progress import track

    split = splits.split(name)
    images = torch.empty((len(split), layout.channels, layout.height, layout.width), dtype=torch.uint8, device=device)
    rows = _images(splits, name)
    shown = track(rows, f"decoding {name}", len(split), disable=not show_progress, transient=True)
    for part in images.split(max(1, COPIED // layout.num_bytes)):
        pixels = np.stack([to_pixels(image) for image in islice(shown, len(part))])
        part.copy_(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return ImageSet(images, labels_of(splits, name).to(device))


def _images(splits: Splits, name: str) -> Iterator["Image"]:
    column = splits.image_column
    for row, cell in enumerate(undecoded(splits.split(name).select_columns([column]), column)):
        yield open_or_name_all(splits, cell[column], row, name)


def _pixels(
    image: "Image", layout: Layout, fallback_size: int, transform: Callable[[Any], Any] | None = None
) -> Pixels:
    """Return uint8 [H, W, channels], or raise `_OtherLayoutError` with the layout that also takes this image."""
    from torchvision.transforms import functional as transforms

    if channels_of(image) > layout.channels and not layout.convert:
        raise _OtherLayoutError(replace(layout, channels=3))
    if layout.resize:
        image = image.convert("L" if layout.channels == 1 else "RGB")
        if transform is not None:
            return np.moveaxis(np.asarray(transform(image), dtype=np.uint8), 0, -1)
        image = transforms.center_crop(transforms.resize(image, layout.height), [layout.height, layout.width])
    elif (image.height, image.width) != (layout.height, layout.width):
        raise _OtherLayoutError(replace(layout, height=fallback_size, width=fallback_size, resize=True))
    else:
        image = image.convert("L" if layout.channels == 1 else "RGB")
    return np.asarray(image, dtype=np.uint8).reshape(layout.height, layout.width, layout.channels)


def labels_of(splits: Splits, name: str) -> Tensor:
    """Return the labels of the split `"train"` or `"test"`, int64 [N].

    Raises:
        ValueError: for a label that is missing or out of range; the message names the first.
    """
    values = splits.split(name)[splits.label_column][:]
    wrong = [row for row, label in enumerate(values) if label is None or not 0 <= label < len(splits.label_names)]
    if wrong:
        raise wrong_label(values[wrong[0]], wrong[0], name, len(splits.label_names), len(wrong))
    return torch.tensor(values, dtype=torch.int64)


def wrong_label(label: int | None, row: int, name: str, num_classes: int, num_wrong: int = 1) -> InputError:
    """Return the error for a label that is missing or out of range.

    Args:
        label: it.
        row: where it is.
        name: of the split.
        num_classes: C.
        num_wrong: wrong labels of the split, as far as is known.
    """
    others = f", and {num_wrong} labels in all are missing or out of range" if num_wrong > 1 else ""
    return InputError(
        f"label in row {row} of split {name!r} is {label}{others}, expected 0 to {num_classes - 1} for {num_classes}"
        " classes; use a split that has labels, with the same classes as the training split"
    )

"""Decoding to tensors: exact pixels, one layout for all, clear errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cosify.data import ImageSet, Splits, decode_splits, load_splits, tensors
from tests.data.folders import broken_bytes, image_folder, picture, splits_of
from tests.processes import run_python

CPU = torch.device("cpu")


def decode(splits: Splits, image_size: int | None = None, channels: int | None = None) -> tuple[ImageSet, ImageSet]:
    return decode_splits(splits, image_size=image_size, fallback_size=5, device=CPU, channels=channels)


def test_pixels_are_those_of_the_images() -> None:
    images = [picture(seed) for seed in range(3)]
    train, test = decode(splits_of(images, [0, 1, 1]))
    expected = np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)
    assert train.images.dtype == torch.uint8
    assert torch.equal(train.images, torch.from_numpy(expected.copy()))
    assert train.labels.tolist() == [0, 1, 1]
    assert len(test) == 3


def test_grey_stays_one_channel_unless_a_colour_image_comes() -> None:
    grey = [picture(0, mode="L"), picture(1, mode="L")]
    train, _ = decode(splits_of([*grey], [0, 1]))
    assert train.images.shape == (2, 1, 6, 6)
    mixed, _ = decode(splits_of([*grey, picture(2)], [0, 1, 0]))
    assert mixed.images.shape == (3, 3, 6, 6)
    assert torch.equal(mixed.images[0], train.images[0].expand(3, 6, 6))


def test_channels_can_be_asked_for() -> None:
    grey, colour = picture(0, mode="L"), picture(1)
    to_colour, _ = decode(splits_of([grey, grey], [0, 1]), channels=3)
    assert torch.equal(to_colour.images[1], torch.from_numpy(np.array(grey)).expand(3, 6, 6))
    for images in ([colour, grey], [grey, colour]):
        to_grey, _ = decode(splits_of(images, [0, 1]), channels=1)
        expected = np.stack([np.asarray(image.convert("L")) for image in images])[:, None]
        assert torch.equal(to_grey.images, torch.from_numpy(expected))
    resized, _ = decode(splits_of([colour, picture(2, (9, 9))], [0, 1]), channels=1)
    assert resized.images.shape == (2, 1, 5, 5), "images that differ in size make no difference"


def test_images_that_differ_are_resized_to_the_fallback_and_cropped() -> None:
    images = [picture(0, (10, 6)), picture(1, (6, 12))]
    train, _ = decode(splits_of(images, [0, 1]))
    assert train.images.shape == (2, 3, 5, 5)
    # Short side 6 -> 5, long side 10 -> 8, then columns 1..5 (torchvision rounds the offset 1.5 to 2).
    resized = np.asarray(images[0].resize((8, 5), Image.Resampling.BILINEAR))[:, 2:7]
    assert torch.equal(train.images[0], torch.from_numpy(resized.transpose(2, 0, 1).copy()))


def test_image_size_is_obeyed() -> None:
    train, test = decode(splits_of([picture(0), picture(1)], [0, 1]), image_size=9)
    assert train.images.shape == test.images.shape == (2, 3, 9, 9)


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "d")
    (folder / "train" / "dog" / "1.png").write_bytes(b"no image")
    splits = load_splits(str(folder))
    with pytest.raises(
        ValueError, match=r"image in row 5 of split 'train' \(.*dog/1.png\) cannot be read \(Unidentified"
    ):
        decode(splits)


@pytest.mark.parametrize("broken", [broken_bytes(), None])
def test_a_broken_cell_is_named(broken: dict[str, Any] | None) -> None:
    size = "600 bytes" if broken else "None"
    message = rf"image in row 1 of split 'train' \({size}\) cannot be read \(.*expected a file"
    with pytest.raises(ValueError, match=message):
        decode(splits_of([picture(1, (40, 40)), broken], [0, 1]))


@pytest.mark.parametrize("wrong", [-1, 2, None])
def test_label_that_is_missing_or_out_of_range_is_named(wrong: int | None) -> None:
    with pytest.raises(
        ValueError, match=rf"label in row 1 of split 'train' is {wrong}, and 2 labels .* expected 0 to 1 for"
    ):
        decode(splits_of([picture(0)] * 3, [0, wrong, wrong]))  # type: ignore[list-item]  # None is what may come


def test_what_does_not_fit_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "free_memory", lambda _: 2**20)
    splits = splits_of([picture(0)] * 2, [0, 1])
    assert decode(splits)[0].images.shape == (2, 3, 6, 6)
    with pytest.raises(
        ValueError, match=r"4 images of 300x300 pixels and 3 channels take 0.00 GiB, expected at most half"
    ):
        decode(splits, image_size=300)


def test_free_memory_is_plausible() -> None:
    assert 2**20 < tensors.free_memory(CPU) < 2**50


MEMORY = """
import resource
import torch
from PIL import Image
from cosify.data import PipelineSettings, Preprocessing, open_data
from tests.data.folders import splits_of

def opened(num, side):
    images = [Image.new("RGB", (side, side), (row, row, row)) for row in range(num)]
    splits, settings = splits_of(images, [row % 2 for row in range(num)]), PipelineSettings(pipeline="device")
    del images
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = open_data(splits, settings, Preprocessing(None, side), data="own", device=torch.device("cpu"))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return (data.train.images.nbytes + data.test.images.nbytes) / 2**20, grown

opened(2, 8)  # what is imported and compiled on the way
print(*opened(MORE, 1024))
"""


@pytest.mark.slow
def test_the_set_lies_in_memory_once() -> None:
    size, grown = map(float, run_python("-c", MEMORY.replace("MORE", "64")).split())
    assert size == 2 * 64 * 3
    assert 0.25 * size < grown < 1.4 * size  # the images that the splits were made of had made room for some

"""Which pipeline a set gets, and that both give the same pixels where both can."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from cosify.data import (
    Data,
    Normalization,
    PipelineSettings,
    Preprocessing,
    Shard,
    Splits,
    check_transform,
    load_splits,
    open_data,
    tensors,
)
from cosify.data import open as opening
from tests.data.folders import image_folder, parquet_folder, picture, splits_of

CPU = torch.device("cpu")
ALONE = Shard()
RAW = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}  # batches then hold the pixels, 0 to 255
FALLBACK = 16


def opened(
    splits: Splits,
    *,
    image_size: int | None = None,
    data: str = "set",
    expects: Mapping[str, Any] = RAW,
    **settings: Any,
) -> Data:
    return open_data(
        splits,
        PipelineSettings(**{"num_workers": 0, **settings}),
        Preprocessing(image_size, FALLBACK, **expects),
        data=data,
        device=CPU,
    )


def alike(num: int = 4, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Splits:
    return splits_of([picture(seed, size, mode) for seed in range(num)], [seed % 2 for seed in range(num)])


def of_two_sizes() -> Splits:
    return splits_of([picture(0, (8, 8)), picture(1, (8, 12))], [0, 1])


def pixels_of_test(data: Data) -> torch.Tensor:
    return torch.cat([images for images, _ in data.test_batches(3)]).round().to(torch.uint8)


def train_pixels(data: Data) -> torch.Tensor:
    return torch.cat([images for images, _ in data.train_batches(4, epoch=0, seed=0, shard=ALONE)])


@pytest.mark.parametrize(
    ("splits", "settings", "expected"),
    [
        (alike(), {}, ("device", "crop-flip", (3, 8, 8))),
        (alike(), {"data": "digits"}, ("device", "crop", (3, 8, 8))),
        (alike(), {"augment": "none"}, ("device", "none", (3, 8, 8))),
        (alike(), {"augment": "crop"}, ("device", "crop", (3, 8, 8))),
        (alike(size=(128, 120)), {}, ("device", "crop-flip", (3, 120, 128))),
        (alike(size=(300, 300)), {"image_size": 128}, ("device", "crop-flip", (3, 128, 128))),
        (alike(size=(129, 100)), {}, ("workers", "timm", (3, 16, 16))),
        (alike(), {"image_size": 129}, ("workers", "timm", (3, 129, 129))),
        (of_two_sizes(), {}, ("workers", "timm", (3, 16, 16))),
        (of_two_sizes(), {"image_size": 32, "augment": "none"}, ("workers", "none", (3, 32, 32))),
        (of_two_sizes(), {"pipeline": "device"}, ("device", "crop-flip", (3, 16, 16))),
        (alike(), {"pipeline": "workers"}, ("workers", "timm", (3, 8, 8))),
        (alike(), {"pipeline": "workers", "augment": "crop"}, ("workers", "crop", (3, 8, 8))),
        (alike(), {"augment": "timm"}, ("workers", "timm", (3, 8, 8))),
        (alike(), {"transform": {"vflip": 0.5}}, ("workers", "timm", (3, 8, 8))),
        (alike(), {"transform": {"vflip": 0.5}, "augment": "timm"}, ("workers", "timm", (3, 8, 8))),
    ],
)
def test_choice(splits: Splits, settings: dict[str, Any], expected: tuple[str, str, tuple[int, ...]]) -> None:
    data = opened(splits, **settings)
    assert (data.pipeline, data.augmentation, data.image_shape) == expected
    images = torch.cat([images for images, _ in data.test_batches(2)])
    assert images.shape == (len(splits.test), *expected[2])
    assert next(data.train_batches(2, epoch=0, seed=0, shard=ALONE))[0].shape == (2, *expected[2])


def test_a_stream_is_read_by_workers(tmp_path: Path) -> None:
    folder = str(parquet_folder(tmp_path / "d", [0, 1, 1], [0], names=["a", "b"]))
    splits = load_splits(folder, streaming=True, num_train=3)
    data = opened(splits)
    assert (data.pipeline, data.image_shape) == ("workers", (3, 6, 6))
    assert torch.equal(pixels_of_test(data)[0], torch.from_numpy(np.array(picture(0))).permute(2, 0, 1))
    with pytest.raises(ValueError, match="pipeline is 'device' with streaming, which needs worker processes; use pipe"):
        opened(splits, pipeline="device")


@pytest.mark.parametrize("settings", [{"augment": "timm"}, {"transform": {"hflip": 0.0}}])
def test_the_device_has_no_timm_transform(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pipeline is 'device' with timm's transform, which needs worker processes"):
        opened(alike(), pipeline="device", **settings)


def test_two_augmentations_contradict_each_other() -> None:
    message = r"augment is 'crop' and transform is \{'hflip': 0.0\}, expected one of them; use augment timm, or drop"
    with pytest.raises(ValueError, match=message):
        opened(alike(), augment="crop", transform={"hflip": 0.0})


@pytest.mark.parametrize("name", ["flip", "input_size", "mean", "use_prefetcher", "re_prob", "crop_pct"])
def test_options_that_timm_lacks_or_that_would_do_nothing(name: str) -> None:
    message = rf"transform has \['{name}'\], expected arguments of timm.data.create_transform: \['no_aug', "
    with pytest.raises(ValueError, match=message):
        opened(alike(), transform={name: 0.5, "hflip": 0.0})
    with pytest.raises(ValueError, match=message):
        check_transform({name: 0.5})
    check_transform({"hflip": 0.0, "scale": (0.5, 1.0)})


def test_timms_policies_take_no_grey_images() -> None:
    options = {"auto_augment": "rand-m9-mstd0.5"}
    with pytest.raises(ValueError, match="transform has auto_augment, but the images are grey, and timm's policies"):
        opened(alike(mode="L"), transform=options)
    in_colour = opened(alike(mode="L"), transform=options, expects={**RAW, "channels": 3})
    assert train_pixels(in_colour).shape == (4, 3, 8, 8)


def test_options_reach_timm() -> None:
    image = picture(0, (8, 8))
    data = opened(splits_of([image] * 40, [0] * 40), transform={"scale": (1, 1), "ratio": (1, 1), "color_jitter": None})
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    mirrored = [torch.equal(each.round(), whole.flip(2).float()) for each in train_pixels(data)]
    plain = [torch.equal(each.round(), whole.float()) for each in train_pixels(data)]
    assert [not each for each in mirrored] == plain
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize(
    ("settings", "mirrored"),
    [
        ({}, False),
        ({"transform": {"vflip": 0.5}}, False),
        ({"transform": {"hflip": 0.5}}, True),
        ({"augment": "timm"}, True),
    ],
)
def test_workers_do_not_mirror_digits_unless_told(settings: dict[str, Any], mirrored: bool) -> None:
    # Left half dark, right half light, as of test_augment: a crop never makes the left half the lighter one.
    halves = Image.fromarray(np.repeat(np.array([[0] * 8 + [200] * 8], dtype=np.uint8), 16, axis=0))
    data = opened(splits_of([halves] * 40, [0] * 40), data="digits", pipeline="workers", **settings)
    pixels = train_pixels(data)
    assert bool((pixels[..., :8].mean((1, 2, 3)) > pixels[..., 8:].mean((1, 2, 3)) + 1).any()) == mirrored


def test_large_sets_go_to_the_workers_however_much_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 8 * 3 * 8 * 8  # four images in each split
    monkeypatch.setattr(opening, "RESIDENT_BYTES", needed)
    assert opened(alike()).pipeline == "device"
    monkeypatch.setattr(opening, "RESIDENT_BYTES", needed - 1)
    assert opened(alike()).pipeline == "workers"
    assert opened(alike(), expects={**RAW, "channels": 1}).pipeline == "device", "a third of the bytes"


@pytest.mark.parametrize("pipeline", ["auto", "device"])
def test_too_little_memory_is_an_error_and_no_other_recipe(pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "free_memory", lambda _: 2 * 8 * 3 * 8 * 8 - 2)
    message = (
        r"8 images of 8x8 pixels and 3 channels take 0.00 GiB, expected at most half of .* use --set pipeline=work"
    )
    with pytest.raises(ValueError, match=message):
        opened(alike(), pipeline=pipeline)
    assert opened(alike(), pipeline="workers").pipeline == "workers"


@pytest.mark.parametrize("pipeline", ["device", "workers"])
def test_channels_are_those_of_the_images_or_converted(pipeline: str) -> None:
    grey, colour = (np.stack([np.asarray(picture(seed, (8, 8), mode)) for seed in range(4)]) for mode in ("L", "RGB"))
    in_grey = np.stack([np.asarray(picture(seed, (8, 8)).convert("L")) for seed in range(4)])
    for mode, channels, expected in (
        ("L", None, grey[:, None]),
        ("L", 3, np.repeat(grey[:, None], 3, axis=1)),
        ("RGB", None, colour.transpose(0, 3, 1, 2)),
        ("RGB", 1, in_grey[:, None]),
    ):
        data = opened(alike(mode=mode), pipeline=pipeline, expects={**RAW, "channels": channels})
        assert data.image_shape == expected.shape[1:]
        assert torch.equal(pixels_of_test(data), torch.from_numpy(expected.copy())), (mode, channels)
    one_in_colour = splits_of([*(picture(seed, (8, 8), "L") for seed in range(3)), picture(3, (8, 8))], [0] * 4)
    data = opened(one_in_colour, pipeline=pipeline)
    assert torch.equal(pixels_of_test(data)[3], torch.from_numpy(colour[3].copy()).permute(2, 0, 1))
    assert torch.equal(pixels_of_test(data)[0], torch.from_numpy(grey[0].copy()).expand(3, 8, 8))


def grey_but_for(colour: int, num: int = 6, test: str = "L") -> Splits:
    """Return splits whose training images are grey but for one row, and whose test images are of the mode `test`."""
    images = [picture(seed, (8, 8), "RGB" if seed == colour else "L") for seed in range(num)]
    return splits_of(images, [0] * num, test=[picture(9, (8, 8), test)] * 2)


def as_stream(splits: Splits) -> Splits:
    train, test = (split.to_iterable_dataset() for split in (splits.train, splits.test))
    return replace(splits, train=train, test=test, streaming=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("train", ["L", "RGB"])
def test_a_test_split_in_colour_stays_so(train: str, stream: bool) -> None:
    splits = grey_but_for(0 if train == "RGB" else -1, test="RGB")
    data = opened(as_stream(splits) if stream else splits, pipeline="workers")
    expected = torch.from_numpy(np.array(picture(9, (8, 8)))).permute(2, 0, 1).expand(2, 3, 8, 8)
    assert torch.equal(pixels_of_test(data), expected)


@pytest.mark.parametrize("stream", [False, True])
def test_colour_where_grey_was_surveyed_is_an_error(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SURVEYED", 1)
    splits = grey_but_for(1)
    splits = as_stream(splits) if stream else splits
    message = r"image in row 1 of split 'train' is in colour, expected grey .* use --model-kwargs in_chans=3"
    with pytest.raises(ValueError, match=message):
        list(opened(splits, pipeline="workers", augment="none").plain_train_batches(4))
    for channels in (1, 3):  # as the user or the model has it
        data = opened(splits, pipeline="workers", augment="none", expects={**RAW, "channels": channels})
        assert torch.cat([images for images, _ in data.plain_train_batches(4)]).shape == (6, channels, 8, 8)


@pytest.mark.parametrize("pipeline", ["auto", "workers", "device"])
@pytest.mark.parametrize("mean", [None, (0.5,)])
def test_colour_that_a_trained_network_does_not_see_is_a_warning(
    mean: tuple[float, ...] | None, pipeline: str, caplog: pytest.LogCaptureFixture
) -> None:
    grey_as_rgb = picture(0, (8, 8), "L").convert("RGB")
    for splits, colour in (
        (grey_but_for(2), True),
        (grey_but_for(-1, test="RGB"), True),
        (grey_but_for(-1), False),
        (splits_of([grey_as_rgb] * 2, [0] * 2), False),
    ):
        caplog.clear()
        opened(splits, pipeline=pipeline, augment="none", expects={**RAW, "channels": 1, "mean": mean, "std": mean})
        told = "does not see the colour of these, of 2 classes: '0', '1'" in caplog.text
        assert told == (colour and mean is not None)


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (8, 16)])
def test_small_images_keep_their_sides_and_pixels_in_both_pipelines(size: tuple[int, int]) -> None:
    splits = alike(size=size)
    expected = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in splits.test["image"]])
    for pipeline in ("device", "workers"):
        data = opened(splits, pipeline=pipeline, augment="none")
        assert torch.equal(pixels_of_test(data), expected), pipeline
        plain = torch.cat([images for images, _ in data.plain_train_batches(4)])
        assert torch.equal(plain.round(), expected.float()), pipeline
        for augment in ("crop", "crop-flip"):
            assert opened(splits, pipeline=pipeline, augment=augment).image_shape == (3, size[1], size[0])


@pytest.mark.parametrize("pipeline", ["device", "workers"])
def test_normalization_from_scratch_is_that_of_the_images_and_else_that_of_the_weights(pipeline: str) -> None:
    splits = alike()
    scratch = opened(splits, pipeline=pipeline, expects={})
    pixels = np.stack([np.asarray(image) for image in splits.train["image"]]) / 255
    assert scratch.normalization.mean == pytest.approx(pixels.mean((0, 1, 2)).tolist())
    assert scratch.normalization.std == pytest.approx(pixels.std((0, 1, 2)).tolist())
    everything = torch.cat([images for images, _ in scratch.plain_train_batches(4)])
    assert everything.mean((0, 2, 3)).abs().max() < 1e-5
    weights = {"mean": (0.1, 0.2, 0.6), "std": (0.2, 0.3, 0.4)}
    assert opened(splits, pipeline=pipeline, expects=weights).normalization == Normalization(**weights)
    grey = opened(alike(mode="L"), pipeline=pipeline, expects=weights).normalization
    assert (grey.mean, grey.std) == (pytest.approx((0.3,)), pytest.approx((0.3,)))


def scaled_by(data: Data) -> tuple[str, float, str]:
    scaling = data.scaling
    return scaling.interpolation, scaling.crop_pct, scaling.crop_mode


def test_interpolation_and_crop_of_other_sizes_are_those_of_the_weights_for_workers_alone() -> None:
    expects = {**RAW, "interpolation": "bicubic", "crop_pct": 0.5}
    data = opened(alike(), pipeline="workers", expects=expects)
    assert scaled_by(data) == ("bicubic", 0.5, "center")
    larger = picture(0, (8, 8)).resize((16, 16), Image.Resampling.BICUBIC).crop((4, 4, 12, 12))
    assert torch.equal(pixels_of_test(data)[0], torch.from_numpy(np.array(larger)).permute(2, 0, 1))
    resident = opened(alike(), pipeline="device", expects=expects)
    assert scaled_by(resident) == ("bilinear", 1.0, "center")
    assert torch.equal(pixels_of_test(resident)[0], torch.from_numpy(np.array(picture(0, (8, 8)))).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("crop", ["center", "border", "squash"])
def test_images_of_the_size_of_the_weights_are_scaled_as_these_expect(crop: str, mode: str) -> None:
    expects = {"mean": (0.0,), "std": (1 / 255,), "interpolation": "bicubic", "crop_pct": 0.5, "crop_mode": crop}
    splits = alike(size=(12, 20), mode=mode)
    resident, workers = (
        opened(splits, image_size=FALLBACK, pipeline=pipeline, expects=expects) for pipeline in ("auto", "workers")
    )
    assert (resident.pipeline, resident.augmentation, resident.image_shape) == (
        "device",
        "crop-flip",
        workers.image_shape,
    )
    assert scaled_by(resident) == ("bicubic", 0.5, crop)
    assert torch.equal(pixels_of_test(resident), pixels_of_test(workers))
    scratch = opened(splits, image_size=FALLBACK, expects={**expects, "mean": None, "std": None})
    assert scaled_by(scratch) == ("bilinear", 1.0, "center")
    other = opened(splits, image_size=FALLBACK - 4, expects=expects)
    assert (other.pipeline, *scaled_by(other)) == ("device", "bilinear", 1.0, "center")


def test_a_broken_image_is_named_by_its_row_in_the_set(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "d", per_class=100)
    splits = load_splits(str(folder))
    files = [image["path"] for image in splits.train.cast_column("image", datasets.Image(decode=False))["image"]]
    for file in files[1:]:  # more than are looked at
        Path(file).write_bytes(b"no image")
    found = r"image in row (\d+) of split 'train' \((.*)\) cannot be read \(Unidentified"
    with pytest.raises(ValueError, match=found) as raised:
        opened(splits)
    match = re.search(found, str(raised.value))
    assert match is not None
    assert match[2] == files[int(match[1])]


def test_a_stream_without_rows(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", [0, 1], [0], names=["a", "b"])
    splits = load_splits(str(folder), streaming=True, num_train=2)
    empty = Splits(splits.train.take(0), splits.test, "image", "label", ("a", "b"), 2, streaming=True)
    with pytest.raises(ValueError, match="the stream of split 'train' has no rows, expected at least one image; check"):
        opened(empty)


def test_workers_by_default_are_this_process_share(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(opening, "default_num_workers", lambda: asked.append(None) or 0)
    open_data(alike(), PipelineSettings(pipeline="workers"), Preprocessing(None, 8), data="set", device=CPU)
    assert asked == [None]

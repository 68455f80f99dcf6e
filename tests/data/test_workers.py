"""Batches from worker processes: what an image looks like depends on seed, epoch and place alone."""

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cosify.data import Normalization, Preprocessing, Shard, Splits, WorkerData, load_splits, train_transform, workers
from cosify.errors import InputError
from tests.data.folders import ROOT, broken_bytes, parquet_folder, picture, splits_of
from tests.data.passes import (
    ALONE,
    assert_equal,
    assert_ranks_equal_one_process,
    assert_resumed_equals_whole,
    epoch,
    rows_of,
)

# Of torch, on a machine with one core.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

CPU = torch.device("cpu")
NUM_TRAIN, NUM_TEST = 22, 9
# Between them, these draw from random, NumPy and torch.
EVERY_GENERATOR = {"auto_augment": "rand-m9-mstd0.5", "color_jitter_prob": 0.5}
PLAIN = Normalization((0.0,) * 3, (1 / 255,) * 3)  # batches then hold the pixels, 0 to 255


def stored() -> Splits:
    """Images of two sizes; the label is the row, so that it tells which row a batch holds."""
    images = [picture(seed, (10, 8) if seed % 2 else (8, 12)) for seed in range(NUM_TRAIN)]
    return splits_of(images, range(NUM_TRAIN), NUM_TRAIN, test=images[:NUM_TEST])


@pytest.fixture
def stream(tmp_path: Path) -> Splits:
    """The same number of rows in two files."""
    names = [str(row) for row in range(NUM_TRAIN)]
    folder = parquet_folder(tmp_path / "d", range(12), range(NUM_TEST), names=names)
    second = parquet_folder(tmp_path / "second", range(12, NUM_TRAIN), [0], names=names)
    (folder / "train.parquet").rename(folder / "train-1.parquet")
    (second / "train.parquet").rename(folder / "train-2.parquet")
    return load_splits(str(folder), streaming=True, num_train=NUM_TRAIN)


def worker_data(
    splits: Splits,
    *,
    num_workers: int = 0,
    augmentation: str = "timm",
    options: dict[str, Any] = EVERY_GENERATOR,
    normalization: Normalization | None = PLAIN,
    preprocessing: Preprocessing = Preprocessing(8, 8),  # noqa: B008  # frozen
    channels: int = 3,
) -> WorkerData:
    shape = (channels, 8, 8)
    return WorkerData(
        splits,
        train_transform=train_transform(augmentation, options, shape, preprocessing),
        test_transform=train_transform("none", {}, shape, preprocessing),
        image_shape=shape,
        augmentation=augmentation,
        normalization=normalization,
        num_workers=num_workers,
        device=CPU,
        scaling=preprocessing,
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_no_pixel(num_workers: int) -> None:
    alone, helped = worker_data(stored()), worker_data(stored(), num_workers=num_workers)
    for number in (0, 1):
        assert_equal(epoch(helped, number=number), epoch(alone, number=number))
        assert_equal(list(helped.test_batches(4)), list(alone.test_batches(4)))
    assert_equal(list(helped.plain_train_batches(4)), list(alone.plain_train_batches(4)))


def test_the_number_of_workers_changes_no_pixel_of_a_stream(stream: Splits) -> None:
    alone, helped = worker_data(stream), worker_data(stream, num_workers=2)
    assert_equal(epoch(helped), epoch(alone))
    assert_equal(list(helped.test_batches(4)), list(alone.test_batches(4)))


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("augmentation", ["timm", "crop-flip"])
def test_batches_of_the_ranks_together_are_those_of_one_process(augmentation: str, world_size: int) -> None:
    assert_ranks_equal_one_process(worker_data(stored(), augmentation=augmentation), world_size)


def test_streamed_batches_of_the_ranks_together_are_those_of_one_process(stream: Splits) -> None:
    assert_ranks_equal_one_process(worker_data(stream), 2)


def test_a_resumed_epoch_goes_on_where_it_was(stream: Splits) -> None:
    assert_resumed_equals_whole(lambda: worker_data(stored()))
    assert_resumed_equals_whole(lambda: worker_data(stream))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_that_is_left_half_way_leaves_nothing_behind(num_workers: int) -> None:
    data = worker_data(stored(), num_workers=num_workers)
    batches = data.train_batches(4, epoch=0, seed=0, shard=ALONE)
    assert_equal([next(batches)], epoch(worker_data(stored()))[:1])
    assert_equal(epoch(data, number=1), epoch(worker_data(stored()), number=1))


def test_epochs_and_seeds_differ_and_rows_do_not_repeat() -> None:
    data = worker_data(stored())
    pixels = {epoch(data, number=number, seed=seed)[0][0].sum().item() for number in (0, 1) for seed in (0, 1)}
    assert len(pixels) == 4
    assert len(set(rows_of(epoch(data)))) == 20


def test_equal_images_are_augmented_differently_in_every_batch_and_epoch() -> None:
    data = worker_data(splits_of([picture(0, (8, 8))] * 12, [0] * 12), options={})
    images = torch.cat([images for number in (0, 1) for images, _ in epoch(data, 6, number=number)])
    assert len(images.flatten(1).unique(dim=0)) == 24


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_timms_transform_scales_as_the_weights_want(interpolation: str) -> None:
    image = picture(0, (16, 16))
    whole = {"scale": (1, 1), "ratio": (1, 1), "hflip": 0.0, "color_jitter": None}
    preprocessing = Preprocessing(8, 8, interpolation=interpolation)
    data = worker_data(splits_of([image], [0]), options=whole, preprocessing=preprocessing)
    expected = np.array(image.resize((8, 8), Image.Resampling[interpolation.upper()])).transpose(2, 0, 1)
    assert torch.equal(epoch(data, 1)[0][0][0].round(), torch.from_numpy(expected).float())


def test_shift_is_by_up_to_an_eighth_with_black_coming_in_and_mirrors_half() -> None:
    image = picture(0, (8, 8))
    splits = splits_of([image] * 300, [0] * 300)
    padded = np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0))).transpose(2, 0, 1)
    shifted = {
        (top, left): padded[:, top : top + 8, left : left + 8].tobytes() for top in range(3) for left in range(3)
    }
    mirrored = {padded[:, top : top + 8, left : left + 8][..., ::-1].tobytes() for top, left in shifted}
    for augmentation, expected in (
        ("crop", set(shifted.values())),
        ("crop-flip", set(shifted.values()) | mirrored),
        ("none", {shifted[1, 1]}),
    ):
        images, _ = epoch(worker_data(splits, augmentation=augmentation), 300)[0]
        found = [pixels.tobytes() for pixels in images.round().to(torch.uint8).numpy()]
        assert set(found) == expected, augmentation
        if augmentation == "crop-flip":
            assert 110 < sum(pixels in mirrored for pixels in found) < 190


def test_balanced_batches_see_classes_equally_often() -> None:
    labels = [0] * 200 + [1] * 60 + [2] * 10
    data = worker_data(splits_of([picture(0, (8, 8))] * 270, labels, 3), augmentation="none")
    balanced = [
        labels
        for number in range(2)
        for _, labels in data.train_batches(10, epoch=number, seed=0, shard=ALONE, balance=1.0)
    ]
    counts = torch.cat(balanced).bincount()
    assert all(130 < int(count) < 230 for count in counts)  # 180 each; the standard deviation is 11


def test_a_stream_gives_each_row_once_in_another_order_each_epoch(stream: Splits) -> None:
    data = worker_data(stream, augmentation="none")
    orders = [rows_of(epoch(data, 2, number=number)) for number in range(3)]
    assert all(sorted(order) == list(range(NUM_TRAIN)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert sorted(orders[0]) != orders[0]
    assert data.train_labels is None


def test_a_stream_starts_again_where_an_epoch_is_longer(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", range(5), [0], names=list("abcde"))
    data = worker_data(load_splits(str(folder), streaming=True, num_train=15))
    whole = epoch(data, 3)
    assert sorted(rows_of(whole)) == sorted(list(range(5)) * 3)
    assert_equal(epoch(data, 3, first=3), whole[3:])
    # The second time round, an image is augmented anew.
    images, rows = torch.cat([images for images, _ in whole]), torch.tensor(rows_of(whole))
    assert all(len(images[rows == row].flatten(1).unique(dim=0)) > 1 for row in range(5))


def test_a_stream_ends_where_an_epoch_is_shorter(stream: Splits) -> None:
    data = worker_data(stream.limit_train(8))
    assert len(epoch(data, 3)) == 2
    found = [set(rows_of(epoch(data, 4, number=number, seed=seed))) for number in (0, 1) for seed in (0, 1)]
    assert all(rows == found[0] for rows in found)
    assert max(found[0]) > NUM_TRAIN // 2, "the first ones"
    assert_equal(epoch(data, 2, first=1), epoch(data, 2)[1:])


def test_a_stream_without_rows(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", range(3), [0], names=list("abc"))
    splits = load_splits(str(folder), streaming=True, num_train=3)
    empty = Splits(splits.train.take(0), splits.test, "image", "label", splits.label_names, 3, streaming=True)
    with pytest.raises(ValueError, match="the stream of split 'train' has no rows, expected at least one image; check"):
        epoch(worker_data(empty), 3)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_test_image_comes_once_and_as_it_is(world_size: int, stream: Splits) -> None:
    for splits in (stored(), stream):
        data = worker_data(splits)
        found = [batch for rank in range(world_size) for batch in data.test_batches(2, Shard(rank, world_size))]
        rows = rows_of(found)
        assert sorted(rows) == list(range(NUM_TEST))
        assert all(1 <= len(labels) <= 2 for _, labels in found)
        transform = train_transform("none", {}, (3, 8, 8), Preprocessing(8, 8))
        for row, pixels in zip(rows, torch.cat([images for images, _ in found]), strict=True):
            original = picture(row) if splits.streaming else splits.test[row]["image"]
            assert torch.equal(pixels.round(), transform(original).float())
        plain = [batch for rank in range(world_size) for batch in data.plain_train_batches(4, Shard(rank, world_size))]
        assert sorted(rows_of(plain)) == list(range(NUM_TRAIN))


def test_some_training_images_are_of_the_whole_set_for_any_number_of_ranks(stream: Splits) -> None:
    for splits in (stored(), stream):
        data = worker_data(splits)
        one, three = (
            rows_of([batch for rank in range(n) for batch in data.plain_train_batches(4, Shard(rank, n), 7)])
            for n in (1, 3)
        )
        assert sorted(one) == sorted(three)
        assert len(set(one)) == len(one) == 7
        assert max(one) > NUM_TRAIN // 2, "the first ones"
        assert sorted(rows_of(list(data.plain_train_batches(4, limit=99)))) == list(range(NUM_TRAIN))


@pytest.mark.parametrize(("interpolation", "crop_pct"), [("bicubic", 0.8), ("bilinear", 1.0)])
def test_evaluation_is_timms_own(interpolation: str, crop_pct: float) -> None:
    from timm.data import create_transform

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    splits = stored()
    preprocessing = Preprocessing(8, 8, interpolation=interpolation, crop_pct=crop_pct)
    data = worker_data(splits, preprocessing=preprocessing, normalization=Normalization(mean, std))
    timms = create_transform((3, 8, 8), interpolation=interpolation, crop_pct=crop_pct, mean=mean, std=std)
    expected = torch.stack([timms(image) for image in splits.test["image"]])
    found = torch.cat([images for images, _ in data.test_batches(4)])
    assert (found - expected).abs().max() < 1e-5
    assert (data.scaling.interpolation, data.scaling.crop_pct) == (interpolation, crop_pct)


def test_without_workers_the_generators_of_the_training_are_left_alone(stream: Splits) -> None:
    for splits in (stored(), stream):
        torch.manual_seed(1)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        data = worker_data(splits, normalization=None)
        for batches in (epoch(data), data.test_batches(4), data.plain_train_batches(4)):
            assert rows_of(list(batches))
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        assert before[:2] == after[:2]
        assert torch.equal(before[2], after[2]), "weights drawn after this would not depend on the seed of the run"


def test_normalization_is_that_of_the_training_images(stream: Splits) -> None:
    for splits in (stored(), stream):
        data = worker_data(splits, normalization=None)
        pixels = torch.cat([images for images, _ in worker_data(splits).plain_train_batches(4)])
        assert data.normalization == Normalization.of_images(pixels.round().to(torch.uint8))


@pytest.mark.parametrize(("num", "rows"), [(3, [0, 1, 2]), (4, [0, 1, 2, 3]), (7, [0, 2, 4, 6]), (9, [0, 3, 6])])
def test_normalization_of_many_images_is_of_some_from_everywhere(
    monkeypatch: pytest.MonkeyPatch, num: int, rows: list[int]
) -> None:
    monkeypatch.setattr(workers, "SAMPLE_FOR_STATISTICS", 4)
    images = [Image.new("L", (8, 8), 2**row // 2) for row in range(num)]
    data = worker_data(splits_of(images, [0] * num), channels=1, normalization=None)
    expected = sum(2**row // 2 for row in rows) / len(rows) / 255
    assert data.normalization.mean == pytest.approx((expected,))


def test_normalization_of_a_sorted_stream_is_not_of_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SAMPLE_FOR_STATISTICS", 20)
    splits = splits_of([Image.new("L", (8, 8), 255 * (row >= 20)) for row in range(40)], [0] * 40)
    train, test = splits.train.to_iterable_dataset(), splits.test.to_iterable_dataset()
    splits = replace(splits, train=train, test=test, streaming=True)
    data = worker_data(splits, channels=1, normalization=None)
    assert 0.3 < data.normalization.mean[0] < 0.7


def stop_workers(data: WorkerData) -> None:
    """End workers whose error was caught: torch 2.14 waits 5 s for them if the garbage collector has to."""
    for _, loader in (data._train, data._test):
        if loader._iterator is not None and data._num_workers > 0:
            loader._iterator._shutdown_workers()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named(num_workers: int) -> None:
    splits = splits_of([picture(0), picture(1), broken_bytes(), picture(3)], [0, 1, 0, 1], test=[picture(0), None])
    data = worker_data(splits, num_workers=num_workers)
    with pytest.raises(
        ValueError,
        match=r"^image in row 2 of split 'train' \(600 bytes\) cannot be read \(.*\), expected a file that ",
    ) as raised:
        epoch(data, 2)
    assert type(raised.value) is InputError, "the error itself, without a worker's traceback"
    assert "Traceback" not in str(raised.value)
    with pytest.raises(ValueError, match=r"image in row 1 of split 'test' \(None\) cannot be read"):
        list(data.test_batches(2))
    stop_workers(data)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("wrong", [-1, 2, None])
def test_a_label_that_is_missing_or_out_of_range_is_named(num_workers: int, wrong: int | None) -> None:
    splits = splits_of([picture(0)] * 3, [0, 1, wrong])  # type: ignore[list-item]  # None is what may come
    message = rf"label in row 2 of split '{{}}' is {wrong}, .*expected 0 to 1 for 2 classes; use a split "
    with pytest.raises(ValueError, match=message.format("train")):
        worker_data(splits, num_workers=num_workers)
    data = worker_data(replace(splits, train=splits.train.select(range(2)), num_train=2), num_workers=num_workers)
    with pytest.raises(ValueError, match=message.format("test")):
        list(data.test_batches(3))
    stop_workers(data)


def test_a_worker_that_was_killed_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # 5 s, after which torch looks
    data = worker_data(stored(), num_workers=1)
    batches = data.test_batches(1)
    next(batches)
    (worker,) = data._test[1]._iterator._workers  # type: ignore[union-attr]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()  # no error here, wherever the main process is
    with pytest.raises(
        InputError, match=rf"that decodes images has died \(.*{worker.pid}.*use a smaller --num-workers"
    ):
        list(batches)


LEAVES_EARLY = """
import cosify.data

from tests.data.test_workers import worker_data, stored
if __name__ == "__main__":
    data = worker_data(stored(), num_workers=2)
    next(data.train_batches(2, epoch=0, seed=0, shard=cosify.data.Shard()))
    print("left")
"""


@pytest.mark.slow
def test_a_program_that_ends_in_the_middle_of_a_pass_ends_quietly() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LEAVES_EARLY], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "left\n", "")


def test_a_broken_row_of_a_stream_is_named(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for name in ("train", "test"):
        rows = {"image": [picture(0), picture(1), broken_bytes()], "label": [0, 1, 0]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / f"{name}.parquet"))
    data = worker_data(load_splits(str(tmp_path), streaming=True, num_train=3))
    with pytest.raises(ValueError, match=r"image in row 2 of split 'test' \(600 bytes\) cannot be read"):
        list(data.test_batches(2))


@pytest.mark.parametrize(("processes", "expected"), [(1, 8), (4, 5), (20, 1), (40, 1)])
def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, processes: int, expected: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(20)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert workers.default_num_workers() == expected


def test_what_it_tells_about_itself(stream: Splits) -> None:
    data = worker_data(stored())
    assert (data.pipeline, data.augmentation, data.image_shape) == ("workers", "timm", (3, 8, 8))
    assert (data.num_train, data.num_test) == (NUM_TRAIN, NUM_TEST)
    assert data.train_labels is not None
    assert data.train_labels.tolist() == list(range(NUM_TRAIN))
    assert worker_data(stream).num_test is None

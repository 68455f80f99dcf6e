"""Batches of a set that lies on the device: the same however many ranks there are and wherever a run began."""

import random

import numpy as np
import pytest
import torch

from cosify.data import Augmentation, DeviceData, ImageSet, Normalization, Preprocessing, Shard
from tests.data.passes import (
    ALONE,
    assert_equal,
    assert_ranks_equal_one_process,
    assert_resumed_equals_whole,
    epoch,
)

NUM_TRAIN, NUM_TEST = 50, 23


def images_of(num: int, seed: int) -> ImageSet:
    """Random pixels; the label is the row, so that it tells which row a batch holds."""
    generator = torch.Generator().manual_seed(seed)
    return ImageSet(torch.randint(256, (num, 3, 8, 8), generator=generator).to(torch.uint8), torch.arange(num))


def device_data(augmentation: Augmentation = "crop-flip", normalization: Normalization | None = None) -> DeviceData:
    names = tuple(map(str, range(NUM_TRAIN)))
    train, test = images_of(NUM_TRAIN, 0), images_of(NUM_TEST, 1)
    return DeviceData(train, test, names, augmentation, normalization, Preprocessing(None, 8))


def test_an_epoch_is_full_batches_of_different_rows() -> None:
    data = device_data("none")
    rows = torch.cat([labels for _, labels in epoch(data)])
    assert len(rows) == 48
    assert len(rows.unique()) == 48
    normalize = data.normalization.on(torch.device("cpu"))
    for images, labels in epoch(data):
        assert torch.equal(images, normalize(images_of(NUM_TRAIN, 0).images[labels]))


@pytest.mark.parametrize("augmentation", ["crop-flip", "crop", "none"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_batches_of_the_ranks_together_are_those_of_one_process(augmentation: Augmentation, world_size: int) -> None:
    assert_ranks_equal_one_process(device_data(augmentation), world_size)


def test_a_resumed_epoch_goes_on_where_it_was() -> None:
    assert_resumed_equals_whole(device_data)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    data = device_data()
    assert_equal(epoch(data, number=1, seed=1), epoch(data, number=1, seed=1))
    pixels = {epoch(data, number=number, seed=seed)[0][0].sum().item() for number in (0, 1) for seed in (0, 1)}
    assert len(pixels) == 4


def test_an_image_is_augmented_differently_each_time() -> None:
    data = device_data()
    seen = [images[labels == 7] for number in range(8) for images, labels in epoch(data, number=number)]
    different = torch.cat(seen).flatten(1).unique(dim=0)
    assert len(different) >= 4, "of 18 shifts and mirror images"


def test_equal_images_are_augmented_differently_in_every_batch_and_epoch() -> None:
    train = ImageSet(images_of(1, 0).images.expand(24, 3, 8, 8), torch.zeros(24, dtype=torch.int64))
    data = DeviceData(train, train, ("a",), "crop-flip", None, Preprocessing(None, 8))
    batches = [images for number in (0, 1) for images, _ in epoch(data, 12, number=number)]
    assert all(len(images.flatten(1).unique(dim=0)) >= 5 for images in batches)
    assert len(torch.stack(batches).flatten(1).unique(dim=0)) == 4


def test_global_generators_neither_matter_nor_move() -> None:
    data = device_data()
    torch.manual_seed(1)
    expected = epoch(data)
    torch.manual_seed(2)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    assert_equal(epoch(data), expected)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_balanced_batches_see_classes_equally_often() -> None:
    train = ImageSet(images_of(1000, 0).images, torch.tensor([0] * 900 + [1] * 90 + [2] * 10))
    data = DeviceData(train, train, ("a", "b", "c"), "none", None, Preprocessing(None, 8))
    counts = {
        balanced: torch.cat(
            [labels for _, labels in data.train_batches(10, epoch=0, seed=0, shard=ALONE, balance=float(balanced))]
        ).bincount()
        for balanced in (False, True)
    }
    assert counts[False].tolist() == [900, 90, 10]
    assert all(270 < int(count) < 400 for count in counts[True])  # 333 each; the standard deviation is 15


@pytest.mark.parametrize("world_size", [1, 3])
def test_every_test_image_comes_once_in_order_and_as_it_is(world_size: int) -> None:
    data = device_data()
    normalize = data.normalization.on(torch.device("cpu"))
    for name, batches, num in (
        ("test", data.test_batches, NUM_TEST),
        ("train without augmentation", data.plain_train_batches, NUM_TRAIN),
    ):
        found = [batch for rank in range(world_size) for batch in batches(5, Shard(rank, world_size))]
        assert torch.cat([labels for _, labels in found]).tolist() == list(range(num)), name
        original = (data.test if name == "test" else data.train).images
        assert torch.equal(torch.cat([images for images, _ in found]), normalize(original)), name


def test_some_training_images_are_of_the_whole_set_for_any_number_of_ranks() -> None:
    data = device_data()
    found = {
        world_size: [
            batch for rank in range(world_size) for batch in data.plain_train_batches(4, Shard(rank, world_size), 11)
        ]
        for world_size in (1, 3)
    }
    one, three = (torch.cat([labels for _, labels in batches]).tolist() for batches in found.values())
    assert one == three
    assert len(one) == 11
    assert one == sorted(set(one))
    assert one[-1] > NUM_TRAIN // 2, "the first ones"
    pixels = data.normalization.on(torch.device("cpu"))(data.train.images[one])
    assert torch.equal(torch.cat([images for images, _ in found[3]]), pixels)
    whole = torch.cat([labels for _, labels in data.plain_train_batches(4, limit=NUM_TRAIN + 1)])
    assert whole.tolist() == list(range(NUM_TRAIN))


def test_normalization_is_that_of_the_training_images_unless_given() -> None:
    measured = device_data()
    assert measured.normalization == Normalization.of_images(images_of(NUM_TRAIN, 0).images)
    everything = torch.cat([images for images, _ in measured.plain_train_batches(NUM_TRAIN)])
    assert everything.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    given = device_data(normalization=Normalization((0.5, 0.25, 0.0), (0.5, 0.5, 1.0)))
    images, _ = next(given.test_batches(1))
    pixels = images_of(NUM_TEST, 1).images[:1].double() / 255
    expected = torch.stack([pixels[:, 0] * 2 - 1, pixels[:, 1] * 2 - 0.5, pixels[:, 2]], dim=1)
    assert (images - expected).abs().max() < 1e-6


def test_what_it_tells_about_itself() -> None:
    data = device_data("crop")
    assert (data.pipeline, data.augmentation, data.image_shape) == ("device", "crop", (3, 8, 8))
    assert (data.num_train, data.num_test) == (NUM_TRAIN, NUM_TEST)
    assert data.train_labels.tolist() == list(range(NUM_TRAIN))

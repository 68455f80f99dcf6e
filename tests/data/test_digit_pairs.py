"""Two-digit numbers: what is in the images, and that no test digit leaks into training."""

import functools

import datasets
import numpy as np
import pytest
from numpy.typing import NDArray

from cosify.data.digit_pairs import NOISE, two_digits
from cosify.data.handwritten_digits import digits


@functools.cache
def pixels_and_labels(split: datasets.Dataset) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.stack([np.asarray(image) for image in split["image"]]), np.asarray(split["label"][:])


@pytest.fixture(scope="module")
def noisy() -> datasets.DatasetDict:
    return two_digits()


@pytest.fixture(scope="module")
def clean() -> datasets.DatasetDict:
    return two_digits(0.0)


@pytest.mark.parametrize(("name", "num_images"), [("train", 8000), ("test", 4000)])
def test_a_hundred_equally_frequent_classes(noisy: datasets.DatasetDict, name: str, num_images: int) -> None:
    split = noisy[name]
    assert split.features["label"].names[:2] == ["00", "01"]
    assert split.features["label"].names[-1] == "99"
    pixels, labels = pixels_and_labels(split)
    assert pixels.shape == (num_images, 8, 16)
    assert pixels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [num_images // 100] * 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "test"])
def test_halves_are_digits_of_the_same_split_and_spell_the_label(clean: datasets.DatasetDict, name: str) -> None:
    digit_of = {image.tobytes(): digit for image, digit in zip(*pixels_and_labels(digits()[name]), strict=True)}
    pixels, labels = pixels_and_labels(clean[name])
    tens, ones = ([digit_of[half.tobytes()] for half in halves] for halves in (pixels[..., :8], pixels[..., 8:]))
    assert (np.array(tens) * 10 + np.array(ones) == labels).all()
    used = {half.tobytes() for halves in (pixels[..., :8], pixels[..., 8:]) for half in halves}
    assert len(used) == len(digit_of), "every digit is used"


def test_noise(clean: datasets.DatasetDict, noisy: datasets.DatasetDict) -> None:
    pixels, _ = pixels_and_labels(digits()["train"])
    assert pytest.approx(0.6 * pixels.std(), rel=0.01) == NOISE
    before, after = pixels_and_labels(clean["test"])[0].astype(float), pixels_and_labels(noisy["test"])[0]
    grey = (before > 120) & (before < 136)  # black and white are half cut off; at 2.2 sigma on both sides little is
    assert abs((after - before)[grey].mean()) < 2
    assert 0.94 * NOISE < (after - before)[grey].std() < NOISE
    assert len(np.unique(after.reshape(len(after), -1), axis=0)) == len(after), "no image twice"


@pytest.mark.slow
def test_always_the_same(noisy: datasets.DatasetDict) -> None:
    digits.cache_clear()
    again = two_digits.__wrapped__()
    for name in ("train", "test"):
        assert np.array_equal(pixels_and_labels(again[name])[0], pixels_and_labels(noisy[name])[0])

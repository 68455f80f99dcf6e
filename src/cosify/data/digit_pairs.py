"""A hundred classes without a download: the numbers 00 to 99, composed of scikit-learn's handwritten digits."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cosify.data.handwritten_digits import digits

if TYPE_CHECKING:
    from datasets import DatasetDict

NUM_CLASSES = 100
NUM_IMAGES = {"train": 8000, "test": 4000}
NOISE = 57.5  # standard deviation in grey levels: 0.6 times that of the digits' pixels, which is 95.8


@cache  # the images take seconds to write
def two_digits(noise: float = NOISE) -> "DatasetDict":
    """Return splits `train` (8000) and `test` (4000) with columns `image` (8 high, 16 wide, grey) and `label`.

    An image is two digits of `digits()` side by side, plus Gaussian noise, cut off at black and white.  The digits of
    `test` images come from the test split of `digits()`, so none of them is ever trained on.  All classes are equally
    frequent, and the images are always the same.  A small CNN gets more than nine in ten right, which leaves enough
    mistakes to measure whether its confidence tells.  Digits are no mirror images of each other: do not flip them.

    Args:
        noise: its standard deviation, in grey levels.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    from PIL import Image as PILImage

    random = np.random.default_rng(0)
    features = Features({"image": Image(), "label": ClassLabel(names=[f"{c:02}" for c in range(NUM_CLASSES)])})
    splits = {}
    for name, split in digits().items():
        labels = np.arange(NUM_IMAGES[name]) % NUM_CLASSES
        pixels = np.stack([np.asarray(image) for image in split["image"]])
        digit = np.asarray(split["label"][:])
        left, right = (_handwritten(value, pixels, digit, random) for value in (labels // 10, labels % 10))
        clean = np.concatenate([left, right], axis=2)
        noisy = np.rint(clean + random.normal(0, noise, clean.shape)).clip(0, 255).astype(np.uint8)
        images = [PILImage.fromarray(image) for image in noisy]
        splits[name] = Dataset.from_dict({"image": images, "label": labels.tolist()}, features=features)
    return DatasetDict(splits)


def _handwritten(
    values: NDArray[np.int64], pixels: NDArray[np.uint8], digit: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return for each of `values` [N] a random one of the images `pixels` [M, 8, 8] whose `digit` [M] it is."""
    rows = np.empty(len(values), dtype=np.int64)
    for value in range(10):
        wanted = values == value
        rows[wanted] = random.choice(np.flatnonzero(digit == value), int(wanted.sum()))
    return pixels[rows]

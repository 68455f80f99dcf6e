"""The data set that needs no download: the 1,797 handwritten digits that scikit-learn carries."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import DatasetDict

NUM_TEST = 597
SPLIT_SEED = 0


@cache
def digits() -> "DatasetDict":
    """Return the digits as splits `train` (1200) and `test` (597) with columns `image` (8x8, grey) and `label`.

    The split is stratified and always the same.  Digits are no mirror images of each other: do not flip them.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    from PIL import Image as PILImage
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # scikit-learn stores 17 grey levels, 0 to 16
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=NUM_TEST, stratify=bunch.target, random_state=SPLIT_SEED
    )
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    return DatasetDict(
        {
            name: Dataset.from_dict(
                {"image": [PILImage.fromarray(pixels[row]) for row in rows], "label": bunch.target[rows].tolist()},
                features=features,
            )
            for name, rows in (("train", train), ("test", test))
        }
    )

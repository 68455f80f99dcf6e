"""Images made on the spot, for smoke tests: they load in no time and a model can learn them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import DatasetDict

NUM_CLASSES = 10
SIDE = 8


def synthetic(num_train: int = 320, num_test: int = 100, seed: int = 0) -> "DatasetDict":
    """Return splits `train` and `test` with columns `image` (8x8, grey) and `label`: one noisy pattern a class.

    Args:
        num_train: images to train on, classes in turn.
        num_test: images to test on.
        seed: of the patterns and the noise.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    from PIL import Image as PILImage

    random = np.random.default_rng(seed)
    patterns = random.integers(0, 256, (NUM_CLASSES, SIDE, SIDE))
    features = Features({"image": Image(), "label": ClassLabel(names=[f"pattern {c}" for c in range(NUM_CLASSES)])})
    splits = {}
    for name, num in (("train", num_train), ("test", num_test)):
        labels = np.arange(num) % NUM_CLASSES
        noisy = patterns[labels] + random.normal(0, 40, (num, SIDE, SIDE))
        images = [PILImage.fromarray(image) for image in noisy.clip(0, 255).astype(np.uint8)]
        splits[name] = Dataset.from_dict({"image": images, "label": labels.tolist()}, features=features)
    return DatasetDict(splits)

"""Images made on the spot, for smoke tests: they load in no time and a model can learn them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import DatasetDict

NUM_CLASSES = 10
NUM_IMAGES = {"train": 320, "test": 100}
SIDE = 8


def synthetic() -> "DatasetDict":
    """Return splits `train` (320) and `test` (100) with columns `image` (8x8, grey) and `label`.

    Each class is one pattern; its images are that pattern with noise.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    from PIL import Image as PILImage

    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (NUM_CLASSES, SIDE, SIDE))
    features = Features({"image": Image(), "label": ClassLabel(names=[f"pattern {c}" for c in range(NUM_CLASSES)])})
    splits = {}
    for name, num in NUM_IMAGES.items():
        labels = np.arange(num) % NUM_CLASSES
        noisy = patterns[labels] + random.normal(0, 40, (num, SIDE, SIDE))
        images = [PILImage.fromarray(image) for image in noisy.clip(0, 255).astype(np.uint8)]
        splits[name] = Dataset.from_dict({"image": images, "label": labels.tolist()}, features=features)
    return DatasetDict(splits)

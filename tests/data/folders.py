"""Small data sets on disk, as users have them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from cosify.data import Splits

ROOT = Path(__file__).parents[2]
CIFAR100 = ROOT.parent / "shared" / "data" / "cifar100"


def picture(seed: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> Image.Image:
    width, height = size
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def broken_bytes() -> dict[str, Any]:
    """Return a cell that holds the beginning of a file."""
    whole = io.BytesIO()
    picture(0, (40, 40)).save(whole, "PNG")
    return {"bytes": whole.getvalue()[:600], "path": None}


def splits_of(
    images: Sequence[object], labels: Sequence[int], num_classes: int = 2, test: Sequence[object] | None = None
) -> Splits:
    """Return splits in memory; the test split has the training images, or `test` with the first labels."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    train, held_out = (
        datasets.Dataset.from_dict({"image": list(rows), "label": list(labels)[: len(rows)]}, features=features)
        for rows in (images, images if test is None else test)
    )
    return Splits(train, held_out, "image", "label", tuple(map(str, range(num_classes))), len(train))


def image_folder(folder: Path, sizes: Sequence[tuple[int, int]] = ((6, 6),), per_class: int = 4) -> Path:
    """Write train/CLASS/*.png and test/CLASS/*.png for two classes, sizes in turn."""
    for split, base in (("train", 0), ("test", 100)):
        for label, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for index in range(per_class):
                seed = base + label * per_class + index
                picture(seed, sizes[seed % len(sizes)]).save(folder / split / name / f"{index}.png")
    return folder


def parquet_folder(
    folder: Path,
    train_labels: Sequence[object],
    test_labels: Sequence[object],
    *,
    names: Sequence[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
) -> Path:
    """Write train.parquet and test.parquet; labels are plain values unless `names` makes them ClassLabels."""
    folder.mkdir(parents=True, exist_ok=True)
    image_column, label_column = columns
    for split, labels in (("train", train_labels), ("test", test_labels)):
        kind = datasets.ClassLabel(names=list(names)) if names is not None else _plain_kind(labels)
        features = datasets.Features({image_column: datasets.Image(), label_column: kind})
        rows = {image_column: [picture(seed) for seed in range(len(labels))], label_column: list(labels)}
        # With a size of its own, datasets 5.0 does not estimate one, which divides by the number of rows.
        file = str(folder / f"{split}.parquet")
        datasets.Dataset.from_dict(rows, features=features).to_parquet(file, batch_size=100)
    return folder


def _plain_kind(labels: Sequence[object]) -> datasets.Value:
    first = labels[0] if labels else None
    return datasets.Value("string" if isinstance(first, str) else "float64" if isinstance(first, float) else "int64")

"""Small pictures in the files that verification reads."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from tests.data.folders import picture


def png(seed: int, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    picture(seed, size).save(file, "PNG")
    return file.getvalue()


def files(folder: Path, names: Sequence[str], size: tuple[int, int] = (8, 8)) -> Path:
    """Write a picture for each name; its number is its place."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed, size))
    return folder


def parquet(folder: Path, names: Sequence[str], column: str = "image_id", file: str = "faces.parquet") -> Path:
    features = datasets.Features({"image": datasets.Image(), column: datasets.Value("string")})
    cells = [{"bytes": png(seed), "path": None} for seed in range(len(names))]
    rows = datasets.Dataset.from_dict({"image": cells, column: list(names)}, features=features)
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(str(folder / file))
    return folder


def bin_file(file: Path, pictures: Sequence[Any], same: Sequence[bool]) -> Path:
    file.write_bytes(pickle.dumps((list(pictures), list(same))))
    return file

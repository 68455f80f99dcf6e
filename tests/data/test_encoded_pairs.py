"""Pairs go to parquet and back unchanged, and datasets opens them as images."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cosify.data import EncodedPairs, encoded_pairs, read_pairs, write_pairs
from tests.data.face_pictures import png
from tests.data.folders import picture

PAIRS = EncodedPairs(tuple(png(seed) for seed in range(6)), np.array([True, False, True]))


def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_pairs, "ROWS_AT_ONCE", 2)
    found = read_pairs(write_pairs(PAIRS, tmp_path / "pairs.parquet"))
    assert found.images == PAIRS.images
    assert (found.same.tolist(), found.same.dtype, len(found)) == ([True, False, True], bool, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.parquet"]


def test_datasets_sees_two_images_and_a_flag(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_parquet(str(write_pairs(PAIRS, tmp_path / "pairs.parquet")))
    assert rows.column_names == ["first", "second", "same"]
    assert np.array_equal(np.asarray(rows[1]["second"]), np.asarray(picture(3, (8, 8))))
    assert rows["same"][:] == [True, False, True]


IMAGES = [{"bytes": png(seed), "path": None} for seed in range(2)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": IMAGES}, r"has the columns \['image'\], expected first, second, same: two images and a flag"),
        ({"first": IMAGES, "second": ["a", "b"], "same": [True, True]}, "expected first, second, same: two images"),
        ({"first": IMAGES, "second": [None, *IMAGES[1:]], "same": [True, True]}, "a pair without a picture's bytes"),
        ({"first": IMAGES, "second": IMAGES, "same": [True, None]}, "has 2 pairs, 1 without a flag"),
        ({"first": IMAGES[:0], "second": IMAGES[:0], "same": []}, "has 0 pairs"),
    ],
)
def test_other_files_are_refused(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {"first": image, "image": image, "same": pa.bool_(), "second": image}
    if "second" in columns and "a" in columns["second"]:
        kinds["second"] = pa.string()
    schema = pa.schema([(name, kinds[name]) for name in columns])
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "x.parquet")


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"x.parquet cannot be read as parquet \(.*\), expected a whole file"):
        read_pairs(tmp_path / "x.parquet")
    with pytest.raises(FileNotFoundError):
        read_pairs(tmp_path / "nowhere.parquet")

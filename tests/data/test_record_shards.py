"""Shards hold every picture once, in order, with its person, and load as a data set."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cosify.data import load_splits, record_shards
from cosify.data.record_shards import num_classes, write_shards
from cosify.data.recordio import RecordFile, open_records
from tests.data.face_pictures import png
from tests.data.folders import picture
from tests.data.records import insightface

PICTURES, LABELS = [png(seed) for seed in range(12)], [0] * 5 + [1] * 5 + [2] * 2


def test_shards_load_as_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = open_records(insightface(tmp_path / "rec", PICTURES, LABELS))
    monkeypatch.setattr(record_shards, "SHARD_BYTES", records.file.stat().st_size // 2 - 1)
    monkeypatch.setattr(record_shards, "ROWS_AT_ONCE", 3)
    (tmp_path / "out").mkdir()
    files = write_shards(records, tmp_path / "out")
    assert [file.name for file in files] == [f"train-{shard:05}-of-00003.parquet" for shard in range(3)]
    found = load_splits(f"{tmp_path / 'out'}:train")
    assert found.label_names == ("0", "1", "2")
    rows = [(image.tobytes(), label) for split in (found.train, found.test) for image, label in _cells(split)]
    assert sorted(rows) == sorted((picture(i, (8, 8)).tobytes(), label) for i, label in enumerate(LABELS))


def _cells(split: object) -> list[tuple[object, int]]:
    return [(row["image"].convert("RGB"), row["label"]) for row in split]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_memory_is_that_of_a_group_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_shards, "ROWS_AT_ONCE", 10)
    large = png(0) + bytes(100_000)
    records = open_records(insightface(tmp_path / "rec", [large] * 200, [0, 1] * 100))
    (tmp_path / "out").mkdir()
    write_shards(records, tmp_path / "out")  # once before, for what is imported
    tracemalloc.start()
    try:
        write_shards(records, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # of 20 MB
    finally:
        tracemalloc.stop()


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    records = open_records(insightface(tmp_path / "rec", [png(0), png(1), b"hello"], [0, 0, 1]))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="picture 3"):
        write_shards(records, tmp_path / "out")


def test_classes(caplog: pytest.LogCaptureFixture) -> None:
    def of(*labels: int) -> RecordFile:
        return RecordFile(Path("train.rec"), np.zeros(len(labels), np.int64), np.array(labels))

    assert num_classes(of(0, 1, 2, 1)) == 3
    assert caplog.text == ""
    assert num_classes(of(0, 2, 3)) == 4
    assert "train.rec: 1 of 4 classes have no picture" in caplog.text
    with pytest.raises(ValueError, match=r"labels of train.rec reach 1000000, but only 2 of them are in use"):
        num_classes(of(0, 1_000_000))

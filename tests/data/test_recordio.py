"""RecordIO: pictures and labels come out as they were written, and a file that is not as described is refused."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosify.data.recordio import open_records
from tests.data.face_pictures import png
from tests.data.records import MAGIC, insightface, packed, part, record, record_file

PICTURES = [png(seed) + bytes(seed) for seed in range(5)]  # of lengths with every remainder of 4
LABELS = [0, 0, 1, 2, 2]


def test_the_sets_of_insightface(tmp_path: Path) -> None:
    found = open_records(insightface(tmp_path, PICTURES, LABELS))
    assert list(found.pictures()) == PICTURES
    assert list(found.pictures()) == PICTURES  # again
    assert (found.labels.tolist(), found.labels.dtype, len(found)) == (LABELS, np.int64, 5)


def test_pictures_alone_with_one_label_or_several(tmp_path: Path) -> None:
    found = open_records(record_file(tmp_path, [packed(7, b"abc"), packed([3, 0.5], b"defg")]))
    assert (list(found.pictures()), found.labels.tolist()) == ([b"abc", b"defg"], [7, 3])


def test_the_order_is_that_of_the_numbers(tmp_path: Path) -> None:
    found = open_records(record_file(tmp_path, [packed(i, bytes([i] * 5)) for i in range(1, 4)], keys=[30, 10, 20]))
    assert (list(found.pictures()), found.labels.tolist()) == ([b"\2" * 5, b"\3" * 5, b"\1" * 5], [2, 3, 1])


@pytest.mark.parametrize("picture", [MAGIC, b"1234" + MAGIC, MAGIC * 3 + b"x", b"abcd" + MAGIC + b"efgh" + MAGIC])
def test_a_record_that_holds_the_magic_number(picture: bytes, tmp_path: Path) -> None:
    found = open_records(record_file(tmp_path, [packed(0, picture), packed(1, b"next")]))
    assert (tmp_path / "train.rec").read_bytes().count(MAGIC) == 2 + picture.count(MAGIC)
    assert list(found.pictures()) == [picture, b"next"]


GOOD = record(packed(0, b"picture"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "record 0 of .*: its bytes at 0 do not begin with the magic number of RecordIO; fetch the files again"),
        (b"\0" * 40, "do not begin with the magic number"),
        (GOOD[:6], "do not begin with the magic number"),
        (GOOD[:-4], "record 0 of .*: it ends after 28 of 31 bytes"),
        (MAGIC + struct.pack("<I", (1 << 29) - 1) + b"short", "it ends after 5 of 536870911 bytes"),
        (part(0, b"too short"), "it has 9 bytes, expected a head of 24"),
        (part(0, struct.pack("<IfQQ", 1 << 31, 0, 0, 0)), "it has 24 bytes, expected 2147483648 labels in it"),
        (part(2, packed(0, b"x")), "its parts are out of order: kind 2 after 0 of them"),
        (part(3, packed(0, b"x")), "its parts are out of order: kind 3 after 0"),
        (part(5, packed(0, b"x")), "its parts are out of order: kind 5 after 0"),
        (part(1, packed(0, b"x")) + part(0, b"y"), "its parts are out of order: kind 0 after 1"),
        (part(1, packed(0, b"x")), "do not begin with the magic number"),
        (record(packed(0.5, b"x")), r"record 0 of .* has the label 0.5, expected a whole number from 0 on"),
        (record(packed(-1, b"x")), "has the label -1.0"),
        (record(packed(float("nan"), b"x")), "has the label nan"),
        (record(packed(float("inf"), b"x")), "has the label inf"),
        (record(packed(0, b"")), "holds 0 pictures, expected at least one"),
        (record(packed([4, 5], b"")), "holds 0 pictures, expected the 3 that record 0 names"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(data)
    (tmp_path / "train.idx").write_text("0\t0\n")
    with pytest.raises(ValueError, match=message):
        open_records(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("0\n", r"line 1 of .*train.idx is '0\\n', expected number and place of a record"),
        ("0\t0\nx\t4\n", r"line 2 of .*train.idx is 'x\\t4\\n'"),
        ("0\t-4\n", "expected number and place"),
        ("0\t" + "9" * 30, "expected number and place"),
        ("0\t²\n", "expected number and place"),
        ("0\t4\n", "its bytes at 4 do not begin"),
        ("0\t999999999\n", "its bytes at 999999999 do not begin"),
        ("", r"goes on after the last record of .*train.idx, at 0"),
        ("0\t0\n0\t40\n", "1 lines of .*train.idx repeat the number of another, expected one a record"),
        ("0\t0\n1\t0\n2\t0\n", "2 lines of .*train.idx repeat the place of another"),
    ],
)
def test_another_index_is_refused(index: str, message: str, tmp_path: Path) -> None:
    insightface(tmp_path, PICTURES, LABELS)
    (tmp_path / "train.idx").write_text(index, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        open_records(tmp_path)


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    insightface(tmp_path, PICTURES, LABELS)
    data = bytearray((tmp_path / "train.rec").read_bytes())
    data[4:8] = struct.pack("<I", 100)  # the length of record 0
    (tmp_path / "train.rec").write_bytes(data)
    with pytest.raises(ValueError, match=r"record 0 of .*: it ends at 108, after the next one begins, at 40"):
        open_records(tmp_path)


def test_a_set_that_lost_pictures_is_refused(tmp_path: Path) -> None:
    insightface(tmp_path, PICTURES, LABELS)
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join([*lines[:3], *lines[4:]]))
    with pytest.raises(ValueError, match="holds 4 pictures, expected the 5 that record 0 names; fetch the files again"):
        open_records(tmp_path)


def test_an_index_that_ends_early_is_refused(tmp_path: Path) -> None:
    insightface(tmp_path, PICTURES, LABELS)
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join(lines[1:-3]))
    with pytest.raises(ValueError, match=r"train.rec goes on after the last record of .*train.idx"):
        open_records(tmp_path)


@pytest.mark.parametrize("name", ["train.rec", "train.idx"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    (insightface(tmp_path, PICTURES, LABELS) / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is not there, expected train.rec and train.idx; check the"):
        open_records(tmp_path)


def test_damage_anywhere_is_an_error_or_other_bytes_but_never_more(tmp_path: Path) -> None:
    """One byte of every place is changed in turn."""
    insightface(tmp_path, [b"one", b"two!"], [0, 1])
    whole = (tmp_path / "train.rec").read_bytes()
    errors: list[Any] = []
    for place in range(len(whole)):
        (tmp_path / "train.rec").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = open_records(tmp_path)
            assert [len(each) for each in found.pictures()] == [3, 4]
        except ValueError as error:
            errors.append(error)
    assert len(errors) > 40  # of 5 magic numbers, 5 lengths, numbers of labels and labels

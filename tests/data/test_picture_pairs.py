"""Pictures of pairs are found by name in files, parquet and .bin, each once, and what is missing is named."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosify.data import PicturePairs, open_pairs, synthetic_pairs, write_pairs
from cosify.data.encoded_pairs import EncodedPairs
from tests.data.face_pictures import bin_file, files, parquet, png
from tests.data.folders import picture
from tests.data.test_pair_lists import LFW, cfp

NAMES = ["A_B_0001", "A_B_0002", "C_0001", "C_0003"]
PAIRS = "2\t1\nA_B 1 2\nA_B 1 C 3\nC 1 3\nC 1 A_B 2\n"


def seeds(found: PicturePairs, rows: Any) -> list[int]:
    """Return which of `picture(seed)` the rows hold."""
    known = {picture(seed, (8, 8)).tobytes(): seed for seed in range(10)}
    images = [image.convert("RGB").tobytes() for image in found.images.test["image"]]
    return [known[images[row]] for row in rows]


def check(found: PicturePairs) -> None:
    assert (seeds(found, found.first), seeds(found, found.second)) == ([0, 0, 2, 2], [1, 3, 3, 1])
    assert found.same.tolist() == [True, False, True, False]
    assert (found.num_folds, len(found), found.images.num_test) == (2, 4, 4)  # each picture once


@pytest.mark.parametrize("layout", ["folders", "flat", "deeper"])
def test_files_by_the_names_of_lfw(layout: str, tmp_path: Path) -> None:
    places = {"folders": "{0}/{1}.png", "flat": "{1}.png", "deeper": "lfw/{0}/{1}.png"}
    files(tmp_path, [places[layout].format(name.rsplit("_", 1)[0], name) for name in NAMES])
    (tmp_path / "pairs.txt").write_text(PAIRS)
    check(open_pairs(tmp_path, "lfw"))
    shutil.move(tmp_path / "pairs.txt", tmp_path.parent / "elsewhere.txt")
    check(open_pairs(str(tmp_path), str(tmp_path.parent / "elsewhere.txt")))


def test_parquet_by_image_id(tmp_path: Path) -> None:
    parquet(tmp_path, [*NAMES, "D_0001"])
    (tmp_path / "pairs.txt").write_text(PAIRS)
    check(open_pairs(tmp_path, "lfw"))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.txt"])
def test_paths_of_csv_are_relative_to_the_folder(name: str, tmp_path: Path) -> None:
    files(tmp_path / "faces", ["a.png", "b/c.png", "d.png"])
    (tmp_path / name).write_text("a.png,b/c.png,1\nd.png,a.png,0\n" * 2)
    found = open_pairs(tmp_path / "faces", str(tmp_path / name), num_folds=2)
    assert (seeds(found, found.first), seeds(found, found.second)) == ([0, 2, 0, 2], [1, 0, 1, 0])
    assert found.same.tolist() == [True, False] * 2


def test_cfp(tmp_path: Path) -> None:
    cfp(tmp_path)
    names = [f"Data/Images/{i:03}/{side}/01.jpg" for side in ("frontal", "profile") for i in range(1, 4)]
    files(tmp_path, names)
    for place in (tmp_path, tmp_path / "Protocol"):
        found = open_pairs(place, "cfp-fp")
        assert (seeds(found, found.first[:2]), seeds(found, found.second[:2])) == ([0, 1], [3, 5])
        assert (len(found), found.num_folds, found.images.num_test) == (20, 10, 4)


@pytest.mark.parametrize("kind", [".bin", ".parquet"])
def test_files_that_hold_pairs(kind: str, tmp_path: Path) -> None:
    pictures, same = [png(seed) for seed in (0, 1, 0, 3, 2, 3, 2, 1)], [True, False, True, False]
    file = bin_file(tmp_path / "x.bin", pictures, same)
    if kind == ".parquet":
        file = write_pairs(EncodedPairs(tuple(pictures), np.array(same)), tmp_path / "x.parquet")
    check(open_pairs(file, num_folds=2))
    assert open_pairs(file).num_folds == 10
    with pytest.raises(ValueError, match=r"pairs is 'lfw', but .* holds pairs of its own, expected none; drop --pairs"):
        open_pairs(file, "lfw")


def test_a_picture_with_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = bin_file(tmp_path / "x.bin", [png(seed) for seed in (0, 1, 2, 2)], [True, True])
    found = open_pairs(file)
    assert found.first[1] == found.second[1]
    assert "1 pairs hold one picture twice, such as pair 2; their cosine is 1" in caplog.text
    files(tmp_path, ["a.png", "b.png"])
    (tmp_path / "pairs.csv").write_text("a.png,b.png,1\na.png,a.png,1\n")
    with pytest.raises(ValueError, match=r"pair 2 of .* is 'a.png' with itself, expected two pictures"):
        open_pairs(tmp_path, str(tmp_path / "pairs.csv"), num_folds=2)
    (tmp_path / "pairs.csv").write_text("a.png,b.png,1\n./a.png,a.png,1\n")
    with pytest.raises(ValueError, match=r"pair 2 of .* is 'a.png' with itself, expected two pictures"):
        open_pairs(tmp_path, str(tmp_path / "pairs.csv"), num_folds=2)


@pytest.mark.parametrize("kind", ["files", "parquet"])
def test_missing_pictures_are_counted_and_named(kind: str, tmp_path: Path) -> None:
    names = [f"A_{i:04}" for i in range(1, 4)]
    if kind == "files":
        files(tmp_path, [f"{name}.png" for name in names])
    else:
        parquet(tmp_path, names)
    lines = [f"A {i} {i + 1}" for i in range(1, 15)] + [f"A {i} B 1" for i in range(1, 15)]
    (tmp_path / "pairs.txt").write_text("\n".join(["2 7", *lines[:7], *lines[14:21], *lines[7:14], *lines[21:]]))
    with pytest.raises(FileNotFoundError) as caught:
        open_pairs(tmp_path, "lfw")
    expected = "rows" if kind == "parquet" else "files"
    said = str(caught.value)
    assert said.startswith(f"13 of the 16 pictures of the list lfw are not in {tmp_path}: 'A_0004', 'A_0005', ")
    assert said.count("'") == 20
    assert f", ...; expected {expected} with these names; look for them" in said


def test_pictures_of_another_size(tmp_path: Path) -> None:
    pictures = [png(0), png(1), png(2), png(3, (8, 9))]
    message = "'second of pair 2' has 8x9 pixels and 'first of pair 1' has 8x8, expected one size: verification takes"
    with pytest.raises(ValueError, match=message):
        open_pairs(bin_file(tmp_path / "x.bin", pictures, [True, False]))
    files(tmp_path / "f", ["a.png"])
    (tmp_path / "f" / "b.png").write_bytes(png(1, (9, 9)))
    (tmp_path / "pairs.csv").write_text("a.png,b.png,1\nb.png,a.png,1\n")
    with pytest.raises(ValueError, match=r"picture 'b.png' has 9x9 pixels and 'a.png' has 8x8, expected one size"):
        open_pairs(tmp_path / "f", str(tmp_path / "pairs.csv"), num_folds=2)


def test_pictures_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"picture 'second of pair 1' cannot be read \(UnidentifiedImageError"):
        open_pairs(bin_file(tmp_path / "x.bin", [png(0), b"text", png(1), png(2)], [True, False]))


def test_folders_that_can_be_understood_in_two_ways(tmp_path: Path) -> None:
    files(tmp_path, [f"{name}.png" for name in NAMES])
    files(tmp_path / "copy", ["C_0001.jpg"])
    (tmp_path / "pairs.txt").write_text(PAIRS)
    with pytest.raises(ValueError, match=r"picture 'C_0001' is .*C_0001.png and .*C_0001.jpg, expected one file"):
        open_pairs(tmp_path, "lfw")
    parquet(tmp_path / "p", ["a", "b", "a"])
    (tmp_path / "p" / "pairs.txt").write_text(PAIRS)
    with pytest.raises(ValueError, match=r"image_id 'a' stands in two rows of .*p, expected names that differ"):
        open_pairs(tmp_path / "p", "lfw")
    parquet(tmp_path / "q", ["a"], column="name")
    (tmp_path / "q" / "pairs.txt").write_text(PAIRS)
    with pytest.raises(ValueError, match=r"have the columns \['image', 'name'\], expected 'image_id' among them"):
        open_pairs(tmp_path / "q", "lfw")


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    files(tmp_path, [f"{name}.png" for name in NAMES])
    with pytest.raises(
        ValueError, match=r"no list of pairs came for the folder .*, expected lfw, cfp-fp, cfp-ff, or a"
    ):
        open_pairs(tmp_path)
    with pytest.raises(ValueError, match=r"pairs is 'agedb', expected lfw, cfp-fp, cfp-ff, or a .txt or .csv file"):
        open_pairs(tmp_path, "agedb")
    with pytest.raises(FileNotFoundError, match=r"pairs.txt is not there, expected a list of pairs"):
        open_pairs(tmp_path, "lfw")
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv is not there, expected a list of pairs"):
        open_pairs(tmp_path, "nowhere.csv")
    with pytest.raises(FileNotFoundError, match=r"is no folder, .bin or .parquet file, expected one; check its name"):
        open_pairs(tmp_path / "nowhere", "lfw")
    (tmp_path / "pairs.txt").write_text(PAIRS)
    with pytest.raises(ValueError, match="folds is 5, but the list lfw says how many it has, expected none"):
        open_pairs(tmp_path, "lfw", num_folds=5)
    (tmp_path / "pairs.txt").write_text("1\nA_B 1 2\nA_B 1 C 3\n")
    with pytest.raises(ValueError, match="the list lfw is one fold, expected two or more: the threshold of each"):
        open_pairs(tmp_path, "lfw")


def test_synthetic_pairs() -> None:
    found = synthetic_pairs(num_folds=3, per_fold=4)
    labels = np.asarray(found.images.test["label"][:])
    assert np.array_equal(labels[found.first] == labels[found.second], found.same)
    assert found.same.reshape(3, 4).sum(axis=1).tolist() == [2, 2, 2]
    assert (found.first != found.second).all()


@pytest.mark.slow
@pytest.mark.skipif(not LFW.is_dir(), reason="../shared/data/lfw is not there")
def test_every_pair_of_lfw_has_its_pictures() -> None:
    found = open_pairs(LFW, "lfw")
    assert (len(found), found.images.num_test, found.num_folds) == (6000, 7701, 10)
    assert found.same.sum() == 3000

"""Lists of pairs: what each format says, and what is refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cosify.data import PairList, read_cfp_pairs, read_csv_pairs, read_lfw_pairs

LFW = Path(__file__).parents[3] / "shared" / "data" / "lfw"


def written(folder: Path, text: str) -> Path:
    file = folder / "pairs.txt"
    file.write_text(text, encoding="utf-8")
    return file


def rows(found: PairList) -> list[tuple[str, str, bool]]:
    return list(zip(found.first, found.second, found.same.tolist(), strict=True))


def test_lfw(tmp_path: Path) -> None:
    found = read_lfw_pairs(written(tmp_path, "2\t1\nA_B 1 4\nA_B\t1\tC\t2\nD\t10\t2\nD 3 A_B 4\n"))
    assert rows(found) == [
        ("A_B_0001", "A_B_0004", True),
        ("A_B_0001", "C_0002", False),
        ("D_0010", "D_0002", True),
        ("D_0003", "A_B_0004", False),
    ]
    assert (found.num_folds, len(found)) == (2, 4)
    one_fold = read_lfw_pairs(written(tmp_path, "1\nA 1 2\nA 1 B 2\n"))
    assert (one_fold.num_folds, one_fold.same.tolist()) == (1, [True, False])


@pytest.mark.skipif(not LFW.is_dir(), reason="../shared/data/lfw is not there")
def test_the_list_of_lfw() -> None:
    found = read_lfw_pairs(LFW / "pairs.txt")
    assert (len(found), found.num_folds) == (6000, 10)
    assert np.array_equal(found.same.reshape(10, 2, 300).all(axis=2), [[True, False]] * 10)
    assert found.first[0].rsplit("_", 1)[0] == found.second[0].rsplit("_", 1)[0]
    development = read_lfw_pairs(LFW / "pairsDevTest.txt")
    assert Counter(development.same.tolist()) == {True: 500, False: 500}


def cfp(folder: Path, kind: str = "FP") -> Path:
    protocol = folder / "Protocol"
    for name, side in (("F", "frontal"), ("P", "profile")):
        protocol.mkdir(exist_ok=True)
        lines = [f"{i} ../Data/Images/{i:03}/{side}/01.jpg" for i in range(1, 4)]
        (protocol / f"Pair_list_{name}.txt").write_text("\n".join(lines) + "\n")
    for fold in range(1, 11):
        place = protocol / "Split" / kind / f"{fold:02}"
        place.mkdir(parents=True)
        (place / "same.txt").write_text("1,1\n" if kind == "FP" else "1,2\n")
        (place / "diff.txt").write_text("2,3\n")
    return folder


def test_cfp(tmp_path: Path) -> None:
    found = read_cfp_pairs(cfp(tmp_path))
    assert (len(found), found.num_folds) == (20, 10)
    same = ("../Data/Images/001/frontal/01.jpg", "../Data/Images/001/profile/01.jpg", True)
    different = ("../Data/Images/002/frontal/01.jpg", "../Data/Images/003/profile/01.jpg", False)
    assert rows(found) == [same, different] * 10
    assert rows(read_cfp_pairs(tmp_path / "Protocol")) == rows(found)


def test_cfp_of_frontal_pictures(tmp_path: Path) -> None:
    found = read_cfp_pairs(cfp(tmp_path, "FF"), "FF")
    assert found.second[0] == "../Data/Images/002/frontal/01.jpg"
    with pytest.raises(FileNotFoundError, match=r"Split/FP/01/same.txt is not there, expected a list of pairs"):
        read_cfp_pairs(tmp_path)
    (tmp_path / "Protocol" / "Split" / "FF" / "03" / "diff.txt").write_text("2,9\n")
    with pytest.raises(ValueError, match=r"line 1 of .*FF/03/diff.txt is '2,9', expected two numbers of the lists"):
        read_cfp_pairs(tmp_path, "FF")


def test_csv(tmp_path: Path) -> None:
    found = read_csv_pairs(written(tmp_path, '"a, b.jpg",c.jpg,1\nd.jpg, e.jpg, False\n'), num_folds=1)
    assert rows(found) == [("a, b.jpg", "c.jpg", True), ("d.jpg", "e.jpg", False)]


def test_a_header_and_a_mark_of_the_byte_order_are_left_out(tmp_path: Path) -> None:
    for header in ("first,second,same", "First, Second, SAME"):
        (tmp_path / "pairs.csv").write_text(f"{header}\na.jpg,b.jpg,1\nsame,first,0\n", encoding="utf-8-sig")
        assert rows(read_csv_pairs(tmp_path / "pairs.csv", 1)) == [("a.jpg", "b.jpg", True), ("same", "first", False)]
    (tmp_path / "pairs.txt").write_text("1 1\nA 1 2\nA 1 B 1\n", encoding="utf-8-sig")
    assert rows(read_lfw_pairs(tmp_path / "pairs.txt"))[0] == ("A_0001", "A_0002", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected a list of pairs"),
        ("A 1 2\n", "begins with 'A 1 2', expected folds and pairs of each kind, such as '10 300'"),
        ("2 1\nA 1 2\nA 1 B 1\n", "has 2 pairs, expected 4: 2 folds of 1 pairs of one person and 1 of two"),
        ("1 1\nA 1 B 2\nA 1 B 1\n", "line 2 of .* is 'A 1 B 2', expected NAME I J: one person"),
        ("1 1\nA ² 2\nA 1 B 1\n", "line 2 of .* is 'A ² 2', expected NAME I J"),
        ("1 1\nA 1 2\nA x B 1\n", "line 3 of .* is 'A x B 1', expected NAME1 I NAME2 J: two people"),
        ("1 1\nA 1 2\n\nA 1 A 1\n", "pair 2 of .* is 'A_0001' with itself, expected two pictures"),
    ],
)
def test_lists_of_lfw_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_lfw_pairs(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "line 1 of .* is 'a,b', expected two pictures and 1 or 0: a.jpg,b.jpg,1"),
        ("a,b,yes\n", "line 1 of .* is 'a,b,yes', expected"),
        ("a,b,1\na,c,0\na,d,0\n", "has 3 pairs, expected a number that 2 equal folds share"),
        ("first,second,same\n", "has 0 pairs, expected a number that 2 equal folds share"),
        ("a,a,1\na,b,0\n", "pair 1 of .* is 'a' with itself"),
        ("a,b,1\n./b,a,0\n", "pair 2 of .*, 'b' and 'a', is said to show one person and two, expected one answer"),
    ],
)
def test_csv_that_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_csv_pairs(written(tmp_path, text), num_folds=2)


def test_repeated_pairs_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read_csv_pairs(written(tmp_path, "a,b,1\nb,a,1\nc,d,0\na,b,1\n"), num_folds=2)) == 4
    assert "has 2 pairs more than once; each time counts" in caplog.text


@pytest.mark.parametrize("num_folds", [0, -2])
def test_folds_that_are_none(num_folds: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"expected a number that {num_folds} equal folds share"):
        read_csv_pairs(written(tmp_path, "a,b,1\nc,d,0\n"), num_folds)


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.txt is not there, expected a list of pairs; check its name"):
        read_lfw_pairs(tmp_path / "nowhere.txt")
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"picture.jpg is not UTF-8 text"):
        read_csv_pairs(tmp_path / "picture.jpg")

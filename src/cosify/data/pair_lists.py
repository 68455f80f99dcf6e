"""Lists of pairs for verification, as LFW, CFP and plain CSV files give them."""

import csv
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosify.errors import InputError, NotFoundError

logger = logging.getLogger("cosify")
TRUE, FALSE = ("1", "true", "same"), ("0", "false", "different")
CFP_FOLDS = 10
HEADER = ["first", "second", "same"]


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of pictures, fold after fold.

    Attributes:
        first: [N], names of pictures.
        second: [N], the other picture of each pair.
        same: [N], whether a pair shows one person.
        num_folds: parts of the list, of equal length.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: NDArray[np.bool_]
    num_folds: int

    def __len__(self) -> int:
        return len(self.first)


def read_lfw_pairs(file: Path | str) -> PairList:
    """Read pairs.txt of LFW, or a list in its format: `NAME I J` for one person, `NAME1 I NAME2 J` for two.

    The first line says how many folds there are, and how many pairs of each kind in one; a lone number is one fold.

    Args:
        file: the list.

    Returns:
        Pairs of names such as `NAME_0001`: LFW's pictures without folder and ending.

    Raises:
        ValueError: for a line that is none of these, another number of lines, or a picture paired with itself.
        OSError: if it cannot be read.
    """
    header, *rows = _lines(Path(file))
    counts = header[1].split()
    if not 1 <= len(counts) <= 2 or not all(count.isdecimal() for count in counts):
        raise InputError(f"{file} begins with {header[1]!r}, expected folds and pairs of each kind, such as '10 300'")
    num_folds, size = (1, int(counts[0])) if len(counts) == 1 else (int(counts[0]), int(counts[1]))
    if num_folds < 1 or size < 1 or len(rows) != 2 * num_folds * size:
        raise InputError(
            f"{file} has {len(rows)} pairs, expected {2 * num_folds * size}: {num_folds} folds of {size} pairs of one"
            f" person and {size} of two, as its first line says"
        )
    pairs = []
    for row, (number, line) in enumerate(rows):
        words, same = line.split(), row // size % 2 == 0
        numbers = words[1::2] if not same else words[1:]
        if len(words) != (3 if same else 4) or not all(each.isdecimal() for each in numbers):
            expected = "NAME I J: one person" if same else "NAME1 I NAME2 J: two people"
            raise InputError(f"line {number} of {file} is {line!r}, expected {expected}")
        one, other = (words[0], words[0]) if same else (words[0], words[2])
        pairs.append((f"{one}_{int(numbers[0]):04}", f"{other}_{int(numbers[1]):04}", same))
    return _checked(pairs, num_folds, file)


def read_cfp_pairs(folder: Path | str, kind: Literal["FP", "FF"] = "FP") -> PairList:
    """Read the protocol of CFP: ten folds of frontal pictures with profiles, or with other frontal ones.

    Args:
        folder: its Protocol, or the one above.
        kind: `"FP"`, frontal with profile, or `"FF"`, frontal with frontal.

    Returns:
        Pairs of paths as the lists write them, relative to the Protocol folder.

    Raises:
        NotFoundError: a ValueError and a FileNotFoundError, if a file is missing.
        ValueError: for a line that is no pair, or a number that the lists of pictures lack.
    """
    protocol = Path(folder, "Protocol") if Path(folder, "Protocol").is_dir() else Path(folder)
    frontal = _cfp_pictures(protocol / "Pair_list_F.txt")
    others = frontal if kind == "FF" else _cfp_pictures(protocol / "Pair_list_P.txt")
    pairs = []
    for fold in range(1, CFP_FOLDS + 1):
        for name, same in (("same.txt", True), ("diff.txt", False)):
            file = protocol / "Split" / kind / f"{fold:02}" / name
            for number, line in _lines(file):
                one, _, other = (word.strip() for word in line.partition(","))
                if one not in frontal or other not in others:
                    raise InputError(
                        f"line {number} of {file} is {line!r}, expected two numbers of the lists of pictures"
                    )
                pairs.append((frontal[one], others[other], same))
    return _checked(pairs, CFP_FOLDS, protocol)


def read_csv_pairs(file: Path | str, num_folds: int = 10) -> PairList:
    """Read lines of two pictures and a flag, such as `a.jpg,b.jpg,1`.

    Args:
        file: of UTF-8; the flag is 1, true or same for one person, 0, false or different for two.  A first line
            `first,second,same` is left out.
        num_folds: that the lines are, one after the other.

    Raises:
        ValueError: for a line that is something else, folds of unequal length, or a picture paired with itself.
        OSError: if it cannot be read.
    """
    pairs = []
    for number, line in _lines(Path(file)):
        words = [word.strip() for word in next(csv.reader([line]))]
        flag = words[-1].lower()
        if number == 1 and [word.lower() for word in words] == HEADER:
            continue
        if len(words) != 3 or flag not in (*TRUE, *FALSE):
            raise InputError(f"line {number} of {file} is {line!r}, expected two pictures and 1 or 0: a.jpg,b.jpg,1")
        first, second = map(os.path.normpath, words[:2])  # one picture has one name
        pairs.append((first, second, flag in TRUE))
    return _checked(pairs, num_folds, file)


def _cfp_pictures(file: Path) -> dict[str, str]:
    """Return the path of each picture by its number."""
    found = {}
    for number, line in _lines(file):
        index, _, path = line.partition(" ")
        if not index.isdecimal() or not path.strip():
            raise InputError(f"line {number} of {file} is {line!r}, expected a number and a path")
        found[index] = path.strip()
    return found


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold something, with their numbers from 1."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"{file} is not there, expected a list of pairs; check its name") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text, expected a list of pairs") from error
    found = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise InputError(f"{file} is empty, expected a list of pairs")
    yield from found


def _checked(pairs: Sequence[tuple[str, str, bool]], num_folds: int, where: Path | str) -> PairList:
    known: dict[frozenset[str], bool] = {}
    for number, (one, other, is_same) in enumerate(pairs, 1):
        if one == other:
            raise InputError(f"pair {number} of {where} is {one!r} with itself, expected two pictures")
        if known.setdefault(frozenset((one, other)), is_same) != is_same:
            raise InputError(
                f"pair {number} of {where}, {one!r} and {other!r}, is said to show one person and two, expected one"
                " answer for a pair; correct the list"
            )
    if len(known) < len(pairs):
        logger.warning("%s has %d pairs more than once; each time counts", where, len(pairs) - len(known))
    if num_folds < 1 or not pairs or len(pairs) % num_folds:
        raise InputError(f"{where} has {len(pairs)} pairs, expected a number that {num_folds} equal folds share")
    first, second, same = zip(*pairs, strict=True)
    return PairList(first, second, np.array(same, dtype=bool), num_folds)

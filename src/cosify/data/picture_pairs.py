"""Pairs of pictures for verification, from a folder with a list of pairs, or a file that holds both.

A picture that stands in several pairs is one row.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosify.data.decode import size_in_file, undecoded
from cosify.data.encoded_pairs import EncodedPairs, read_pairs
from cosify.data.image_folder import find_images
from cosify.data.insightface_bin import read_insightface_bin
from cosify.data.pair_lists import PairList, read_cfp_pairs, read_csv_pairs, read_lfw_pairs
from cosify.data.sources import Splits, load_images, unlabelled
from cosify.errors import InputError, NotFoundError

FOLDS = 10  # of every published list
NAMED = 10  # missing pictures, at most, that a message names
NAME_COLUMN = "image_id"  # of pictures in parquet files
EXPECTED = "lfw, cfp-fp, cfp-ff, or a .txt or .csv file"
logger = logging.getLogger("cosify")


@dataclass(frozen=True, eq=False)
class PicturePairs:
    """Pairs of pictures, fold after fold, not decoded yet.

    Attributes:
        images: different pictures, as a test split without labels.
        first: [N], row of a picture of each pair.
        second: [N], that of the other one.
        same: [N], whether a pair shows one person.
        num_folds: parts of the list, of equal length.
    """

    images: Splits
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    num_folds: int

    def __len__(self) -> int:
        return len(self.same)


def open_pairs(data: Path | str, pairs: str | None = None, *, num_folds: int | None = None) -> PicturePairs:
    """Find the pictures of labelled pairs.

    Args:
        data: a folder of pictures (in folders below it, too), a folder with parquet files that have a column of images
            and one of their names, `image_id`, or a file that holds pairs: `.bin` of insightface, or `.parquet` of
            `cosify convert-bin`.
        pairs: the list, for a folder: `"lfw"`, its pairs.txt; `"cfp-fp"` or `"cfp-ff"`, its Protocol; or a file in
            LFW's format or of lines such as `a.jpg,b.jpg,1`.  Names in LFW's format are those of files without ending;
            paths of CSV are relative to `data`.
        num_folds: parts of a list that does not say how many it has, CSV, `.bin` and `.parquet`; None for 10.

    Raises:
        NotFoundError: a ValueError and a FileNotFoundError, if a file or pictures are missing; ten of them are named.
        ValueError: for a list with a wrong line, pictures that cannot be read or differ in size, one paired with
            itself, or arguments that contradict each other.
    """
    path = Path(data).expanduser()
    if path.is_file() and path.suffix in (".bin", ".parquet"):
        if pairs is not None:
            raise InputError(f"pairs is {pairs!r}, but {path} holds pairs of its own, expected none; drop --pairs")
        encoded = read_insightface_bin(path) if path.suffix == ".bin" else read_pairs(path)
        return _of_encoded(encoded, FOLDS if num_folds is None else num_folds, path)
    if not path.is_dir():
        raise NotFoundError(f"data {str(data)!r} is no folder, .bin or .parquet file, expected one; check its name")
    if pairs is None:
        raise InputError(f"no list of pairs came for the folder {path}, expected {EXPECTED}; name it with --pairs")
    listed, base = _read_list(pairs, path, num_folds)
    names = list(dict.fromkeys([*listed.first, *listed.second]))
    parquet = sorted(path.glob("*.parquet"))
    rows, places = _of_parquet(parquet) if parquet else _of_files(path, base, names)
    missing = [name for name in names if name not in places]
    if missing:
        shown = ", ".join(map(repr, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        raise NotFoundError(
            f"{len(missing)} of the {len(names)} pictures of the list {pairs} are not in {path}: {shown}; expected"
            f" {'rows' if parquet else 'files'} with these names; look for them, or name another folder"
        )
    images = unlabelled(rows.select([places[name] for name in names]).select_columns(["image"]), "image")
    _check_sizes(images, names)
    row_of = {name: row for row, name in enumerate(names)}
    first, second = (np.array([row_of[name] for name in part]) for part in (listed.first, listed.second))
    return PicturePairs(images, first, second, listed.same, listed.num_folds)


def synthetic_pairs(num_folds: int = FOLDS, per_fold: int = 10) -> PicturePairs:
    """Return pairs of the built-in synthetic images, half of them of one class, for a test that everything works."""
    images = load_images("synthetic")
    labels, random = np.asarray(images.test["label"][:]), np.random.default_rng(0)
    same = np.tile(np.arange(per_fold) < per_fold // 2, num_folds)
    first = random.integers(0, len(labels), len(same))
    others = [
        np.flatnonzero((labels == labels[row]) == flag) for row, flag in zip(first, same, strict=True)
    ]  # those of the same class, or of another
    second = [random.choice(rows[rows != row]) for rows, row in zip(others, first, strict=True)]
    return PicturePairs(images, first, np.array(second), same, num_folds)


def _read_list(pairs: str, folder: Path, num_folds: int | None) -> tuple[PairList, Path | None]:
    """Return the list and the folder that its paths are relative to; None if they are names."""
    protocol, file = folder / "Protocol" if (folder / "Protocol").is_dir() else folder, Path(pairs).expanduser()
    if pairs not in ("lfw", "cfp-fp", "cfp-ff") and file.suffix not in (".txt", ".csv"):
        raise InputError(f"pairs is {pairs!r}, expected {EXPECTED}; change --pairs")
    if file.suffix == ".csv" or (file.suffix == ".txt" and not _has_counts(file)):
        return read_csv_pairs(file, FOLDS if num_folds is None else num_folds), folder
    if num_folds is not None:
        raise InputError(
            f"folds is {num_folds}, but the list {pairs} says how many it has, expected none; drop --folds"
        )
    if pairs in ("cfp-fp", "cfp-ff"):
        return read_cfp_pairs(protocol, "FP" if pairs == "cfp-fp" else "FF"), protocol
    listed = read_lfw_pairs(folder / "pairs.txt" if pairs == "lfw" else file)
    if listed.num_folds < 2:
        raise InputError(
            f"the list {pairs} is one fold, expected two or more: the threshold of each comes from the others; use"
            " pairs.txt"
        )
    return listed, None


def _has_counts(file: Path) -> bool:
    """Return whether a list begins with one or two numbers, as LFW's do; also if it cannot be read, which is told."""
    try:
        words = file.read_text(encoding="utf-8-sig").split("\n", 1)[0].split()
    except (OSError, UnicodeDecodeError):
        return True
    return bool(words) and all(word.isdecimal() for word in words)


def _of_encoded(pairs: EncodedPairs, num_folds: int, file: Path) -> PicturePairs:
    from datasets import Dataset, Features, Image

    row_of = {image: row for row, image in enumerate(dict.fromkeys(pairs.images))}
    rows = np.array([row_of[image] for image in pairs.images])
    first, second = rows[::2], rows[1::2]
    twice = np.flatnonzero(first == second)
    if len(twice):
        logger.warning(
            "%s: %d pairs hold one picture twice, such as pair %d; their cosine is 1", file, len(twice), twice[0] + 1
        )
    cells = [{"bytes": image, "path": None} for image in row_of]
    images = unlabelled(Dataset.from_dict({"image": cells}, features=Features({"image": Image()})), "image")
    places = np.unique(rows, return_index=True)[1]
    _check_sizes(images, [f"{'second' if place % 2 else 'first'} of pair {place // 2 + 1}" for place in places])
    return PicturePairs(images, first, second, pairs.same, num_folds)


def _of_files(folder: Path, base: Path | None, names: Sequence[str]) -> tuple[Any, Mapping[str, int]]:
    """Return rows of files, and the row of each name that was found."""
    from datasets import Dataset, Features, Image

    found: dict[str, str] = {}
    if base is None:
        wanted = set(names)
        for file, _, _ in find_images(folder).images:
            name = os.path.splitext(os.path.basename(file))[0]
            if name in wanted and name in found:
                raise InputError(
                    f"picture {name!r} is {found[name]} and {file}, expected one file of that name; name the folder of"
                    " one of them"
                )
            found[name] = file
    else:
        paths = {name: os.path.normpath(base / name) for name in names}
        found = {name: file for name, file in paths.items() if os.path.isfile(file)}
    rows = Dataset.from_dict({"image": list(found.values())}, features=Features({"image": Image()}))
    return rows, {name: row for row, name in enumerate(found)}


def _of_parquet(files: Sequence[Path]) -> tuple[Any, Mapping[str, int]]:
    """Return the rows of parquet files, and the row of each name."""
    import glob

    from datasets import load_dataset

    from cosify.data.columns import find_image_column

    folder = files[0].parent
    try:
        rows = load_dataset("parquet", data_files=[glob.escape(str(file)) for file in files], split="train")
    except Exception as error:  # datasets raises errors of many types for damaged files, and files that differ
        raise InputError(
            f"the parquet files in {folder} cannot be read ({type(error).__name__}: {error}), expected files of images"
            " and names, alike; write them again, or move others away"
        ) from error
    column = find_image_column(rows, None, folder.name)
    if NAME_COLUMN not in rows.column_names:
        raise InputError(
            f"the parquet files in {folder} have the columns {rows.column_names}, expected {NAME_COLUMN!r} among them,"
            " the pictures' names in the list of pairs; rename the column"
        )
    found = rows[NAME_COLUMN][:]
    places = {name: row for row, name in enumerate(found)}
    if len(places) < len(found):
        twice = next(name for row, name in enumerate(found) if places[name] != row)
        raise InputError(f"{NAME_COLUMN} {twice!r} stands in two rows of {folder}, expected names that differ")
    return (rows if column == "image" else rows.rename_column(column, "image")), places


def _check_sizes(images: Splits, names: Sequence[str]) -> None:
    """Raise a ValueError unless all pictures have one size."""
    first: tuple[int, int] | None = None
    for name, cell in zip(names, undecoded(images.test, "image")["image"], strict=True):
        size = size_in_file(cell, f"picture {name!r}")
        first = size if first is None else first
        if size != first:
            raise InputError(
                f"picture {name!r} has {size[0]}x{size[1]} pixels and {names[0]!r} has {first[0]}x{first[1]}, expected"
                " one size: verification takes faces with the eyes at the same place; align and crop all alike"
            )

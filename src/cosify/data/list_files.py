"""Lists of images, one `path label` a line, as long-tailed data sets are published."""

import logging
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from cosify.data.folders import SPLIT_NAMES, TEST_NAMES
from cosify.data.image_folder import with_fingerprint
from cosify.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

NAMED = 10  # files, at most, that a message names
MOST_DIGITS = 7  # of a label: a larger one is a mistake, and a name for every class below it fills the memory
# Lines of the published lists: Liu et al. 2019 (ImageNet-LT, Places-LT), Kang et al. 2020 (iNaturalist 2018).
PUBLISHED = {
    "ImageNet_LT": {"train": 115_846, "val": 20_000, "test": 50_000},
    "Places_LT": {"train": 62_500, "val": 7_300, "test": 36_500},
    "iNaturalist18": {"train": 437_513, "val": 24_426},
}
logger = logging.getLogger("cosify")


class ListFiles(Mapping[str, "Dataset"]):
    """Splits of list files; the images of a split are looked for when it is asked for.

    Attributes:
        files: list file of each split.
        root: folder that relative paths start from.
    """

    def __init__(self, files: Mapping[str, Path], root: Path) -> None:
        self.files, self.root = files, root
        self._rows: dict[str, Dataset] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __contains__(self, split: object) -> bool:
        return split in self.files  # without looking for its images

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, split: str) -> "Dataset":
        if split not in self._rows:
            self._rows[split] = self._read(split)
        return self._rows[split]

    @cached_property
    def lines(self) -> Mapping[str, list[tuple[str, int, int]]]:
        """Path, label and number of each line of each list.

        Raises:
            ValueError: for a line that is none, an empty list, or a label that the training list lacks.
        """
        lines = {name: read_list(file) for name, file in self.files.items()}
        if "train" not in lines:
            return lines
        known = {label for _, label, _ in lines["train"]}
        for name, found in lines.items():
            unknown = [(number, label) for _, label, number in found if label not in known]
            if unknown:
                raise InputError(
                    f"{len(unknown)} lines of list {str(self.files[name])!r} have labels without training images, the"
                    f" first is line {unknown[0][0]} with label {unknown[0][1]}, expected labels of"
                    f" {self.files['train'].name}, which go up to {max(known)}; take them out"
                )
        return lines

    def paths(self, split: str) -> set[str]:
        """Return the paths of a list; one file has one path."""
        return {os.path.normpath(path) for path, _, _ in self.lines[split]}

    @cached_property
    def label_names(self) -> list[str]:
        """Name of each class up to the largest label: the folder, where each class has its own, else the number."""
        lines = (
            self.lines["train"] if "train" in self.lines else [line for each in self.lines.values() for line in each]
        )
        numbers = [str(label) for label in range(1 + max(label for _, label, _ in lines))]
        folders: dict[int, set[str]] = {}
        for path, label, _ in lines:
            folders.setdefault(label, set()).add(os.path.dirname(path))
        places = [place for found in folders.values() for place in found]
        if len(places) > len(folders) or len({*places}) < len(places) or len(places) < 2 or "" in places:
            return numbers
        try:
            above = os.path.commonpath(places)
        except ValueError:  # absolute paths beside relative ones
            return numbers
        named = {label: os.path.relpath(place, above or ".") for label, (place,) in folders.items()}
        names = [named.get(label, number) for label, number in enumerate(numbers)]
        return names if len({*names}) == len(names) else numbers

    def _read(self, split: str) -> "Dataset":
        from datasets import ClassLabel, Dataset, Features, Image

        lines = self.lines[split]
        images = [os.path.join(self.root, path) for path, _, _ in lines]
        features = Features({"image": Image(), "label": ClassLabel(names=self.label_names)})
        found = _found(images, self.files[split])
        rows = Dataset.from_dict({"image": images, "label": [label for _, label, _ in lines]}, features=features)
        return with_fingerprint(rows, zip(found, (label for _, label, _ in lines), strict=True))


def find_lists(data: str) -> ListFiles | None:
    """Return the list files that a name means, None if it means none.

    Args:
        data: `PREFIX` of PREFIX_train.txt, PREFIX_val.txt and PREFIX_test.txt, or a folder with train.txt and test.txt
            (or val.txt) and no folder beside them that is a split; `...@ROOT` says where the images lie, by default in
            the folder of the lists.

    Raises:
        ValueError: for a root that is no folder, lists that are not there, or the name of one list.
    """
    whole = Path(data).expanduser()
    if whole.is_dir():
        return _of_folder(whole)
    if whole.is_file() and whole.suffix == ".txt":
        raise InputError(
            f"data {data!r} is one list, expected what the names of all lists begin with, such as lists/Places_LT for"
            " lists/Places_LT_train.txt and lists/Places_LT_test.txt; lists/Places_LT:test is one split"
        )
    files = _lists(whole)
    if files:
        return _opened(files, whole.parent)
    if "@" not in data or "://" in data:
        return None
    prefix = without_root(data)
    whole, root = Path(prefix).expanduser(), data[len(prefix) + 1 :]
    files = _lists(whole) or _inside(whole)
    if not files:
        train, test = (f"{whole.name}_{name}.txt" for name in ("train", "test"))
        raise InputError(
            f"data {data!r} means the lists {train} and {test}, or train.txt and test.txt in a folder {whole.name},"
            " which are not there, expected lines 'path label' in them; check the path"
        )
    if not Path(root).expanduser().is_dir():
        raise InputError(f"data {data!r} has its images below {root!r}, which is no folder, expected one; check it")
    return _opened(files, Path(root).expanduser())


def without_root(data: str) -> str:
    """Return what lists begin with, without the `@ROOT` behind it; other names of data as they are."""
    whole = Path(data).expanduser()
    if "@" not in data or whole.exists() or _lists(whole):
        return data
    prefixes = [data[:place] for place, letter in enumerate(data) if letter == "@"]  # a path may have one, too
    paths = {prefix: Path(prefix).expanduser() for prefix in prefixes}
    return next((prefix for prefix, path in paths.items() if _lists(path) or _inside(path)), prefixes[0])


def _of_folder(folder: Path) -> ListFiles | None:
    inside, beside = _inside(folder), _lists(folder)
    is_lists = "train" in inside and any(name in inside for name in TEST_NAMES)
    other = any((folder / name).is_dir() for name in SPLIT_NAMES) or any(folder.glob("*.parquet"))
    if is_lists and not other:
        return _opened(inside, folder)
    if is_lists or beside:
        lists = inside if is_lists else beside
        logger.warning(
            "folder %s is read, not the lists %s; write %s@ROOT for these, ROOT being the folder of their images",
            *(folder, ", ".join(file.name for file in lists.values()), folder),
        )
    return None


def _lists(prefix: Path) -> dict[str, Path]:
    files = {name: prefix.with_name(f"{prefix.name}_{name}.txt") for name in SPLIT_NAMES} if prefix.name else {}
    return {name: file for name, file in files.items() if file.is_file()}


def _inside(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.txt" for name in SPLIT_NAMES if (folder / f"{name}.txt").is_file()}


def _opened(files: Mapping[str, Path], root: Path) -> ListFiles:
    lists = ListFiles(files, Path(os.path.abspath(root)))
    for name, file in files.items():
        published = PUBLISHED.get(file.stem.removesuffix(f"_{name}"), {}).get(name)
        if published is not None and published != len(lists.lines[name]):
            logger.warning(
                "list %s has %d images, the published list of that name %d", file, len(lists.lines[name]), published
            )
    for name in files:
        repeated = len(lists.lines[name]) - len(lists.paths(name))
        if repeated:
            logger.warning("%d lines of list %s repeat an image that stands above them", repeated, files[name])
        if "train" in files and name != "train":
            same = lists.paths("train") & lists.paths(name)
            if same:
                logger.warning("%d images of list %s are training images, such as %s", len(same), name, min(same))
    return lists


def read_list(file: Path) -> list[tuple[str, int, int]]:
    """Return path, label and line number of each image in a list; empty lines are left out.

    Raises:
        ValueError: if the list is no text or empty, or a line is not `path label` with a label from 0 on.
    """
    lines = []
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"list {str(file)!r} is no text in UTF-8 ({error}); write it again") from error
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        is_label = words[-1].isascii() and words[-1].isdecimal() and len(words[-1]) <= MOST_DIGITS
        if len(words) != 2 or not is_label:
            raise InputError(
                f"line {number} of list {str(file)!r} is {line!r}, expected 'path label' with a label from 0 on, of at"
                f" most {MOST_DIGITS} digits; mend it"
            )
        lines.append((words[0].strip(), int(words[1]), number))
    if not lines:
        raise InputError(f"list {str(file)!r} is empty, expected lines 'path label'; check the file")
    return lines


def _found(images: list[str], file: Path) -> list[tuple[str, int, int]]:
    """Return path, bytes and time of change (ns) of each image; an error counts those that are not there."""
    found, missing = [], []
    for image in images:
        try:
            status = os.stat(image)
        except OSError:
            status = None
        if status is None or not S_ISREG(status.st_mode):
            missing.append(image)
        else:
            found.append((image, status.st_size, status.st_mtime_ns))
    if missing:
        prefix = file.parent / file.stem.rpartition("_")[0]
        raise InputError(
            f"{len(missing)} of {len(images)} images of list {str(file)!r} are not there:"
            f" {', '.join(missing[:NAMED])}{', ...' if len(missing) > NAMED else ''}, expected files; say where they"
            f" lie as {prefix}@ROOT"
        )
    return found

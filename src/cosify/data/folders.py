"""From a user's folder to its splits, by what its names say; nothing is guessed."""

import glob
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosify.data.classes import share_classes
from cosify.data.columns import label_columns
from cosify.data.image_folder import METADATA, FoundImages, find_images, image_rows, is_image, with_fingerprint
from cosify.errors import InputError
from cosify.integrations.compat import fingerprint_of

if TYPE_CHECKING:
    from datasets import Features

VALIDATION_NAMES = ("validation", "valid", "val", "dev")
TEST_NAMES = ("test", *VALIDATION_NAMES)
SPLIT_NAMES = ("train", *TEST_NAMES)
# train.parquet, train-2.parquet; or train-00000-of-00002.parquet, also with the digest of older hub sets.
PARQUET = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?:-\d+(?:-of-(\d+))?)?(?:-[0-9a-f]{{16}})?\.parquet")
EXPECTED = "train.parquet and test.parquet, or train/CLASS/*.png and test/CLASS/*.png"
NAMED = 10  # files, at most, that a message names
logger = logging.getLogger("cosify")


class FolderSplits(dict[str, Any]):
    """The rows of each split, by its name.

    Attributes:
        left_out: number of files and folders that give no rows, by the split that they lie in and by their kind; those
            beside the splits stand under `"folder"`.
    """

    def __init__(self, rows: Mapping[str, Any], left_out: Mapping[str, Mapping[str, int]]) -> None:
        super().__init__(rows)
        self.left_out = {split: dict(counts) for split, counts in left_out.items() if counts}


def open_folder(
    folder: Path, *, streaming: bool = False, labelled: bool = False, label_column: str | None = None
) -> FolderSplits:
    """Open every split of a local folder; nothing else reads one.

    A split is `SPLIT.parquet` (or its shards) or the images below `SPLIT/`, for exactly the names in `SPLIT_NAMES`;
    nothing else of the folder is read, and a warning names what is left out.  A folder without splits, of images or of
    CLASS/*.png, is one split `"train"`: there, a folder that is called train or test is a class.

    Args:
        folder: that exists.
        streaming: give streams.
        labelled: raise if images do not lie in folders of their classes, unless a validation split has classes and the
            test split no folders at all; otherwise they are unlabelled, with a warning.
        label_column: column of labels that is asked for.

    Returns:
        The rows of each split, by its name.  Images have the column `image` and, if every one lies in the folder of its
        class, `label`; if metadata.csv, .jsonl or .parquet lies beside them, the columns that it says, unless none of
        them is a label and the images lie in folders of their classes.  Held-out splits number their classes as train
        does if train has them all.

    Raises:
        ValueError: if the folder holds no images, or can be understood in two ways, or files are damaged.
    """
    folder = Path(os.path.abspath(folder))
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    parquet, folders = _parquet_files(folder, entries), _split_folders(entries)
    if parquet and folders:
        raise InputError(
            f"folder {str(folder)!r} holds {parquet.popitem()[1][0].name} and {folders.popitem()[1].name}/, expected"
            " either parquet files or folders of images; move one of them away"
        )
    validation = sorted({*parquet, *folders} & {*VALIDATION_NAMES})
    if len(validation) > 1:
        raise InputError(
            f"folder {str(folder)!r} holds {' and '.join(validation)}, which are names of one validation split,"
            " expected one of them; move the others away"
        )
    left_out: dict[str, dict[str, int]] = {}
    if parquet:
        beside = _tell_left_out(folder, entries, {path for paths in parquet.values() for path in paths})
        return FolderSplits(share_classes(_parquet_rows(folder, parquet, streaming)), {"folder": beside})
    if folders:
        left_out["folder"] = _tell_left_out(folder, entries, {*folders.values()})
    found = {name: find_images(path) for name, path in (folders or {"train": folder}).items()}
    for files in found.values():
        if not files.images:
            holds = [path.name for path in (sorted(files.root.iterdir()) if folders else entries)][:NAMED]
            raise InputError(
                f"folder {str(files.root)!r} holds {holds}, expected {'images' if folders else EXPECTED}; arrange it so"
                " or name another folder"
            )
        files.tell_left_out()
    left_out |= {name: files.left_out for name, files in found.items()}
    rows = _described_rows(folder, found) if any(files.metadata for files in found.values()) else None
    if rows is not None and _only_beside_classes(rows, found, label_column):
        logger.warning(
            "folder %s: its metadata has no labels, only %s; it is left out, and the folders of the images count as"
            " classes",
            *(folder, ", ".join(name for name in next(iter(rows.values())).column_names if name != "image")),
        )
        rows = None
    if rows is None:
        validated = any(found[name].has_classes for name in validation)  # then a test split may hide its classes
        rows = share_classes(
            {
                name: image_rows(files, labelled=labelled and not (validated and name == "test" and files.is_flat))
                for name, files in found.items()
            }
        )
    else:
        for name, files in found.items():
            left_out[name] |= _tell_undescribed(rows[name], files)
    if streaming:
        rows = {name: split.to_iterable_dataset() for name, split in rows.items()}
    return FolderSplits(rows, left_out)


def _split_folders(entries: Sequence[Path]) -> dict[str, Path]:
    """Return the folders that are splits: they hold folders of classes, or no other folder lies beside them."""
    folders = [entry for entry in entries if entry.is_dir()]
    named = {folder.name: folder for folder in folders if folder.name in SPLIT_NAMES}
    holds_classes = any(
        inner.is_dir() and not inner.name.startswith(".") for folder in named.values() for inner in folder.iterdir()
    )
    return named if holds_classes or len(named) == len(folders) else {}


def _parquet_files(folder: Path, entries: Sequence[Path]) -> dict[str, list[Path]]:
    matches = [(path, match) for path in entries if (match := PARQUET.fullmatch(path.name)) and path.is_file()]
    splits: dict[str, list[Path]] = {}
    for name in SPLIT_NAMES:
        files = [(path, match[2]) for path, match in matches if match[1] == name]
        totals = {total for _, total in files}
        if len(totals) > 1:
            raise InputError(
                f"folder {str(folder)!r} holds {[path.name for path, _ in files][:NAMED]}, expected the"
                f" files of one set for the split {name!r}; move the others away"
            )
        total = totals.pop() if files else None
        if total is not None and int(total) != len(files):
            raise InputError(
                f"folder {str(folder)!r} holds {len(files)} of the {int(total)} files {name}-*-of-{total}.parquet,"
                " expected all of them; fetch the others, or rename what is there"
            )
        if files:
            splits[name] = [path for path, _ in files]
    return splits


def _tell_left_out(folder: Path, entries: Sequence[Path], read: set[Path]) -> dict[str, int]:
    """Warn of folders, parquet files, images and metadata beside what is read, and return how many there are."""
    others = [entry for entry in entries if entry not in read]
    others = [
        entry
        for entry in others
        if entry.suffix == ".parquet" or is_image(entry.name) or entry.name in METADATA or entry.is_dir()
    ]
    if others:
        names = [other.name for other in others]
        logger.warning(
            "folder %s: %s are read, %s%s left out",
            *(folder, ", ".join(sorted(path.name for path in read)), ", ".join(names[:NAMED])),
            " is" if len(names) == 1 else f" and {len(names) - NAMED} more are" if len(names) > NAMED else " are",
        )
    return {"beside the splits": len(others)} if others else {}


def _parquet_rows(folder: Path, files: Mapping[str, Sequence[Path]], streaming: bool) -> dict[str, Any]:
    from datasets import load_dataset

    rows = {}
    types = {name: _types(paths) for name, paths in files.items()}
    first = next(iter(types.values()))
    try:
        for name, paths in files.items():
            escaped = [glob.escape(str(path)) for path in paths]  # datasets takes names for patterns
            rows[name] = load_dataset(
                "parquet",
                data_files={name: escaped},
                split=name,
                features=_in_types_of(first, types[name]),
                streaming=streaming,
            )
    except Exception as error:  # datasets raises errors of many types for damaged files and empty splits
        raise _damaged(folder, "parquet", error) from error
    return rows


def _types(paths: Sequence[Path]) -> "Features":
    """Return the column types of a split; all files must agree on the classes, as datasets reads the first alone."""
    from datasets import ClassLabel

    first, *others = (_types_of_file(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        for column, kind in first.items():
            if (
                isinstance(kind, ClassLabel)
                and isinstance(other.get(column), ClassLabel)
                and other[column].names != kind.names
            ):
                raise InputError(
                    f"files {paths[0].name} and {path.name} of one split name the classes of column {column!r}"
                    f" differently, {kind.names[:NAMED]} and {other[column].names[:NAMED]}, expected the same names in"
                    " the same order; write them again"
                )
    return first


def _types_of_file(path: Path) -> "Features":
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]
    from datasets import Features

    try:
        return Features.from_arrow_schema(pq.read_schema(path))
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:  # of the file, and of datasets' notes in it
        raise InputError(
            f"file {str(path)!r} cannot be read as parquet ({type(error).__name__}: {error}), expected a whole file;"
            " write it again"
        ) from error


def _in_types_of(train: "Features", own: "Features") -> "Features":
    """Return types with own classes, and else those of train: files may lack the notes of datasets on types."""
    from datasets import ClassLabel, Features

    return Features(
        {name: kind if isinstance(kind, ClassLabel) else train.get(name, kind) for name, kind in own.items()}
    )


def _described_rows(folder: Path, found: Mapping[str, FoundImages]) -> dict[str, Any]:
    """Return rows as the metadata files beside the images describe them."""
    from datasets import load_dataset

    files = {name: [glob.escape(path) for path in each.metadata] for name, each in found.items()}
    bare = [name for name, paths in files.items() if not paths]
    if bare:
        raise InputError(
            f"folder {str(folder)!r} has metadata for some splits and none for {bare}, expected it for all or none;"
            " write it, or move it away"
        )
    try:
        rows = load_dataset("imagefolder", data_files=files)
    except Exception as error:  # as above
        raise _damaged(folder, "images with metadata", error) from error
    return {name: with_fingerprint(split, [fingerprint_of(split), *found[name].images]) for name, split in rows.items()}


def _only_beside_classes(rows: Mapping[str, Any], found: Mapping[str, FoundImages], label_column: str | None) -> bool:
    """Return whether the metadata have no labels, and the folders of the images have: captions, say."""
    has_labels = any(label_columns(split) or label_column in split.column_names for split in rows.values())
    return not has_labels and all(files.has_classes for files in found.values())


def _tell_undescribed(rows: Any, files: FoundImages) -> dict[str, int]:
    """Warn of images that the metadata do not name, and return how many there are."""
    from datasets import Image

    named: set[str] = set()
    for column in (column for column, kind in rows.features.items() if isinstance(kind, Image)):
        cells = rows.select_columns([column]).cast_column(column, Image(decode=False))[column]
        named |= {os.path.normpath(cell["path"]) for cell in cells if cell is not None and cell["path"] is not None}
    unnamed = [path for path, _, _ in files.images if os.path.normpath(path) not in named]
    if unnamed:
        logger.warning(
            "folder %s: %d of %d images are not named in the metadata and are left out, such as %s",
            *(files.root, len(unnamed), len(files.images), unnamed[0]),
        )
    return {"images not in the metadata": len(unnamed)} if unnamed else {}


def _damaged(folder: Path, kind: str, error: Exception) -> InputError:
    return InputError(
        f"folder {str(folder)!r} cannot be loaded as {kind} ({type(error).__name__}: {error}), expected whole files and"
        " at least one image in every split; check its files"
    )

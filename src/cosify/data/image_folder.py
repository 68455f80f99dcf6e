"""From a folder of images to rows: the class of an image is the name of the folder that it lies in."""

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosify.data.classes import normal_names
from cosify.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of datasets' imagefolder
logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class FoundImages:
    """What lies below a folder.

    Attributes:
        root: the folder.
        images: path, bytes and time of change (ns) of each image, in the order of the paths.
        metadata: files that describe images.
        others: files that are no images by their extension.
        empty: folders without images in them.
        hidden: files and folders whose names begin with a dot; nothing else reads them.
    """

    root: Path
    images: list[tuple[str, int, int]] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    @property
    def has_classes(self) -> bool:
        """Whether all images lie in folders of classes beside each other."""
        return not _why_no_classes(str(self.root), [path for path, _, _ in self.images])

    @property
    def is_flat(self) -> bool:
        """Whether all images lie in the folder itself."""
        return all(os.path.dirname(path) == str(self.root) for path, _, _ in self.images)

    @property
    def left_out(self) -> dict[str, int]:
        """Number of files and folders that give no rows, by their kind; kinds without any are not there."""
        kinds = {"hidden": self.hidden, "no images by their extension": self.others, "empty folders": self.empty}
        return {kind: len(names) for kind, names in kinds.items() if names}

    def tell_left_out(self) -> None:
        """Warn of files and folders that give no rows."""
        if self.others:
            logger.warning(
                "folder %s: %d files that are no images by their extension are left out, such as %s",
                *(self.root, len(self.others), self.others[0]),
            )
        if self.empty:
            logger.warning(
                "folder %s: %d folders without images are left out, such as %s",
                *(self.root, len(self.empty), self.empty[0]),
            )


def find_images(root: Path) -> FoundImages:
    """Return the images below a folder, symbolic links followed.

    Raises:
        OSError: if a folder cannot be read, or a link leads nowhere.
    """
    found = FoundImages(root)
    _visit(str(root), frozenset(), found)
    found.images.sort()
    return found


def _visit(folder: str, above: frozenset[str], found: FoundImages) -> None:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it lies in, whose images are found already
        return
    before = len(found.images)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                found.hidden.append(entry.path)
            elif entry.is_dir():
                _visit(entry.path, above | {real}, found)
            elif is_image(entry.name):
                status = entry.stat()
                found.images.append((entry.path, status.st_size, status.st_mtime_ns))
            else:
                (found.metadata if entry.name in METADATA else found.others).append(entry.path)
    if len(found.images) == before:
        found.empty.append(folder)


def is_image(name: str) -> bool:
    """Return whether Pillow opens files of this extension."""
    return os.path.splitext(name)[1].lower() in _extensions()


@cache
def _extensions() -> frozenset[str]:
    from PIL import Image

    return frozenset(extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def image_rows(found: FoundImages, *, labelled: bool) -> "Dataset":
    """Return one row for each image, with a label if all lie in folders of classes beside each other.

    Args:
        found: at least one image.
        labelled: raise an error if they do not.  Otherwise such rows have no label, and a warning says why, unless
            there are no folders at all.
    """
    from datasets import ClassLabel, Dataset, Features, Image

    paths = [path for path, _, _ in found.images]
    columns: dict[str, Any] = {"image": paths}
    features: dict[str, Any] = {"image": Image()}
    reason = _why_no_classes(str(found.root), paths)
    if not reason:
        places = sorted({os.path.dirname(path) for path in paths})
        names = normal_names([os.path.basename(place) for place in places], f"folder {str(found.root)!r}")
        features["label"] = ClassLabel(names=sorted(names))
        name_of = dict(zip(places, names, strict=True))
        columns["label"] = [name_of[os.path.dirname(path)] for path in paths]
    elif labelled:
        raise InputError(
            f"{reason}, expected every image in the folder of its class, CLASS/*.png, and that below train/ or test/ if"
            " there are two splits; move it there"
        )
    elif not found.is_flat:
        logger.warning("%s: the images of %s count as unlabelled", reason, found.root)
    return with_fingerprint(Dataset.from_dict(columns, features=Features(features)), found.images)


def _why_no_classes(root: str, paths: Iterable[str]) -> str:
    """Return why images have no classes; an empty text if they have."""
    example = {os.path.dirname(path): path for path in paths}
    if root in example:
        return f"image {example[root]!r} lies in no folder of a class"
    parents = {os.path.dirname(place): path for place, path in sorted(example.items())}
    if len(parents) > 1:
        one, other, *_ = parents.values()
        return f"images {one!r} and {other!r} lie in folders that are not beside each other"
    return ""


def with_fingerprint(rows: "Dataset", files: Iterable[Any]) -> "Dataset":
    """Return rows whose fingerprint follows from their files and columns; their features are cached under it.

    Args:
        rows: of paths.
        files: anything that changes when they do.
    """
    from datasets import Dataset

    digest = hashlib.sha256(repr(rows.features).encode())
    for file in files:
        digest.update(repr(file).encode())
    return Dataset(rows.data, info=rows.info, split=rows.split, fingerprint=digest.hexdigest()[:16])

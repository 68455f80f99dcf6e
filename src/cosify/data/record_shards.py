"""Write the pictures of a record file to parquet shards, as the hub names them."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cosify.data.decode import size_in_file
from cosify.data.recordio import RecordFile
from cosify.errors import InputError

SHARD_BYTES = 500_000_000
ROWS_AT_ONCE = 1000
logger = logging.getLogger("cosify")


def num_classes(records: RecordFile) -> int:
    """Return C: labels are 0 to C - 1.  A warning counts those without pictures.

    Raises:
        ValueError: if most of the labels up to the largest are not in use, so that it cannot be right.
    """
    largest, used = int(records.labels.max()), len(np.unique(records.labels))
    if largest >= 2 * used:
        raise InputError(
            f"labels of {records.file} reach {largest}, but only {used} of them are in use, expected 0 to C - 1; fetch"
            " the files again"
        )
    if used <= largest:
        logger.warning("%s: %d of %d classes have no picture", records.file, largest + 1 - used, largest + 1)
    return largest + 1


def write_shards(records: RecordFile, folder: Path, *, show_progress: bool = False) -> list[Path]:
    """Write train-00000-of-000NN.parquet and so on: `image`, an image of datasets, and `label`, a ClassLabel.

    One group of a thousand rows is in memory at a time; the pictures' files are stored as they are.

    Args:
        records: of `open_records`.
        folder: an empty one.
        show_progress: draw a bar.

    Returns:
        The files, each of about 500 MB.

    Raises:
        ValueError: as `num_classes`, or for a picture that Pillow does not know.
        OSError: if the disk is full.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]
    from datasets import ClassLabel, Features, Image
    from rich.progress import track

    names = [str(label) for label in range(num_classes(records))]
    schema = Features({"image": Image(), "label": ClassLabel(names=names)}).arrow_schema
    num_shards = min(len(records), -(-records.file.stat().st_size // SHARD_BYTES))
    progress = track(records.pictures(), "pictures", len(records), disable=not show_progress, transient=True)
    pictures, files = enumerate(progress, 1), []
    for shard, rows in enumerate(np.array_split(records.labels, num_shards)):
        files.append(folder / f"train-{shard:05}-of-{num_shards:05}.parquet")
        with pq.ParquetWriter(files[-1], schema, compression="none") as writer:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                labels = rows[start : start + ROWS_AT_ONCE]
                writer.write_table(pa.table({"image": _cells(pictures, len(labels)), "label": labels}, schema=schema))
    return files


def _cells(pictures: Iterator[tuple[int, bytes]], count: int) -> list[dict[str, Any]]:
    cells = []
    for number, picture in islice(pictures, count):
        cells.append({"bytes": picture, "path": None})
        size_in_file(cells[-1], f"picture {number}")
    return cells

"""Pairs of encoded pictures in a parquet file, one row a pair, as `cosify convert-bin` writes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosify.errors import InputError
from cosify.files import written_aside

if TYPE_CHECKING:
    from datasets import Features

COLUMNS = ("first", "second", "same")
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Pairs of pictures as files hold them.

    Attributes:
        images: [2 N] files of pictures, such as JPEG; those of pair i are 2 i and 2 i + 1.
        same: [N], whether a pair shows one person.
    """

    images: tuple[bytes, ...]
    same: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.same)


def write_pairs(pairs: EncodedPairs, file: Path | str) -> Path:
    """Write pairs to a parquet file: the columns `first` and `second`, both images of datasets, and `same`.

    Args:
        pairs: in the order of their folds.
        file: appears whole; what it holds is replaced.

    Returns:
        The file.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    path, schema = Path(file), _features().arrow_schema
    with written_aside(path) as aside, pq.ParquetWriter(aside, schema, compression="none") as writer:
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(pairs))
            cells = [{"bytes": image, "path": None} for image in pairs.images[2 * start : 2 * stop]]
            columns = {"first": cells[::2], "second": cells[1::2], "same": pairs.same[start:stop].tolist()}
            writer.write_table(pa.table(columns, schema=schema))
    return path


def read_pairs(file: Path | str) -> EncodedPairs:
    """Read what `write_pairs` wrote.

    Raises:
        ValueError: if it is no parquet file, has other columns, or a cell is empty.
        OSError: if it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kinds = pq.read_schema(file)
        known = _features().arrow_schema
        if any(name not in kinds.names or kinds.field(name).type != known.field(name).type for name in COLUMNS):
            raise InputError(
                f"{file} has the columns {kinds.names}, expected {', '.join(COLUMNS)}: two images and a flag; write it"
                " with cosify convert-bin"
            )
        table = pq.read_table(file, columns=list(COLUMNS))
    except pa.ArrowException as error:
        raise InputError(
            f"{file} cannot be read as parquet ({error}), expected a whole file; write it again"
        ) from error
    first, second, same = (table.column(name).to_pylist() for name in COLUMNS)
    images = [_bytes_of(cell, file) for pair in zip(first, second, strict=True) for cell in pair]
    if not same or None in same:
        raise InputError(f"{file} has {len(same)} pairs, {same.count(None)} without a flag, expected a flag for each")
    return EncodedPairs(tuple(images), np.array(same, dtype=bool))


def _features() -> "Features":
    from datasets import Features, Image, Value

    return Features({"first": Image(), "second": Image(), "same": Value("bool")})


def _bytes_of(cell: dict[str, Any] | None, file: Path | str) -> bytes:
    content = None if cell is None else cell["bytes"]
    if not content:
        raise InputError(f"{file} holds a pair without a picture's bytes, expected two; write it again")
    found: bytes = content
    return found

"""Convert a .bin of insightface to parquet; nothing of it is run.

    cosify convert-bin agedb_30.bin agedb_30.parquet

Such a file is a Python pickle, which may name any program code; nothing but its pictures and flags is read.  The
parquet file has one row a pair: the pictures `first` and `second`, as they are, and `same`.  cosify verify reads it,
and datasets.load_dataset("parquet", data_files=...) does.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from cosify.console import Command, set_up_logging
from cosify.errors import InputError
from cosify.settings import flag

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class ConvertBinArguments:
    """Settings."""

    file: str = flag("", "The .bin file.")
    output: str = flag("", "The .parquet file to write.")
    overwrite: bool = flag(False, "Replace an earlier result of this command. Default: refuse.")


def main(args: ConvertBinArguments) -> None:
    """Read, check, write."""
    from cosify.data import read_insightface_bin, read_pairs, write_pairs
    from cosify.data.decode import size_in_file

    set_up_logging()
    output = Path(args.output)
    if not args.file or output.suffix != ".parquet":
        raise InputError(
            f"file is {args.file!r} and output {args.output!r}, expected the names of a .bin and of a .parquet file;"
            " write cosify convert-bin FILE.bin OUT.parquet"
        )
    if output.exists():
        if not args.overwrite:
            raise FileExistsError(f"{output} exists, expected a new file; choose another, or pass --overwrite")
        read_pairs(output)  # an error, if it is something else than this command writes
    pairs = read_insightface_bin(args.file)
    sizes = {
        size_in_file({"bytes": image, "path": None}, f"picture {number % 2 + 1} of pair {number // 2 + 1}")
        for number, image in enumerate(pairs.images)
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_pairs(pairs, output)
    logger.info(
        "%s: %d pairs, %d of one person; pictures of %s pixels",
        *(output, len(pairs), pairs.same.sum(), " and ".join(f"{width}x{height}" for width, height in sorted(sizes))),
    )


COMMAND = Command(main, ConvertBinArguments, __doc__, words=("file", "output"))

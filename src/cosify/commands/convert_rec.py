"""Convert train.rec of insightface to parquet, for every command.

    cosify convert-rec faces_webface_112x112 webface

The first folder holds train.rec and train.idx, of MXNet's RecordIO; mxnet is not needed.  The second one gets
train-00000-of-000NN.parquet, with the pictures as they are and the people as classes.  Only a thousand pictures are in
memory at a time, so that the sets with millions of them take little.  Train on webface:train.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from cosify.console import Command, set_up_logging
from cosify.settings import flag

OWN = ("train-*-of-*.parquet",)
logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class ConvertRecArguments:
    """Settings."""

    folder: str = flag("", "Folder of train.rec and train.idx.")
    output: str = flag("", "Folder to write.")
    overwrite: bool = flag(False, "Replace an earlier result of this command. Default: refuse.")


def main(args: ConvertRecArguments) -> None:
    """Read, check, write."""
    from rich import get_console

    from cosify.data.record_shards import write_shards
    from cosify.data.recordio import open_records
    from cosify.folders import new_folder_beside, put_in_place, remove_own

    set_up_logging()
    output = Path(args.output)
    _check_replaceable(output, overwrite=args.overwrite)
    records = open_records(args.folder)
    new = new_folder_beside(output)
    try:
        files = write_shards(records, new, show_progress=get_console().is_terminal)
        _check_replaceable(output, overwrite=args.overwrite)
        old = put_in_place(new, output)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if old is not None:
        remove_own(old, OWN)
    people = len(set(records.labels.tolist()))
    logger.info("%s: %d pictures of %d people in %d files", output, len(records), people, len(files))


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Raise unless a folder is new, empty, or holds nothing but what this command wrote and may replace."""
    from cosify.folders import foreign_files

    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FileExistsError(f"{folder} is a file or link, expected a folder to write; choose another")
    foreign = foreign_files(folder, OWN) if folder.exists() else []
    if foreign:
        raise FileExistsError(f"{folder} holds {foreign[:5]}, expected a new or empty folder; choose another")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} holds an earlier result; choose another folder, or pass --overwrite")


COMMAND = Command(main, ConvertRecArguments, __doc__, words=("folder", "output"), needed=("folder", "output"))

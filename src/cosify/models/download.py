"""Refuse downloaded weights that are not those of the hub."""

import re
from pathlib import Path

from cosify.files import sha256_of


def check_download(file: Path) -> None:
    """Compare weights in the hub's cache with their sha256, the name of the file that a snapshot links to.

    huggingface_hub 2.4 compares sizes alone.  Where the cache holds copies instead of links, as on Windows without
    developer mode, nothing can be compared.

    Args:
        file: path in a snapshot; a file of one's own passes.

    Raises:
        OSError: if the file was damaged on its way or on the disk.
    """
    blob = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) is None:
        return
    found = sha256_of(blob)
    if found != blob.name:
        raise OSError(
            f"the weights {file} were damaged: {blob} has the sha256 {found}, expected that of its name;"
            " delete that file and download it again"
        )

"""Downloaded weights are those that the hub has, or they are refused."""

import hashlib
import re
from pathlib import Path

CHUNK = 1 << 24  # bytes


def check_download(file: object) -> None:
    """Compare weights in the hub's cache with their sha256, which names the file that a snapshot links to.

    huggingface_hub 2.4 compares sizes alone.  Where the cache holds copies instead of links, as on Windows without
    developer mode, nothing can be compared.

    Args:
        file: path in a snapshot; anything else, such as None or a file of one's own, passes.

    Raises:
        OSError: if the file was damaged on its way or on the disk.
    """
    blob = Path(file).resolve() if isinstance(file, str) else Path()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) is None:
        return
    found = hashlib.sha256()
    with blob.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            found.update(chunk)
    if found.hexdigest() != blob.name:
        raise OSError(
            f"the weights {file} were damaged: {blob} has the sha256 {found.hexdigest()}, expected that of its name;"
            " delete that file and download it again"
        )

"""Downloaded weights are those that the hub has, or they are refused."""

import hashlib
import re
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

CHUNK = 1 << 24  # bytes


def check_download(repo_id: str, revision: str | None = None, cache_dir: Any = None) -> None:
    """Compare the weights in the hub's cache with their sha256, which names the cached file.

    huggingface_hub 2.4 compares sizes alone.  Where the cache holds copies instead of links, as on Windows without
    developer mode, nothing can be compared.

    Args:
        repo_id: `OWNER/NAME`.
        revision: branch, tag or commit; None for main.
        cache_dir: of the hub; None for its default.

    Raises:
        OSError: if the file was damaged on its way or on the disk.
    """
    file = try_to_load_from_cache(repo_id, "model.safetensors", cache_dir=cache_dir, revision=revision)
    if not isinstance(file, str):
        return
    blob = Path(file).resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) is None:
        return
    found = hashlib.sha256()
    with blob.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            found.update(chunk)
    if found.hexdigest() != blob.name:
        raise OSError(
            f"the weights of {repo_id} were damaged: {blob} has the sha256 {found.hexdigest()}, expected that of its"
            " name; delete the file and download it again"
        )

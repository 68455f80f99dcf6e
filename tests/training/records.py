"""What a run recorded, without what differs between two runs that are equal."""

from pathlib import Path
from typing import Any

from cosify.training import read_metrics

TIMES = ("seconds", "images_per_second", "waiting_share")


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Return the records of epochs and of evaluations between, without times."""
    found = read_metrics(folder) + read_metrics(folder, "step")
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]

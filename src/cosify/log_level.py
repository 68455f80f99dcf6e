"""How much cosify logs: the main process tells what it does, the others report errors alone."""

import logging
import os


def set_log_level() -> None:
    """Set the level of the logger `cosify` by `RANK`, which launchers set before a process starts."""
    is_main = os.environ.get("RANK", "0") == "0"
    logging.getLogger("cosify").setLevel(logging.INFO if is_main else logging.ERROR)

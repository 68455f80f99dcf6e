"""What a folder's config.json says: whether it is a run's, and the `cosify` key of a saved model's."""

import json
from pathlib import Path
from typing import Any

from cosify.errors import InputError, NotFoundError
from cosify.heads import HeadSpec
from cosify.models.binding import CONFIG

RUN_MARK = "cosify_run"  # key of config.json that marks the folder of a run


def read_config(file: str | Path) -> dict[str, Any]:
    """Return the contents of a config.json.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not a JSON object.
    """
    file = Path(file)
    if not file.is_file():
        raise NotFoundError(
            f"{file} does not exist, expected the config.json of a saved model; check the folder, and that the model"
            " comes before the data"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # JSONDecodeError, other text than UTF-8, a number of 5000 digits
        raise InputError(f"{file} is not JSON ({error}), expected the config.json of a saved model") from error
    if not isinstance(config, dict):
        raise InputError(f"{file} holds a {type(config).__name__}, expected a JSON object")
    return config


def is_run(folder: str | Path) -> bool:
    """Return whether a folder's config.json is that of a run."""
    try:
        return RUN_MARK in read_config(Path(folder) / CONFIG)
    except (OSError, InputError):
        return False


def published_spec(file: str | Path) -> HeadSpec | None:
    """Return the head that a config.json describes, None for a model without a cosine head.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file or its `cosify` key is damaged.
    """
    config = read_config(file)
    return HeadSpec.from_config(config["cosify"], str(file)) if "cosify" in config else None

"""Tests are offline and use one thread for each process: two workers that share two cores slow each other tenfold.

What they write is not flushed to the disk, which takes long and helps where the power goes off, which no test sees.
"""

import logging
import os
from collections.abc import Iterator

import pytest

from tests.warm import shared

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")  # read once, at import
os.fsync = lambda fd: None


@pytest.fixture(scope="module", autouse=True)
def level_of_logging() -> Iterator[None]:
    """Undo at the end of a module what a script that ran in this process set."""
    loggers = [logging.getLogger(name) for name in ("cosify", "cosify.models", "cosify.training")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def pytest_configure(config: pytest.Config) -> None:
    """Let the workers share the interpreters that they start programs with."""
    if not hasattr(config, "workerinput"):
        servers = shared()
        servers.__enter__()
        config.add_cleanup(lambda: servers.__exit__(None, None, None))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders of the longest tests, or a worker would be alone with the last of them.

    With --dist worksteal each worker has a part of this order, so that what a module shares is made once.
    """
    import torch  # not above: the process that starts the workers runs no test

    torch.set_num_threads(1)
    items.sort(key=lambda item: item.path.parts, reverse=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew")

"""What `pip install cosify` leaves out, and the one error that says how to get it."""

from importlib.util import find_spec

from cosify.errors import InputError

# Packages of the extra `lab` in pyproject.toml, by the names that they are imported by.
LAB = (
    "accelerate",
    "datasets",
    "filelock",
    "jinja2",
    "matplotlib",
    "numpy",
    "PIL",
    "rich",
    "sklearn",
    "torchvision",
    "transformers",
    "yaml",
)


class MissingExtraError(InputError, ImportError):
    """A package that the feature in use needs is not installed; the message names the extra that brings it."""


def missing_from_lab() -> list[str]:
    """Return the packages of the lab that are not installed; nothing is imported."""
    # A folder of that name in the working directory, such as datasets/, is found too, but has no origin.
    return [name for name in LAB if (spec := find_spec(name)) is None or spec.origin is None]


def require_lab() -> None:
    """Raise if the lab is not installed: data, training, evaluation, plots, cards and the commands need it.

    Raises:
        MissingExtraError: names the missing packages, and how to install them.
    """
    missing = missing_from_lab()
    if missing:
        raise MissingExtraError(
            f"this part of cosify needs {', '.join(missing)}, expected the packages of its lab; run pip install"
            " 'cosify[lab]'"
        )


def require_transformers(subject: str) -> None:
    """Raise if transformers is not installed.

    Args:
        subject: what needs it; the message begins with it.

    Raises:
        MissingExtraError: says how to install it.
    """
    if find_spec("transformers") is None:
        raise MissingExtraError(
            f"{subject} needs transformers, which is not installed; run pip install transformers, or pip install"
            " 'cosify[lab]'"
        )

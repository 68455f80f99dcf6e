"""All plugins at once."""

from cosify.integrations import timm, transformers


def install() -> None:
    """Install the timm plugin now and the transformers plugin for later; safe to call again."""
    timm.install()
    transformers.install()

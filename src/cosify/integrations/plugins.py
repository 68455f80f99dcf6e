"""All plugins at once, each when its library is imported: importing cosify loads neither timm nor transformers."""

from importlib import import_module
from types import ModuleType

from cosify.integrations.import_watcher import on_import


def install() -> None:
    """Install each plugin as soon as its library is imported, now or later; safe to call again."""
    on_import("timm", _teach_timm)
    on_import("transformers.modeling_utils", _teach_transformers)
    on_import("transformers.models.auto.modeling_auto", _register_class)
    on_import("transformers.trainer", _teach_trainer)


def _teach_timm(_: ModuleType) -> None:
    import_module("cosify.integrations.timm")  # which installs itself at its end: it may be what imports timm


def _teach_transformers(_: ModuleType) -> None:
    import_module("cosify.integrations.transformers").install()


def _teach_trainer(_: ModuleType) -> None:
    import_module("cosify.integrations.transformers").install_trainer()


def _register_class(_: ModuleType) -> None:
    import_module("cosify.integrations.cosified")  # which registers its class; it may be what imports transformers

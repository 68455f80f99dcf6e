"""All plugins at once, each when its library is imported: importing cosify loads neither timm nor transformers."""

from importlib import import_module

from cosify.integrations.import_watcher import on_import


def install() -> None:
    """Install each plugin as soon as its library is imported, now or later; safe to call again.

    The modules `timm` and `cosified` do that at their end: they may be what imports the library.
    """
    on_import("timm", lambda _: import_module("cosify.integrations.timm"))
    on_import("transformers.modeling_utils", lambda _: import_module("cosify.integrations.transformers").install())
    on_import("transformers.models.auto.modeling_auto", lambda _: import_module("cosify.integrations.cosified"))
    on_import("transformers.trainer", lambda _: import_module("cosify.integrations.transformers").install_trainer())

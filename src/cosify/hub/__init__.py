"""Saved folders: written in stock format, read back with kappa."""

from cosify.hub.backbones import list_backbones
from cosify.hub.export import save, save_stock
from cosify.hub.publish import Publication, push
from cosify.hub.resolve import load

__all__ = ["Publication", "list_backbones", "load", "push", "save", "save_stock"]

"""Saved folders: written in stock format, read back with kappa, published."""

from cosify.hub.backbone_table import BackboneRow, BackboneTable, list_backbones
from cosify.hub.export import save
from cosify.hub.publish import Publication, push
from cosify.hub.resolve import load

__all__ = ["BackboneRow", "BackboneTable", "Publication", "list_backbones", "load", "push", "save"]

"""Plugins for timm and transformers."""

from cosify.integrations.plugins import install

__all__ = ["install"]

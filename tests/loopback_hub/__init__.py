"""A Hugging Face hub on the loopback interface, in memory, for tests of publishing and downloading."""

from tests.loopback_hub.server import LoopbackHub, Repository

__all__ = ["LoopbackHub", "Repository"]

"""A Hugging Face hub on the loopback interface, in memory, for tests of publishing and downloading."""

from tests.loopback_hub.server import SILENCE, LoopbackHub, Repository

__all__ = ["SILENCE", "LoopbackHub", "Repository"]

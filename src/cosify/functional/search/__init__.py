"""The exact search of Eq. (11): classes in blocks, the softmax over them, bounds, and the certified local search."""

from cosify.functional.search.blocks import Block, ClassBlocks, put
from cosify.functional.search.certified import search_certified
from cosify.functional.search.softmax import Scan, SoftmaxState
from cosify.functional.search.target import Labelled

__all__ = ["Block", "ClassBlocks", "Labelled", "Scan", "SoftmaxState", "put", "search_certified"]

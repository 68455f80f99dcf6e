"""YAML as users mean it: a key that comes twice is an error, and text stays as it was typed.

YAML 1.1 reads 0123 as 83 (octal), 1:30 as 90 (base 60) and 2024-05-01 as a date.
"""

from collections.abc import Callable, Collection
from typing import Any

import yaml

TEXT = "tag:yaml.org,2002:str"
AS_TYPED = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}


class KeyTwiceError(ValueError):
    """A mapping has a key twice; the message names it and both lines."""


class _Loader(yaml.SafeLoader):
    """Reads whole numbers as Python does, and refuses a key that comes twice."""

    def whole_number(self, node: yaml.ScalarNode) -> int | str:
        """Return the number, or the text of one that Python does not know, such as 1:30."""
        text = str(node.value)
        for base in (10, 0):
            try:
                return int(text, base)
            except ValueError:
                continue
        return text

    def mapping(self, node: yaml.MappingNode) -> Any:
        """Return the mapping, by the steps of SafeLoader."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise KeyTwiceError(f"the key {key.value!r} twice, in lines {lines[key.value]} and {line}")
                lines[key.value] = line
        return self.construct_yaml_map(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)


def read_text(text: str, texts: Collection[str]) -> Any:
    """Return what a YAML document holds.

    Args:
        text: the document.
        texts: keys of the outermost mapping whose values are text, or lists of text.

    Raises:
        KeyTwiceError: if a mapping has a key twice.
        yaml.YAMLError: if it is no YAML.
    """

    def keep(node: yaml.Node | None) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in texts:
                _keep_text(value)

    return _read(text, keep)


def read_value(text: str, is_text: bool) -> Any:
    """Return a YAML value; `is_text` says whether it is text, or a list of text.  Errors are those of `read_text`."""
    return _read(text, _keep_text if is_text else lambda node: None)


def _read(text: str, keep: Callable[[yaml.Node | None], None]) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        keep(node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _keep_text(node: yaml.Node | None) -> None:
    """Let what looks like a number or a date be read as text."""
    for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(each, yaml.ScalarNode) and each.tag in AS_TYPED:
            each.tag = TEXT

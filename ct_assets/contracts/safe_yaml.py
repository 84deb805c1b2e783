"""YAML that strangers may write: size, depth, alias and tag limits, and the line of every key.

What goes here: text -> plain values (dict, list, str, int, float, bool, None) that remember their lines.
What does not: what the keys mean (``odcs.py``).

Scalars follow the YAML 1.2 core schema, not 1.1: ``no`` is a string, ``2020-01-01`` is a string, ``12:30`` is a string.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ct_assets.contracts.errors import ContractError

MAX_BYTES = 512 * 1024
MAX_DEPTH = 40
MAX_NODES = 50_000  # after aliases are expanded: nine nested aliases of ten would be a billion

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Block(dict[str, Any]):
    """A mapping that knows the line it begins on and the line of each key."""

    line: int = 1
    lines: dict[str, int]

    def line_of(self, key: str) -> int:
        """The line of a key, or of the block when the key is absent."""
        return self.lines.get(key, self.line)


class Items(list[Any]):
    """A list that knows the line of each item."""

    lines: list[int]


class _NoTags(yaml.SafeLoader):
    """SafeLoader whose composer refuses explicit tags (``!!python/...``, ``!include``)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"a tag ({event.tag}) is not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class _Converter:
    """Nodes -> values, with the limits."""

    def __init__(self, file: Path | str) -> None:
        self.file = file
        self.nodes = 0

    def value(self, node: Any, depth: int = 0) -> Any:
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ContractError(
                self.file, line, f"more than {MAX_NODES} values once aliases are expanded", "write them out"
            )
        if depth > MAX_DEPTH:
            raise ContractError(self.file, line, f"nested deeper than {MAX_DEPTH} levels", "flatten the contract")
        if isinstance(node, yaml.MappingNode):
            return self.block(node, depth)
        if isinstance(node, yaml.SequenceNode):
            items = Items(self.value(child, depth + 1) for child in node.value)
            items.lines = [child.start_mark.line + 1 for child in node.value]
            return items
        return _scalar(node)

    def block(self, node: Any, depth: int) -> Block:
        block = Block()
        block.line, block.lines = node.start_mark.line + 1, {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ContractError(self.file, line, "a key must be a plain word", "quote it")
            key = key_node.value
            if key in block:
                raise ContractError(
                    self.file, line, f"the key {key!r} is already given on line {block.lines[key]}", "keep one of them"
                )
            block[key] = self.value(value_node, depth + 1)
            block.lines[key] = line
        return block


def _scalar(node: Any) -> Any:
    text = node.value
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 40:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def load(path: Path) -> Block:
    """Read one mapping from a file. Raises ContractError with the line for anything else."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ContractError(
            path, 1, f"the file has {size:,} bytes; a contract has at most {MAX_BYTES:,}", "is this the contract?"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ContractError(path, 1, f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    return loads(text, path)


def loads(text: str, file: Path | str = "<text>") -> Block:
    """The same from text; ``file`` is only named in errors."""
    try:
        node = yaml.compose(text, Loader=_NoTags)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ContractError(
            file, mark.line + 1 if mark else 1, f"not valid YAML: {error.problem}", "check indentation and quotes"
        ) from None
    except yaml.YAMLError as error:
        raise ContractError(file, 1, f"not valid YAML: {error}", "check for control characters") from None
    except RecursionError:
        raise ContractError(file, 1, "nested too deeply", "flatten the contract") from None
    if not isinstance(node, yaml.MappingNode):
        found = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "one value"
        hint = "docs/guides/contracts.md shows a contract, docs/streaming.md a definition of aggregates"
        raise ContractError(file, 1, f"expected a mapping (key: value lines) at the top, found {found}", hint)
    try:
        return _Converter(file).value(node)
    except RecursionError:
        raise ContractError(file, 1, "an alias contains itself", "write the value out") from None

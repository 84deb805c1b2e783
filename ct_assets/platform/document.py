"""A YAML document whose values know their line and column, and the checks that a person's typing needs.

What goes here: mapping, list and scalar readers that raise :class:`SpecError` with `file:line:column`, what was found,
what was expected and the nearest valid choice. What does not: which keys a pipeline has (`spec.py`).

Scalars follow YAML 1.2's core schema where 1.1 surprises: `no` and `2010-12-01` stay texts until a reader asks for them.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ct_assets.errors import UsageError, did_you_mean

T = TypeVar("T")

MAX_BYTES = 256 * 1024
_DURATION = re.compile(r"(\d+)\s*(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,47}")


class SpecError(UsageError):
    """A pipeline file cannot be used: where, what was found, what was expected."""

    def __init__(self, where: Value, message: str, hint: str | None = None) -> None:
        """``where`` is the value (or key) at fault; its position begins the message."""
        super().__init__(f"{where.file}:{where.line}:{where.column}: {message}", hint=hint)
        self.line, self.column, self.reason = where.line, where.column, message


@dataclass(frozen=True)
class Value:
    """One node of the document and where it stands (line and column count from 1)."""

    node: Any
    file: Path
    path: str = ""

    @property
    def line(self) -> int:
        """Line of the node's first character."""
        return self.node.start_mark.line + 1 if self.node is not None else 1

    @property
    def column(self) -> int:
        """Column of the node's first character."""
        return self.node.start_mark.column + 1 if self.node is not None else 1

    @property
    def kind(self) -> str:
        """What the person wrote, in words."""
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        return repr(self.node.value) if self.node.value != "" or self.node.style else "nothing"

    def wrong(self, expected: str, hint: str | None = None) -> SpecError:
        """The error "``path`` is X; expected Y" at this place."""
        return SpecError(self, f"{self.path or 'the document'} is {self.kind}; expected {expected}", hint)

    def mapping(self, allowed: Sequence[str], required: Iterable[str] = ()) -> dict[str, Value]:
        """The entries of a mapping; refuses unknown, repeated and missing keys."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"a mapping with the keys {', '.join(allowed)}")
        found: dict[str, Value] = {}
        for key_node, node in self.node.value:
            key = Value(key_node, self.file, self.path)
            name = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else key.kind
            if name not in allowed:
                prefix = f"{self.path}." if self.path else ""
                hint = did_you_mean(name, allowed) or f"known here: {', '.join(allowed)}"
                raise SpecError(key, f"there is no key {prefix}{name}", hint)
            if name in found:
                raise SpecError(key, f"{name!r} is given twice (first on line {found[name].line})", "keep one of them")
            found[name] = Value(node, self.file, f"{self.path}.{name}" if self.path else name)
        for name in required:
            if name not in found:
                raise SpecError(self, f"{self.path or 'the document'} has no {name!r}", f"required here: {name}")
        return found

    def items(self) -> list[Value]:
        """The items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong("a list: [one, two] or one `- item` a line")
        return [Value(node, self.file, f"{self.path}[{i}]") for i, node in enumerate(self.node.value)]

    def is_scalar(self) -> bool:
        """Whether this is a single value, not a list or mapping."""
        return isinstance(self.node, yaml.ScalarNode)

    def text(self) -> str:
        """A text that is not empty."""
        if not self.is_scalar() or not str(self.node.value).strip():
            raise self.wrong("a text")
        return str(self.node.value)

    def identifier(self) -> str:
        """A name that can become part of an asset key and of a table name."""
        text = self.text()
        if not _IDENTIFIER.fullmatch(text):
            near = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")
            raise self.wrong(
                "lower-case letters, digits and _ (it becomes a table's name)",
                f"for instance {near!r}" if near else None,
            )
        return text

    def one_of(self, choices: Sequence[str]) -> str:
        """One of ``choices``."""
        text = self.text()
        if text not in choices:
            raise self.wrong(f"one of {', '.join(choices)}", did_you_mean(text, choices))
        return text

    def integer(self, low: int, high: int) -> int:
        """A whole number within the bounds, both included."""
        return int(self._number(int, rf"a whole number between {low} and {high}", low, high))

    def number(self, low: float, high: float) -> float:
        """A number within the bounds, both included."""
        return self._number(float, f"a number between {low:g} and {high:g}", low, high)

    def _number(self, convert: Callable[[str], float], expected: str, low: float, high: float) -> float:
        try:
            if not self.is_scalar() or self.node.style in ("'", '"'):
                raise ValueError(self.kind)
            value = convert(self.node.value)
        except ValueError:
            raise self.wrong(expected) from None
        if not low <= value <= high:
            raise self.wrong(expected)
        return value

    def date(self) -> dt.date:
        """A day, YYYY-MM-DD."""
        try:
            return dt.date.fromisoformat(self.text())
        except ValueError:
            raise self.wrong("a day as YYYY-MM-DD") from None

    def duration(self) -> dt.timedelta:
        """A duration such as ``30m``, ``6h``, ``4d``, ``2w``."""
        match = _DURATION.fullmatch(self.text().strip())
        if match is None or int(match[1]) == 0:
            raise self.wrong("a duration such as 30m, 6h, 4d, 2w")
        return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})

    def existing_file(self) -> Path:
        """A file named relative to the document's folder; it may not lie outside of the project's tree."""
        name = self.text()
        path = self.file.parent / name
        if Path(name).is_absolute():
            raise self.wrong("a path relative to this file's folder")
        if not path.is_file():
            near = did_you_mean(name, _files_below(self.file.parent))
            raise self.wrong("a file beside this one", near or f"make {path.name} in {path.parent}")
        return path


def _files_below(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in sorted(folder.rglob("*"))[:500] if p.is_file()]


def read_document(file: Path) -> Value:
    """Compose one YAML document. Raises :class:`SpecError` for what is no YAML, too large, aliased or tagged."""
    nowhere = Value(None, file)
    raw = file.read_bytes()
    if len(raw) > MAX_BYTES:
        raise SpecError(
            nowhere, f"the file has {len(raw):,} bytes; at most {MAX_BYTES:,}", "is this the pipeline's file?"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(nowhere, f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    try:
        _refuse_aliases_and_tags(text, file)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise UsageError(f"{file}:{at}: not valid YAML: {error.problem}", hint="check indentation and quotes") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError(nowhere, f"not valid YAML: {type(error).__name__}", "check for control characters") from None
    if node is None:
        raise SpecError(nowhere, "the file is empty", "a pipeline begins with `type:` and `attributes:`")
    return Value(node, file)


def _refuse_aliases_and_tags(text: str, file: Path) -> None:
    """Neither is needed here, and nested aliases grow without bound."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None or depth > 20:
            what = "nested too deeply" if depth > 20 else "aliases (*) and tags (!) are not used in pipeline files"
            raise UsageError(
                f"{file}:{event.start_mark.line + 1}:{event.start_mark.column + 1}: {what}", hint="write the value out"
            )

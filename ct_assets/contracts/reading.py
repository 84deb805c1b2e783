"""How values are taken from the YAML tree: with their line, and an error that says what to write instead.

What goes here: the reader shared by the walk over contract, properties and quality. What does not: meaning of clauses.
"""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.model import Clause, Column, Dialect
from ct_assets.contracts.predicate import Node, PredicateError, parse
from ct_assets.contracts.safe_yaml import Block, Items
from ct_assets.errors import did_you_mean


class Custom(dict[str, Any]):
    """customProperties as a mapping that knows the line of each."""

    lines: dict[str, int]

    def overridden_by(self, other: Custom) -> Custom:
        """Both, the other's where both say something."""
        merged = Custom({**self, **other})
        merged.lines = {**self.lines, **other.lines}
        return merged


def with_article(noun: str) -> str:
    """``an aggregate``, ``a property``."""
    return f"{'an' if noun[:1] in 'aeio' else 'a'} {noun}"


@dataclass(frozen=True)
class Reader:
    """Reads parts of one file."""

    path: Path

    def at(self, line: int, message: str, hint: str | None = None) -> ContractError:
        """An error at a line, to raise."""
        return ContractError(self.path, line, message, hint)

    def error(self, block: Any, key: str, message: str, hint: str | None = None) -> ContractError:
        """An error at the line of a key, to raise."""
        lines = getattr(block, "lines", {})
        return self.at(lines.get(key, getattr(block, "line", 1)), message, hint)

    def items(self, block: Mapping[str, Any], key: str) -> Items:
        """A list under a key; empty when absent."""
        value = block.get(key)
        if value is None:
            value = Items()
            value.lines = []
        if not isinstance(value, Items):
            raise self.error(block, key, f"{key} must be a list", "begin each item with `- `")
        return value

    def blocks(self, block: Mapping[str, Any], key: str) -> Items:
        """A list of mappings under a key; empty when absent."""
        items = self.items(block, key)
        for item, line in zip(items, items.lines, strict=True):
            if not isinstance(item, Block):
                raise self.at(line, f"{key} lists {str(item)[:40]!r}, which is no mapping", "write `- name: ...`")
        return items

    def known_keys(self, block: Block, known: Iterable[str], what: str) -> list[Clause]:
        """Refuse a key that looks like a misspelt known one; any other unknown key is documentation-only."""
        known = list(known)
        unknown: list[Clause] = []
        for key in block:
            if key in known:
                continue
            if difflib.get_close_matches(key, known, n=1, cutoff=0.8):
                raise self.error(block, key, f"{with_article(what)} has no key {key!r}", did_you_mean(key, known))
            unknown.append(
                Clause(
                    str(block.get("name", what)),
                    f"key {key}",
                    False,
                    block.line_of(key),
                    "not a key of ODCS that is known here",
                )
            )
        return unknown

    def custom(self, block: Mapping[str, Any], known: Iterable[str], clauses: list[Clause], where: str) -> Custom:
        """customProperties (a list of {property, value}) that we know; others are documentation-only."""
        found = Custom()
        found.lines = {}
        known = list(known)
        for item in self.items(block, "customProperties"):
            if not isinstance(item, Block) or "property" not in item:
                raise self.at(getattr(item, "line", 1), "a custom property needs `property` and `value`", None)
            name, line = str(item["property"]), item.line
            if name in known:
                found[name], found.lines[name] = item.get("value"), line
                clauses.append(Clause(where, name, True, line))
            elif difflib.get_close_matches(name, known, n=1, cutoff=0.8):
                raise self.at(line, f"no custom property {name!r} here", did_you_mean(name, known))
            else:
                clauses.append(Clause(where, f"customProperty {name}", False, line, "not one of ours"))
        return found

    def choice(self, block: Any, key: str, choices: tuple[str, ...]) -> str:
        """One of the choices; the first when absent."""
        value = block.get(key)
        if value is None:
            return choices[0]
        if value not in choices:
            raise self.error(
                block, key, f"{key} is {value!r}", did_you_mean(str(value), choices) or f"one of: {', '.join(choices)}"
            )
        return value

    def flag(self, block: Any, key: str) -> bool:
        """A boolean; False when absent."""
        value = block.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(block, key, f"{key} is {value!r}", "write true or false")
        return value

    def whole(self, block: Any, key: str) -> int | None:
        """A non-negative integer, or None when absent."""
        value = block.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise self.error(block, key, f"{key} is {value!r}", "write a whole number, 0 or more")
        return value

    def fraction(self, block: Any, key: str) -> float | None:
        """A number from 0 to 1, or None when absent."""
        value = block.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.error(block, key, f"{key} is {value!r}", "write a fraction from 0 to 1 (0.10 is ten percent)")
        return float(value)

    def words(self, block: Any, key: str) -> tuple[str, ...]:
        """One text or a list of texts, as a tuple."""
        value = block.get(key)
        if value is None:
            return ()
        return tuple(str(v) for v in value) if isinstance(value, list) else (str(value),)

    def predicate(self, text: Any, kinds: Mapping[str, str], line: int) -> Node:
        """A boolean expression of ours. Raises ContractError with the reason."""
        try:
            node = parse(str(text), kinds)
        except PredicateError as error:
            raise self.at(
                line,
                f"cannot use the expression {str(text)!r}: {error}",
                "see ct_assets/contracts/predicate.py for the grammar",
            ) from None
        if not node.columns():
            raise self.at(line, f"the expression {str(text)!r} reads no column", "name at least one")
        return node

    def derive(self, columns: list[Column], items: Items, clauses: list[Clause]) -> list[Column]:
        """Give the columns with `derived: true` their expression (``transformLogic``) over the delivered ones."""
        kinds = {c.name: c.kind for c, i in zip(columns, items, strict=True) if not _is_derived(i)}
        out = []
        for column, item in zip(columns, items, strict=True):
            if not _is_derived(item):
                if item.get("transformLogic"):
                    line = item.line_of("transformLogic")
                    clauses.append(
                        Clause(
                            column.name,
                            "transformLogic",
                            False,
                            line,
                            "add the customProperty `derived: true` to have it computed",
                        )
                    )
                out.append(column)
                continue
            line = item.line_of("transformLogic")
            node = self.predicate(item.get("transformLogic") or "", kinds, line)
            if node.kind != column.kind:
                raise self.at(
                    line,
                    f"{column.name} is declared {column.type}, its transformLogic gives a {node.kind}",
                    "change logicalType or the expression",
                )
            clauses.append(Clause(column.name, "transformLogic", True, line))
            out.append(replace(column, derived=node))
        return out

    def dialect(self, dialect: Dialect, block: Block) -> Dialect:
        """Check a dialect: known encoding, one ASCII character each for delimiter and quote, positive caps."""
        try:
            codecs.lookup(dialect.encoding)
        except (LookupError, TypeError):
            raise self.error(
                block, "encoding", f"no encoding {dialect.encoding!r}", "for example utf-8, latin-1, cp1252, utf-16"
            ) from None
        for key, value in (("delimiter", dialect.delimiter), ("quote", dialect.quote)):
            if not isinstance(value, str) or len(value) != 1 or not (value == "\t" or " " <= value < "\x7f"):
                raise self.error(block, key, f"{key} is {value!r}", "one printable ASCII character, or a tab")
        if dialect.delimiter == dialect.quote:
            raise self.error(block, "quote", "quote and delimiter are the same character", None)
        self.choice(block, "headerCase", ("exact", "insensitive"))
        self.choice(block, "compression", ("none", "gzip", "zip"))
        self.flag(block, "finalNewline")
        for key in ("maxFieldBytes", "maxRowBytes", "maxUnpackedBytes", "maxRatio"):
            self.whole(block, key)
        return dialect


def _is_derived(item: Any) -> bool:
    return any(
        isinstance(c, Block) and c.get("property") == "derived" and c.get("value") is True
        for c in item.get("customProperties") or ()
    )

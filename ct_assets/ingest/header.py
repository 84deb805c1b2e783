"""The first record of a file: which column stands where.

What goes here: matching by name, missing, renamed, duplicate and unknown columns. What does not: rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.ingest.broken import record_end, split_strictly
from ct_assets.ingest.verdict import FileRejected

MAX_COLUMNS = 10_000


@dataclass(frozen=True)
class Header:
    """The names as they stand in the file, and for each contract column that it has its position."""

    names: tuple[str, ...]
    positions: dict[str, int]
    warnings: tuple[str, ...] = ()
    raw: bytes = b""
    line: int = 1


def header_end(text: bytes, at: int, size: int, schema: DatasetSchema) -> int | None:
    """Where the record at ``at`` ends (position of its line feed, or ``size``); None while a quote is open."""
    return record_end(text, at, size, ord(schema.dialect.delimiter), ord(schema.dialect.quote))


def read_header(raw: bytes, line: int, schema: DatasetSchema) -> Header:
    """Match the header record (without its line end) to the contract. Raises FileRejected."""
    names = _split(raw, line, schema)
    _check_names(names, line)
    fold = str.casefold if schema.dialect.header_case == "insensitive" else str
    found: dict[str, int] = {}
    for i, name in enumerate(names):
        if fold(name) in found:
            first = names[found[fold(name)]]
            raise FileRejected(
                "duplicate_column",
                line,
                f"the header names {name!r} twice (columns {found[fold(name)] + 1} as {first!r} and {i + 1})",
            )
        found[fold(name)] = i
    positions, warnings = _placed(schema, names, found, fold, line)
    taken = set(positions.values())
    unknown = [name for i, name in enumerate(names) if i not in taken]
    if unknown and schema.closed:
        raise FileRejected(
            "unknown_column",
            line,
            f"the contract is closed and does not know {', '.join(map(repr, unknown))}: add it or drop it from the file",
        )
    warnings += [
        f"column {name!r} is not in the contract: ignored (add it under properties to keep it)" for name in unknown
    ]
    return Header(tuple(names), positions, tuple(warnings), raw, line)


def _split(raw: bytes, line: int, schema: DatasetSchema) -> list[str]:
    if b"\x00" in raw:
        raise FileRejected(
            "encoding",
            line,
            f"NUL at byte {raw.index(0)} of the header: UTF-16 without a mark, or a binary file; the contract declares {schema.dialect.encoding}",
        )
    if b"\r" in raw.removesuffix(b"\r"):
        raise FileRejected(
            "line_ends", line, "a carriage return without line feed in the header: lines must end with LF or CR LF"
        )
    dialect = schema.dialect
    text = raw.removesuffix(b"\r").decode("utf-8")
    names = split_strictly(text, dialect.delimiter, dialect.quote)
    if names is None:
        raise FileRejected("broken_header", line, f"the header breaks quoting: {text[:120]!r}")
    return names


def _check_names(names: Sequence[str], line: int) -> None:
    if len(names) > MAX_COLUMNS:
        raise FileRejected("broken_header", line, f"{len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    for name in names:
        if any(ord(c) < 32 for c in name if c not in "\t\n"):
            raise FileRejected("broken_header", line, f"a control character in the column name {name!r}")


def _position(column: Column, found: dict[str, int], fold: type[str] | object, warnings: list[str]) -> int | None:
    for name in (column.name, column.physical_name, *column.renamed_from):
        at = found.get(fold(name))  # pyright: ignore[reportCallIssue]
        if at is not None:
            if name != column.name:
                warnings.append(f"column {column.name!r} is delivered under the name {name!r}")
            return at
    return None


def _placed(
    schema: DatasetSchema, names: Sequence[str], found: dict[str, int], fold: type[str] | object, line: int
) -> tuple[dict[str, int], list[str]]:
    """Where each contract column stands, and warnings. Raises FileRejected for one that must be there and is not."""
    positions: dict[str, int] = {}
    warnings: list[str] = []
    for column in schema.delivered:
        at = _position(column, found, fold, warnings)
        if at is not None:
            positions[column.name] = at
        elif column.may_be_absent:
            warnings.append(f"{_missing(column, schema, names)}; it may be absent: NULL in every row")
        else:
            raise FileRejected("missing_column", line, _missing(column, schema, names))
    if not positions:  # all may be absent and are: a file of something else
        raise FileRejected("missing_column", line, _missing(schema.delivered[0], schema, names))
    return positions, warnings


def _missing(column: Column, schema: DatasetSchema, names: Sequence[str]) -> str:
    known = {c.name for c in schema.delivered}
    spare = [n for n in names if n and n not in known] or [n for n in names if n]
    near = difflib.get_close_matches(column.name.casefold(), [n.casefold() for n in spare], n=1, cutoff=0.5)
    if not near:
        near = [n.casefold() for n in spare if _same_words(n, column.name)][:1]
    if near:
        name = next(n for n in spare if n.casefold() == near[0])
        hint = f"the nearest in the file is {name!r}; if it was renamed, declare renamedFrom: [{name}]"
    elif not known & set(names):  # perhaps a row of data: its values, maybe personal ones, are not shown
        hint = f"none of the {len(names)} names in the first line is in the contract: has the file a header?"
    else:
        shown = ", ".join(map(repr, names[:12])) + (" ..." if len(names) > 12 else "")
        hint = f"the file has {shown}"
    return f"no column {column.name!r} in the header; {hint}"


def _same_words(a: str, b: str) -> bool:
    def letters(text: str) -> str:
        return "".join(c for c in text.casefold() if c.isalnum())

    return bool(letters(a)) and (letters(a) in letters(b) or letters(b) in letters(a))

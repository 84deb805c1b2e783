"""Row rules as Polars expressions: true where a row breaks the rule.

What goes here: one truth table a kind. What does not: rules that need other rows (unique, duplicate: ``duplicates.py``),
batch rules (``batch.py``).

``type`` breaks where there was text and no value of the type; ``required`` where there was no text. Every other rule is
silent on NULL: a missing value breaks ``required`` or nothing, an unreadable one breaks ``type`` only.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from ct_assets.contracts.model import Column, DatasetSchema, Rule
from ct_assets.ingest.casts import dtype
from ct_assets.ingest.columns import Read
from ct_assets.ingest.expressions import Compiler
from ct_assets.ingest.fastcasts import Flags

ABSENT = "\x00absent"  # suffix of the flag "there was no text" kept beside a column that is not text
STATEFUL = ("unique", "duplicate")
DIRECT = ("type", "required", "nonexistent_local_time", "ambiguous_local_time")


def row_rules(schema: DatasetSchema, day: date | None) -> list[tuple[int, pl.Expr]]:
    """(bit, expression) of each rule that looks at one row alone."""
    compiler = Compiler(schema, day)
    found = []
    for bit, rule in enumerate(schema.rules):
        if rule.kind in STATEFUL + DIRECT:
            continue
        if rule.kind == "predicate":
            broken = compiler.expression(rule.limit)
        else:
            broken = _KIND[rule.kind](rule, schema.column(rule.columns[0]))
        found.append((bit, broken.fill_null(False)))
    return found


def _absent(column: Column) -> pl.Expr:
    return pl.col(column.name).is_null() if column.type == "string" else pl.col(column.name + ABSENT)


def broken_directly(rule: Rule, read: Read) -> Flags | None:
    """Rows that break a rule which reading itself decides; None when none does."""
    found = {
        "type": read.unread,
        "required": read.absent,
        "nonexistent_local_time": read.skipped,
        "ambiguous_local_time": read.repeated,
    }
    return found[rule.kind]


def _bound(rule: Rule, column: Column) -> pl.Expr:
    return pl.lit(rule.limit, dtype=_bound_type(rule.limit, column))


def _bound_type(limit: Any, column: Column) -> pl.DataType | None:
    if isinstance(limit, Decimal):
        digits = limit.as_tuple()
        scale = max(-int(digits.exponent), 0)
        whole = max(len(digits.digits) + int(digits.exponent), 1)
        return pl.Decimal(min(whole + scale, 38), scale)
    return pl.Datetime("us", "UTC") if isinstance(limit, datetime) and limit.tzinfo is UTC else dtype(column)


def _below(rule: Rule, column: Column) -> pl.Expr:
    return pl.col(column.name) < _bound(rule, column)


def _above(rule: Rule, column: Column) -> pl.Expr:
    return pl.col(column.name) > _bound(rule, column)


def _not_above(rule: Rule, column: Column) -> pl.Expr:
    return pl.col(column.name) <= _bound(rule, column)


def _not_below(rule: Rule, column: Column) -> pl.Expr:
    return pl.col(column.name) >= _bound(rule, column)


def _range(rule: Rule, column: Column) -> pl.Expr:
    low, high = rule.limit
    return ~pl.col(column.name).is_between(low, high)


def _outside(values: tuple[Any, ...], column: Column) -> pl.Expr:
    return ~pl.col(column.name).is_in(pl.Series(values, dtype=dtype(column)).implode())


def invalid(rule: Rule, column: Column) -> pl.Expr:
    """ODCS invalidValues: outside validValues (NULL is valid only when listed), or not matching a pattern."""
    if rule.limit[0] == "pattern":
        return ~pl.col(column.name).str.contains(rule.limit[1])
    _, values, absent_is_valid = rule.limit
    outside = _outside(values, column).fill_null(False)
    return outside if absent_is_valid else outside | _absent(column)


def missing(rule: Rule, column: Column) -> pl.Expr:
    """ODCS missingValues: NULL, or one of the texts that count as missing."""
    named = [v for v in rule.limit if v]
    absent = _absent(column) if "" in rule.limit else pl.lit(False)
    return absent | pl.col(column.name).is_in(named) if named and column.type == "string" else absent


def _multiple(rule: Rule, column: Column) -> pl.Expr:
    value = pl.col(column.name)
    if column.type == "integer":
        return value % rule.limit != 0
    scale = max(column.scale, -int(rule.limit.as_tuple().exponent))
    units = (value.cast(pl.Decimal(38, scale)) * (10**scale)).cast(pl.Int128)
    return units % int(rule.limit.scaleb(scale)) != 0


_KIND: dict[str, Callable[[Rule, Column], pl.Expr]] = {
    "missing": missing,
    "enum": lambda rule, column: _outside(rule.limit, column),
    "invalid": invalid,
    "pattern": lambda rule, column: ~pl.col(column.name).str.contains(rule.limit),
    "format": lambda rule, column: ~pl.col(column.name).str.contains(rule.limit),
    "range": _range,
    "minLength": lambda rule, column: pl.col(column.name).str.len_chars() < rule.limit,
    "maxLength": lambda rule, column: pl.col(column.name).str.len_chars() > rule.limit,
    "minimum": _below,
    "maximum": _above,
    "exclusiveMinimum": _not_above,
    "exclusiveMaximum": _not_below,
    "multipleOf": _multiple,
}

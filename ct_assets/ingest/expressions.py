"""The contract's expression tree as Polars expressions.

What goes here: one case an operator, with SQL's three-valued logic. What does not: parsing
(``ct_assets.contracts.predicate``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl

from ct_assets.contracts.formats import like_regex
from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.contracts.predicate import Node
from ct_assets.ingest.casts import LOCAL

_LITERAL_PREFIX = re.compile(r"((?:[^%_\\]|\\.)*)%")
_COMPARE: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


class Compiler:
    """Turns trees into expressions for one schema and one delivery day."""

    def __init__(self, schema: DatasetSchema, day: date | None, *, local: bool = True) -> None:
        """``day`` may be None only when no expression asks for it; ``local``: the frame still holds local times."""
        self._local = local
        self._columns: dict[str, Column] = {c.name: c for c in schema.columns}
        self._day = day

    def expression(self, node: Node) -> pl.Expr:
        """The expression of a tree; NULL where SQL would say unknown."""
        return getattr(self, "_" + node.op)(node)

    def _args(self, node: Node) -> list[pl.Expr]:
        return [self.expression(arg) for arg in node.args]

    def _column(self, node: Node) -> pl.Expr:
        return pl.col(str(node.value))

    def _literal(self, node: Node) -> pl.Expr:
        return literal(node.value)

    def _delivery_day(self, node: Node) -> pl.Expr:
        return pl.lit(self._day, dtype=pl.Date)

    def _local_date(self, node: Node) -> pl.Expr:
        column = self._columns[str(node.args[0].value)]
        if column.type == "date":
            return pl.col(column.name)
        if self._local and column.time_zone and not column.offsets:
            return pl.col(column.name + LOCAL).dt.date()
        if column.time_zone:
            return pl.col(column.name).dt.convert_time_zone(column.time_zone).dt.date()
        return pl.col(column.name).dt.date()

    def _compare(self, node: Node) -> pl.Expr:
        left, right = self._args(node)
        return _COMPARE[str(node.value)](left, right)

    def _arithmetic(self, node: Node) -> pl.Expr:
        left, right = self._args(node)
        return _ARITHMETIC[str(node.value)](left, right)

    def _and(self, node: Node) -> pl.Expr:
        left, right = self._args(node)
        return left & right

    def _or(self, node: Node) -> pl.Expr:
        left, right = self._args(node)
        return left | right

    def _not(self, node: Node) -> pl.Expr:
        return ~self.expression(node.args[0])

    def _is_null(self, node: Node) -> pl.Expr:
        return self.expression(node.args[0]).is_null()

    def _in(self, node: Node) -> pl.Expr:
        inner = self.expression(node.args[0])
        values: tuple[Any, ...] = node.value if isinstance(node.value, tuple) else ()
        if node.args[0].kind == "text":
            return inner.is_in(list(values))
        tests = [inner == literal(value) for value in values]
        return pl.any_horizontal(tests) if len(tests) > 1 else tests[0]

    def _like(self, node: Node) -> pl.Expr:
        inner, pattern = self.expression(node.args[0]), str(node.value)
        prefix = _LITERAL_PREFIX.fullmatch(pattern)
        if prefix:  # twice as fast as the regular expression, and the usual case
            return inner.str.starts_with(re.sub(r"\\(.)", r"\1", prefix.group(1)))
        return inner.str.contains(like_regex(pattern))

    def _length(self, node: Node) -> pl.Expr:
        return self.expression(node.args[0]).str.len_chars().cast(pl.Int64)

    def _upper(self, node: Node) -> pl.Expr:
        return self.expression(node.args[0]).str.to_uppercase()

    def _lower(self, node: Node) -> pl.Expr:
        return self.expression(node.args[0]).str.to_lowercase()

    def _trim(self, node: Node) -> pl.Expr:
        return self.expression(node.args[0]).str.strip_chars(" ")

    def _abs(self, node: Node) -> pl.Expr:
        return self.expression(node.args[0]).abs()

    def _coalesce(self, node: Node) -> pl.Expr:
        return pl.coalesce(self._args(node))


def literal(value: Any) -> pl.Expr:
    """A literal that compares exactly with integers and decimals: whole numbers stay integers."""
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return pl.lit(int(value))
        digits = value.as_tuple()
        scale = -int(digits.exponent)
        return pl.lit(value, dtype=pl.Decimal(max(len(digits.digits), scale + 1), scale))
    return pl.lit(value)

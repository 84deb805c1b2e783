"""The contract's row rules as Polars expressions over decoded events: true where an event breaks the rule.

What goes here: one truth table a kind, for typed values. What does not: types and presence of single values
(``values.py``), rules over several rows (a stream's repeats are judged by ``event_id``; batch rules look at deliveries).

Each rule is silent on null except ``required``; severity ``warn`` never refuses an event.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars as pl

from ct_assets.contracts.formats import like_regex
from ct_assets.contracts.model import ERROR, Column, DatasetSchema, Rule
from ct_assets.contracts.predicate import Node
from ct_assets.streaming.definition import Acceptance

# decided by reading a value, by event_id, or by a delivery's bytes
ELSEWHERE = ("type", "unique", "duplicate", "nonexistent_local_time", "ambiguous_local_time")
_PREFIX = re.compile(r"((?:[^%_\\]|\\.)*)%")


def dtype(column: Column, acceptance: Acceptance) -> pl.DataType:
    """The Polars type of a decoded column; times are microseconds in UTC, the event time also where it came as a number."""
    if column.type == "timestamp" or column.name == acceptance.event_time:
        return pl.Datetime("us", "UTC")
    if column.type == "decimal":
        return pl.Decimal(column.precision, column.scale)
    simple = {"integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean, "date": pl.Date}
    return simple.get(column.type, pl.String)()


def row_rules(schema: DatasetSchema, acceptance: Acceptance) -> list[tuple[str, pl.Expr]]:
    """(name, expression) of each rule of severity error that looks at one event alone."""
    found = []
    for rule in schema.rules:
        if rule.kind in ELSEWHERE or rule.severity != ERROR:
            continue
        if rule.kind == "predicate":
            broken = expression(rule.limit, schema)
        else:
            column = schema.column(rule.columns[0])
            broken = _KIND[rule.kind](rule, pl.col(column.name), dtype(column, acceptance))
        found.append((rule.name, broken.fill_null(False)))
    return found


def cleaned(schema: DatasetSchema) -> list[pl.Expr]:
    """The declared transforms and null tokens of text columns."""
    found = []
    for column in schema.delivered:
        text = pl.col(column.name)
        if column.type != "string" or not (column.transforms or column.null_tokens):
            continue
        for name in column.transforms:
            text = _TRANSFORM[name](text)
        if set(column.transforms) & {"trim", "collapseSpaces", "stripTrailingPointZero"}:
            text = pl.when(text.str.len_bytes() > 0).then(text)
        if column.null_tokens:
            text = pl.when(~text.is_in(list(column.null_tokens))).then(text)
        found.append(text.alias(column.name))
    return found


_TRANSFORM: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "trim": lambda text: text.str.strip_chars(),
    "upper": lambda text: text.str.to_uppercase(),
    "lower": lambda text: text.str.to_lowercase(),
    "collapseSpaces": lambda text: text.str.replace_all(r"\s+", " "),
    "stripTrailingPointZero": lambda text: text.str.strip_suffix(".0"),
}


def derived(schema: DatasetSchema) -> list[pl.Expr]:
    """The columns computed from others."""
    return [expression(c.derived, schema).alias(c.name) for c in schema.derived if c.derived is not None]


def _invalid(rule: Rule, value: pl.Expr, type_: pl.DataType) -> pl.Expr:
    if rule.limit[0] == "pattern":
        return ~value.str.contains(rule.limit[1])
    _, values, null_is_valid = rule.limit
    outside = _outside(value, values, type_).fill_null(False)
    return outside if null_is_valid else outside | value.is_null()


def _missing(rule: Rule, value: pl.Expr, type_: pl.DataType) -> pl.Expr:
    absent = value.is_null() if "" in rule.limit else pl.lit(False)
    named = [v for v in rule.limit if v]
    return absent | value.is_in(named) if named and type_ == pl.String else absent


def _outside(value: pl.Expr, values: tuple[Any, ...], type_: pl.DataType) -> pl.Expr:
    if len(values) <= 8 and type_ == pl.String:  # a few comparisons beat the hash set threefold
        return pl.all_horizontal([value != v for v in values])
    return ~value.is_in(pl.Series(values, dtype=type_).implode())


def _multiple(rule: Rule, value: pl.Expr, type_: pl.DataType) -> pl.Expr:
    if not isinstance(type_, pl.Decimal):
        return value % rule.limit != 0
    scale = max(type_.scale, -int(rule.limit.as_tuple().exponent))
    units = (value.cast(pl.Decimal(38, scale)) * (10**scale)).cast(pl.Int128)
    return units % int(rule.limit.scaleb(scale)) != 0


def _limit(rule: Rule, type_: pl.DataType) -> pl.Expr:
    return literal(rule.limit) if isinstance(rule.limit, Decimal) else pl.lit(rule.limit, dtype=type_)


_KIND: dict[str, Callable[[Rule, pl.Expr, pl.DataType], pl.Expr]] = {
    "required": lambda rule, value, type_: value.is_null(),
    "missing": _missing,
    "enum": lambda rule, value, type_: _outside(value, rule.limit, type_),
    "invalid": _invalid,
    "pattern": lambda rule, value, type_: ~value.str.contains(rule.limit),
    "format": lambda rule, value, type_: ~value.str.contains(rule.limit),
    "range": lambda rule, value, type_: ~value.is_between(*rule.limit),
    "minLength": lambda rule, value, type_: value.str.len_chars() < rule.limit,
    "maxLength": lambda rule, value, type_: value.str.len_chars() > rule.limit,
    "minimum": lambda rule, value, type_: value < _limit(rule, type_),
    "maximum": lambda rule, value, type_: value > _limit(rule, type_),
    "exclusiveMinimum": lambda rule, value, type_: value <= _limit(rule, type_),
    "exclusiveMaximum": lambda rule, value, type_: value >= _limit(rule, type_),
    "multipleOf": _multiple,
}


def expression(node: Node, schema: DatasetSchema) -> pl.Expr:
    """A tree of the rule language as an expression; NULL where SQL says unknown."""
    if node.op == "local_date":
        column = schema.column(str(node.args[0].value))
        local = pl.col(column.name)
        if column.type == "date":
            return local
        return (local.dt.convert_time_zone(column.time_zone) if column.time_zone else local).dt.date()
    return _OP[node.op](node, [expression(arg, schema) for arg in node.args])


def literal(value: Any) -> pl.Expr:
    """A literal that compares exactly with integers and decimals: whole numbers stay integers."""
    if not isinstance(value, Decimal):
        return pl.lit(value)
    if value == value.to_integral_value():
        return pl.lit(int(value))
    digits = value.as_tuple()
    scale = -int(digits.exponent)
    return pl.lit(value, dtype=pl.Decimal(max(len(digits.digits), scale + 1), scale))


def _in(node: Node, args: list[pl.Expr]) -> pl.Expr:
    values = node.value if isinstance(node.value, tuple) else ()
    return pl.any_horizontal([args[0] == literal(v) for v in values])


def _like(node: Node, args: list[pl.Expr]) -> pl.Expr:
    prefix = _PREFIX.fullmatch(str(node.value))
    if prefix:  # twice as fast as the regular expression, and the usual case
        return args[0].str.starts_with(re.sub(r"\\(.)", r"\1", prefix.group(1)))
    return args[0].str.contains(like_regex(str(node.value)))


_COMPARE: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
_OP: dict[str, Callable[[Node, list[pl.Expr]], pl.Expr]] = {
    "column": lambda node, args: pl.col(str(node.value)),
    "literal": lambda node, args: literal(node.value),
    "compare": lambda node, args: _COMPARE[str(node.value)](args[0], args[1]),
    "arithmetic": lambda node, args: _COMPARE[str(node.value)](args[0], args[1]),
    "and": lambda node, args: args[0] & args[1],
    "or": lambda node, args: args[0] | args[1],
    "not": lambda node, args: ~args[0],
    "is_null": lambda node, args: args[0].is_null(),
    "in": _in,
    "like": _like,
    "length": lambda node, args: args[0].str.len_chars().cast(pl.Int64),
    "upper": lambda node, args: args[0].str.to_uppercase(),
    "lower": lambda node, args: args[0].str.to_lowercase(),
    "trim": lambda node, args: args[0].str.strip_chars(" "),
    "abs": lambda node, args: args[0].abs(),
    "coalesce": lambda node, args: pl.coalesce(args),
}

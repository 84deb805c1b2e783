"""Text becomes values of the declared type, or is known to be none: one truth table a type.

What goes here: Polars expressions per column type, each guarded by a strict regular expression, so that no parser's
leniency decides. What does not: rules (``rules.py``).

=============  ==========================================================================================
any type       an empty field is NULL, quoted or not; so is a declared null token. Declared transforms run first
integer        ``-?(0|[1-9][0-9]*)``; beyond 64 bits, ``+5``, ``05``, ``5.0``, spaces: no integer (``leadingZeros`` allows 05)
decimal(p,s)   ``-?(0|[1-9][0-9]*)(\\.[0-9]+)?``; more than s decimals (zeros aside) or p-s digits before: none. Exact
number         as decimal, or with an exponent; ``NaN``, ``inf`` and what overflows to them: none
boolean        ``true`` or ``false`` in any case
date           a declared form (default yyyy-MM-dd), and a day that exists
timestamp      a declared form; with a time zone: that zone's local time as UTC, unless the clock skipped or repeated it
=============  ==========================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from ct_assets.contracts.formats import date_format
from ct_assets.contracts.model import Column

LOCAL = "\x00local"  # suffix of the naive local time kept beside a zoned timestamp; no header can hold NUL


@dataclass(frozen=True)
class Cast:
    """How one column is read, in stages that are each one ``with_columns``.

    ``text`` gives the cleaned text, ``value`` the typed value from it (NULL where the text is none). A timestamp without
    offset stays local time here; ``zones.py`` makes UTC of it.
    """

    column: Column
    text: pl.Expr | None
    value: pl.Expr | None


def dtype(column: Column) -> pl.DataType:
    """The Polars type of a judged column."""
    if column.type == "decimal":
        return pl.Decimal(column.precision, column.scale)
    if column.type == "timestamp":
        return pl.Datetime("us", "UTC" if column.time_zone else None)
    simple = {"integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean, "date": pl.Date}
    return simple.get(column.type, pl.String)()


def cast(column: Column) -> Cast:
    """The expressions that read a column of text named ``column.name``."""
    text = _clean(column)
    here = pl.col(column.name)
    if column.type == "string":
        return Cast(column, text, None)
    reader = {
        "integer": _integer,
        "decimal": _decimal,
        "number": _float,
        "boolean": _boolean,
        "date": _time,
        "timestamp": _time,
    }
    return Cast(column, text, reader[column.type](column, here))


def _clean(column: Column) -> pl.Expr | None:
    """Transforms in the declared order; a text that becomes empty is NULL."""
    text = pl.col(column.name)
    for name in column.transforms:
        text = _TRANSFORM[name](text)
    shrinks = set(column.transforms) & {"trim", "collapseSpaces", "stripTrailingPointZero"}
    if shrinks:
        text = pl.when(text.str.len_bytes() > 0).then(text)
    if column.null_tokens:
        text = pl.when(~text.is_in(list(column.null_tokens))).then(text)
    return text if column.transforms or column.null_tokens else None


# White space as Python's str.strip has it would depend on Unicode versions; these are the characters of ECMA-262.
_SPACE = " \t\n\r\x0b\x0c\xa0\ufeff\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_TRANSFORM = {
    "trim": lambda text: text.str.strip_chars(),
    "upper": lambda text: text.str.to_uppercase(),
    "lower": lambda text: text.str.to_lowercase(),
    "collapseSpaces": lambda text: text.str.replace_all(r"\s+", " "),
    "stripTrailingPointZero": lambda text: text.str.strip_suffix(".0"),
}


def _guarded(text: pl.Expr, regex: str, value: pl.Expr) -> pl.Expr:
    return pl.when(text.str.contains(regex)).then(value)


def _plain_number(column: Column, text: pl.Expr) -> pl.Expr:
    """A declared printed form (1.234,50 EUR) without its decorations; what does not fit the form stays and fails."""
    form = column.number_format
    if form.currency:
        text = text.str.strip_prefix(form.currency).str.strip_suffix(form.currency).str.strip_chars(" ")
    if form.group:
        group = re.escape(form.group)
        grouped = text.str.contains(rf"^-?[0-9]{{1,3}}(?:{group}[0-9]{{3}})+(?:[^0-9][0-9]+)?$")
        text = pl.when(grouped).then(text.str.replace_all(form.group, "", literal=True)).otherwise(text)
    if form.decimal != ".":
        foreign = text.str.contains(".", literal=True)
        text = pl.when(foreign).then(pl.lit("?")).otherwise(text.str.replace(form.decimal, ".", literal=True))
    return text


def _whole(column: Column, digits: int) -> str:
    lead = "0*" if column.leading_zeros else ""
    return (
        f"-?{lead}(?:0|[1-9][0-9]{{0,{max(digits - 1, 0)}}})"
        if digits > 0
        else "-?0+"
        if column.leading_zeros
        else "-?0"
    )


def _integer(column: Column, text: pl.Expr) -> pl.Expr:
    text = _plain_number(column, text)
    return _guarded(text, f"^{_whole(column, 19)}$", text.cast(pl.Int64, strict=False))


def _decimal(column: Column, text: pl.Expr) -> pl.Expr:
    text = _plain_number(column, text)
    fraction = rf"(?:\.[0-9]{{1,{column.scale}}}0*)?" if column.scale else r"(?:\.0+)?"
    regex = f"^{_whole(column, column.precision - column.scale)}{fraction}$"
    return _guarded(text, regex, text.cast(pl.Decimal(column.precision, column.scale), strict=False))


def _float(column: Column, text: pl.Expr) -> pl.Expr:
    text = _plain_number(column, text)
    value = text.cast(pl.Float64, strict=False)
    value = pl.when(value.is_finite()).then(value)
    return _guarded(
        text,
        r"^-?" + ("[0-9]+" if column.leading_zeros else "(?:0|[1-9][0-9]*)") + r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$",
        value,
    )


def _boolean(column: Column, text: pl.Expr) -> pl.Expr:
    lower = text.str.to_lowercase()
    return pl.when(lower == "true").then(True).when(lower == "false").then(False)


def _time(column: Column, text: pl.Expr) -> pl.Expr:
    """The first declared form that fits; forms that begin alike cannot both fit, since each is anchored."""
    zoned = column.offsets
    values = []
    for pattern in column.formats:
        form = date_format(pattern)
        if form is None:
            raise ValueError(f"{column.name}: unsupported format {pattern!r}")
        if column.type == "date":
            value = text.str.to_date(form.strptime, strict=False)
        else:
            value = text.str.to_datetime(
                form.strptime, strict=False, time_unit="us", time_zone="UTC" if zoned else None
            )
        values.append(_guarded(text, form.regex, value))
    return values[0] if len(values) == 1 else pl.coalesce(values)

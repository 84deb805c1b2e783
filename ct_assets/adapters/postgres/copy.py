"""Rows of a Polars frame as PostgreSQL's binary COPY format, built column-wise: no Python code runs per row.

What goes here: the encoding and the order of columns in a COPY. What does not: transactions, which table (``publish``).

Format: https://www.postgresql.org/docs/18/sql-copy.html#SQL-COPY-FILE-FORMATS (binary); the values as each type's
``*_recv`` function reads them. A row is a few pieces: one block of all fields whose width is the same in every row, then
for each other field its length and bytes. Pieces are described as Arrow string views (16 bytes each: up to 12 bytes in
place, longer ones as a place in a buffer), row after row, and one cast of these views writes all bytes back to back; it
takes half the time of Arrow's element-wise join, and texts come from where they are (``pieces.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ct_assets.adapters.postgres.pieces import Pieces

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_EPOCH_DAYS = 10_957  # 1970-01-01 to 2000-01-01, PostgreSQL's day zero
_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400_000_000
_BASE = 10_000  # numeric's digits: src/backend/utils/adt/numeric.c


@dataclass(frozen=True)
class CopyColumn:
    """A column to write: its name, its PostgreSQL type, and whether every row has a value."""

    name: str
    postgres_type: str
    required: bool = False

    @property
    def kind(self) -> str:
        """The type without length, precision or synonyms."""
        base = self.postgres_type.split("(")[0].strip().lower()
        return _SYNONYMS.get(base, base)


_SYNONYMS = {
    "int8": "bigint",
    "int4": "integer",
    "int": "integer",
    "int2": "smallint",
    "decimal": "numeric",
    "bool": "boolean",
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "float8": "double precision",
    "float4": "real",
    "varchar": "text",
    "character varying": "text",
}
_INTEGERS = {"bigint": ">i8", "integer": ">i4", "smallint": ">i2"}
_FIXED = {*_INTEGERS, "numeric", "boolean", "date", "double precision", "real"} | {
    "timestamp with time zone",
    "timestamp without time zone",
}


def copy_order(columns: Sequence[CopyColumn]) -> list[CopyColumn]:
    """The order in which a COPY must name ``columns``: those of one width in every row come first, then those of one
    width or NULL (where a chunk has no NULL they are written with the first)."""
    return sorted(columns, key=lambda column: (column.kind not in _FIXED, not column.required))


def encode(frame: pl.DataFrame, columns: Sequence[CopyColumn]) -> memoryview:
    """The rows of ``frame`` as COPY bytes without signature and trailer; ``columns`` as :func:`copy_order` gave them.

    Raises ValueError for a null in a required column or a number that its type cannot hold.
    """
    rows = len(frame)
    if rows == 0:
        return memoryview(b"")
    pieces = Pieces(rows)
    head: list[np.ndarray] = [np.full(rows, len(columns), ">i2")]
    for column in columns:
        series = frame[column.name]
        if column.required and series.null_count():
            raise ValueError(f"column {column.name!r} is required but {series.null_count()} values are absent")
        if head and column.kind in _FIXED and not series.null_count():
            values = _fixed(series, column)
            head += [np.full(rows, values.dtype.itemsize, ">i4"), values]
            continue
        if head:
            pieces.add_block(_packed(head, rows))
            head = []
        if column.kind in _FIXED:
            present = series.is_not_null().to_numpy() if series.null_count() else None
            pieces.add_values(_fixed(series if present is None else series.drop_nulls(), column), present)
        else:
            pieces.add_texts(_bytes_or_text(series))
    if head:
        pieces.add_block(_packed(head, rows))
    return pieces.joined()


def _bytes_or_text(series: pl.Series) -> pl.Series:
    """Text, or bytes that are taken as what ``*_recv`` reads (arrays of ``stream.array_copy``)."""
    if series.dtype == pl.List(pl.String):
        return _lists(series)
    return series if series.dtype == pl.Binary else series.cast(pl.String)


def _packed(parts: list[np.ndarray], rows: int) -> np.ndarray:
    """Several columns side by side in one array of records without padding."""
    record = np.empty(rows, np.dtype([(f"f{i}", part.dtype) for i, part in enumerate(parts)]))
    for i, part in enumerate(parts):
        record[f"f{i}"] = part
    return record


def _fixed(series: pl.Series, column: CopyColumn) -> np.ndarray:
    """Values without nulls as big-endian numpy, one item a row."""
    kind = column.kind
    if kind in _INTEGERS:
        return _integers(series.to_numpy(), column)
    if kind == "numeric":
        return _numeric(series)
    if kind == "boolean":
        return series.cast(pl.UInt8).to_numpy()
    if kind == "date":
        return (series.cast(pl.Date).to_physical().to_numpy() - _EPOCH_DAYS).astype(">i4")
    if kind == "real":
        return series.cast(pl.Float32).to_numpy().astype(">f4")
    if kind == "double precision":
        return series.cast(pl.Float64).to_numpy().astype(">f8")
    exact = getattr(series.dtype, "time_unit", None) == "us"  # a call of Polars costs as much as a thousand rows
    stamps = (series if exact else series.dt.cast_time_unit("us")).to_physical().to_numpy()
    return (stamps - _EPOCH_MICROSECONDS).astype(">i8")


def _integers(values: np.ndarray, column: CopyColumn) -> np.ndarray:
    wire = np.dtype(_INTEGERS[column.kind])
    if values.dtype.kind not in "iu":
        raise ValueError(f"column {column.name!r} is {column.postgres_type} but holds {values.dtype}")
    limits = np.iinfo(wire.newbyteorder("="))
    if (
        values.dtype.itemsize > wire.itemsize
        and len(values)
        and not (limits.min <= values.min() and values.max() <= limits.max)
    ):
        raise ValueError(f"column {column.name!r}: {values.max()} does not fit {column.postgres_type}")
    return values.astype(wire)


def _numeric(series: pl.Series) -> np.ndarray:
    """Decimals as ``numeric_recv`` reads them; every row of a chunk has the same count of base-10000 digits.

    Leading and trailing zero digits are allowed on the wire: PostgreSQL strips them.
    """
    if isinstance(series.dtype, pl.Decimal):
        scale = series.dtype.scale
    else:
        series, scale = series.cast(pl.Decimal(38, 0)), 0
    whole, fraction, negative = _split_decimal(series, scale)
    after = (scale + 3) // 4
    before = 1
    while whole.max(initial=0) >= _BASE**before:
        before += 1
    record = np.zeros(len(series), np.dtype([("head", ">i2", 4), ("digits", ">i2", before + after)]))
    record["head"] = (before + after, before - 1, 0, scale)
    record["head"][:, 2] = np.where(negative, 0x4000, 0)
    for position in range(before - 1, -1, -1):
        whole, digit = _divided(whole, _BASE)
        record["digits"][:, position] = digit.astype(np.int16)
    for position in range(before + after - 1, before - 1, -1):
        fraction, digit = _divided(fraction, _BASE)
        record["digits"][:, position] = digit.astype(np.int16)
    return record


def _split_decimal(series: pl.Series, scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Absolute whole part, fraction scaled to full base-10000 digits, sign. int64 where it fits, else Python ints."""
    array = series.to_arrow()
    words = np.frombuffer(array.buffers()[1], np.int64).reshape(-1, 2)[array.offset : array.offset + len(array)]
    low, high = words[:, 0], words[:, 1]
    if scale <= 16 and bool((high == low >> 63).all()) and low.min(initial=0) > -(2**63):
        value = low
    else:
        value = np.array([(int(h) << 64) + (int(x) % 2**64) for x, h in zip(low, high, strict=True)], dtype=object)
    whole, fraction = _divided(np.abs(value), 10**scale)
    return whole, fraction * 10 ** (-scale % 4), value < 0


def _divided(values: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Quotient and rest; numpy's divmod knows no Python integers."""
    quotient = values // by
    return quotient, values - quotient * by


def _lists(series: pl.Series) -> pl.Series:
    """``text[]`` values; few distinct lists occur (combinations of rules), so each is encoded once and repeated."""
    encoded: dict[tuple[str, ...], bytes] = {}
    values: list[bytes | None] = []
    for texts in series.to_list():
        if texts is None:
            values.append(None)
            continue
        key = tuple(texts)
        if key not in encoded:
            encoded[key] = _text_array(texts)
        values.append(encoded[key])
    return pl.Series(series.name, values, dtype=pl.Binary)


def _text_array(texts: list[str]) -> bytes:
    """One ``text[]``: dimensions, no nulls, element type 25 (text), length, lower bound 1, elements (array_recv)."""

    def number(value: int) -> bytes:
        return value.to_bytes(4, "big")

    if not texts:
        return number(0) + number(0) + number(25)
    items = b"".join(number(len(text.encode())) + text.encode() for text in texts)
    return number(1) + number(0) + number(25) + number(len(texts)) + number(1) + items

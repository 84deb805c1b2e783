"""Values found by the scanner become typed columns.

What goes here: one vectorised reader a declared type, and the frame of the messages that all readers are sure of.
What does not: finding values (``scanner.py``), reading bytes (``text.py``), deciding what the sure path leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ct_assets.contracts.model import ERROR, Column, DatasetSchema
from ct_assets.streaming.definition import EARLIEST_US, LATEST_US, UNITS_OF_TIME, Acceptance
from ct_assets.streaming.rules import dtype
from ct_assets.streaming.scanner import Found, Slot
from ct_assets.streaming.text import I64, Bytes, Mask, dates, decimals, integers, timestamps
from ct_assets.streaming.values import zone_of

WORDS = {b"null": 0, b"true": 1, b"false": 2}


@dataclass
class Values:
    """Values of one column before they are a series; ``null`` where the message says null."""

    column: Any
    sure: Mask
    null: Mask | None = None


class Fields:
    """Reads the columns of one schema."""

    def __init__(self, schema: DatasetSchema, acceptance: Acceptance) -> None:
        """Columns that a stream cannot read at once (local times of a zone) leave every message to the exact reader."""
        self._schema = schema
        self._acceptance = acceptance
        self._columns = {c.name: c for c in schema.delivered}
        self._types = {c.name: dtype(c, acceptance) for c in schema.delivered}
        self._needed = {acceptance.event_id, acceptance.entity, acceptance.event_time}
        self._enums = {
            r.columns[0]: sorted(r.limit)
            for r in schema.rules
            if r.kind == "enum" and r.severity == ERROR and len(r.limit) <= 32
        }

    def can_read(self, found: Found) -> bool:
        """False when the layout leaves out what is needed, or names what a closed contract does not know."""
        keys = {slot.key for slot in found.layout.slots}
        return keys >= self._needed and (not self._schema.closed or keys <= set(self._columns))

    def frame(self, data: Bytes, found: Found, base: int) -> tuple[pl.DataFrame, I64]:
        """(typed columns with ``_i`` counted from ``base``, messages that the exact reader must decide)."""
        n = len(found.rows)
        sure = np.ones(n, np.bool_)
        read: dict[str, Values] = {}
        for slot, start, length in zip(found.layout.slots, found.start, found.length, strict=True):
            column = self._columns.get(slot.key)
            values = (
                self._ignored(data, slot, (start, length))
                if column is None
                else self._read(data, column, slot, (start, length))
            )
            sure &= values.sure
            if column is not None:
                read[slot.key] = values
                if slot.key in self._needed and values.null is not None:
                    sure &= ~values.null
        keep = None if sure.all() else np.flatnonzero(sure)
        series = [self._series(data, column, read.get(column.name), keep, n) for column in self._columns.values()]
        rows = found.rows if keep is None else found.rows[keep]
        return pl.DataFrame([*series, pl.Series("_i", rows + base)]), found.rows[~sure]

    def _ignored(self, data: Bytes, slot: Slot, place: tuple[I64, I64]) -> Values:
        """A key that the contract does not know: its value must still be JSON."""
        if slot.is_string:
            return Values(None, np.ones(len(place[0]), np.bool_))
        _, whole = integers(data, *place)
        _, decimal = decimals(data, *place, 9)
        return Values(
            None,
            whole
            | decimal
            | _is_word(data, place, b"null")
            | _is_word(data, place, b"true")
            | _is_word(data, place, b"false"),
        )

    def _read(self, data: Bytes, column: Column, slot: Slot, place: tuple[I64, I64]) -> Values:
        if slot.is_string:
            return self._text(data, column, place)
        null = _is_word(data, place, b"null")
        values = self._bare(data, column, place)
        if not null.any():
            return values
        values.sure |= null
        values.null = null
        return values

    def _text(self, data: Bytes, column: Column, place: tuple[I64, I64]) -> Values:
        if column.type == "string":
            return Values(place, np.ones(len(place[0]), np.bool_))
        if column.type == "timestamp" and zone_of(column) is None:
            us, sure = timestamps(data, *place)
            if column.name == self._acceptance.event_time:
                sure &= (us >= EARLIEST_US) & (us < LATEST_US)
            return Values(us, sure)
        if column.type == "date":
            return Values(*dates(data, *place))
        return Values(np.zeros(len(place[0]), np.int64), np.zeros(len(place[0]), np.bool_))

    def _bare(self, data: Bytes, column: Column, place: tuple[I64, I64]) -> Values:
        if column.type == "integer":
            value, sure = integers(data, *place)
            if column.name == self._acceptance.event_time:
                return self._unit_time(value, sure)
            return Values(value, sure)
        if column.type == "decimal" and column.scale <= 16:
            value, sure = decimals(data, *place, column.scale)
            if column.precision < 18:
                sure &= np.abs(value) < 10**column.precision
            return Values(value, sure)
        if column.type == "number":
            return _floats(data, place)
        if column.type == "boolean":
            true = _is_word(data, place, b"true")
            return Values(true, true | _is_word(data, place, b"false"))
        return Values(np.zeros(len(place[0]), np.int64), np.zeros(len(place[0]), np.bool_))

    def _unit_time(self, value: I64, sure: Mask) -> Values:
        unit = UNITS_OF_TIME[self._acceptance.time_unit]
        return Values(value * unit, sure & (value >= EARLIEST_US // unit) & (value < LATEST_US // unit))

    def _series(self, data: Bytes, column: Column, values: Values | None, keep: I64 | None, n: int) -> pl.Series:
        kind = self._types[column.name]
        if values is None:
            return pl.Series(column.name, [None], kind).new_from_index(0, n if keep is None else len(keep))
        null = values.null if keep is None or values.null is None else values.null[keep]
        if column.type == "string":
            if not isinstance(values.column, tuple):  # bare, so every kept value is null
                return pl.Series(column.name, [None], kind).new_from_index(0, n if keep is None else len(keep))
            start, length = values.column if keep is None else (values.column[0][keep], values.column[1][keep])
            return strings(data, start, length, self._enums.get(column.name)).rename(column.name)
        array = values.column if keep is None else values.column[keep]
        return typed(array, kind, null).rename(column.name)


def _is_word(data: Bytes, place: tuple[I64, I64], word: bytes) -> Mask:
    start, length = place
    return data.equal(start, word) & (length == len(word))


def _floats(data: Bytes, place: tuple[I64, I64]) -> Values:
    """Exact where the digits fit 53 bits and the power of ten is exact (Clinger 1990): one correctly rounded division."""
    start, length = place
    value, sure = integers(data, start, length)
    out = value.astype(np.float64)
    sure &= np.abs(value) < 2**53
    out[(value == 0) & (data.byte(start) == ord("-"))] = -0.0
    rest = np.flatnonzero(~sure)
    if len(rest):
        unscaled, good = decimals(data, start[rest], length[rest], 12)
        good &= np.abs(unscaled) < 2**53
        out[rest] = np.where((unscaled == 0) & (data.byte(start[rest]) == ord("-")), -0.0, unscaled / 1e12)
        sure[rest] = good
    return Values(out, sure)


def typed(array: Any, kind: pl.DataType, null: Mask | None) -> pl.Series:
    """Values (times in microseconds, decimals as scaled integers) as a series of ``kind``, null where ``null`` says so."""
    if isinstance(kind, pl.Decimal):
        limbs = np.empty((len(array), 2), np.int64)
        limbs[:, 0], limbs[:, 1] = array, array >> np.int64(63)
        bits = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
        arrow = pa.Array.from_buffers(
            pa.decimal128(kind.precision or 38, kind.scale), len(array), [bits, pa.py_buffer(limbs)]
        )
        return pl.Series(arrow)
    if kind == pl.Date:
        array = array.astype(np.int32)
    series = pl.Series(array) if kind in (pl.Int64, pl.Float64, pl.Boolean) else pl.Series(array).cast(kind)
    if null is None:
        return series
    return pl.select(pl.when(pl.Series(~null)).then(series)).to_series()


def strings(data: Bytes, start: I64, length: I64, expected: list[str] | None = None) -> pl.Series:
    """Texts at these places; ``expected`` values (an enum) are recognised and need no copy."""
    if expected:
        codes = np.full(len(start), -1, np.int64)
        for code, value in enumerate(expected):
            text = value.encode()
            if text and len(text) <= 48:
                codes[(length == len(text)) & data.equal(start, text)] = code
        if (codes >= 0).all():
            return pl.Series(expected, dtype=pl.String).gather(codes)
    return _copied(data, start, length)


def _copied(data: Bytes, start: I64, length: I64) -> pl.Series:
    """The texts end to end in a buffer of their own, copied length by length (ids have few lengths)."""
    offsets = np.zeros(len(start) + 1, np.int64)
    np.cumsum(length, out=offsets[1:])
    total = int(offsets[-1])
    sizes = np.flatnonzero(np.bincount(length, minlength=1))
    out = np.zeros(total + 8, np.uint8)
    if not total:
        pass
    elif len(sizes) == 1 and sizes[0] <= 128:
        out[:total] = _items(data.data, int(sizes[0]))[start].view(np.uint8)
    elif len(sizes) <= 24 and sizes[-1] <= 128:
        for size in sizes[sizes > 0].tolist():
            rows = np.flatnonzero(length == size)
            _items(out, size)[offsets[rows]] = _items(data.data, size)[start[rows]]
    else:
        out[:total] = data.data[np.repeat(start - offsets[:-1], length) + np.arange(total)]
    array = pa.Array.from_buffers(pa.large_string(), len(start), [None, pa.py_buffer(offsets), pa.py_buffer(out)])
    return pl.Series(array)


def _items(buffer: Any, size: int) -> Any:
    """Every ``size`` bytes of a buffer as one item, at any position."""
    return np.ndarray((len(buffer) - size + 1,), dtype=f"V{size}", buffer=buffer, strides=(1,))

"""One column of a block: from bytes to a typed series, and which rows had no text or no value.

What goes here: choosing the fast reader, reading again what it was not sure of. What does not: either reader
(``fastcasts.py``, ``casts.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from ct_assets.contracts.model import Column, NumberFormat
from ct_assets.ingest import fastcasts
from ct_assets.ingest.casts import cast, dtype
from ct_assets.ingest.fastcasts import Fields, Flags, Ints, Words
from ct_assets.ingest.text import view_array
from ct_assets.ingest.zones import to_utc

BYTE_TRANSFORMS = ("trim", "stripTrailingPointZero")
MAX_FAST_SCALE = 10  # eight digits times 10^10 stay within 64 bits


@dataclass(frozen=True)
class Read:
    """A column of a block. ``None`` flags mean: in no row.

    ``absent``: no text. ``unread``: text that is no value of the type. ``local``: local time of a zoned timestamp;
    ``skipped``/``repeated``: local times without a single meaning.
    """

    values: pl.Series
    absent: Flags | None = None
    unread: Flags | None = None
    local: pl.Series | None = None
    skipped: Flags | None = None
    repeated: Flags | None = None


class ColumnReader:
    """Reads one column, block after block."""

    def __init__(self, column: Column) -> None:
        """Splits the transforms: a leading trim and strip of ``.0`` happen on the bytes."""
        self.column = column
        self._local = bool(column.type == "timestamp" and column.time_zone and not column.offsets)
        typed = replace(column, time_zone=None) if self._local else column  # the zone is applied here, on integers
        self._slow = cast(typed)
        early = 0
        while early < len(column.transforms) and column.transforms[early] in BYTE_TRANSFORMS:
            early += 1
        self._early = column.transforms[:early]
        self._late = cast(replace(typed, transforms=column.transforms[early:]))
        self._upper = column.transforms[early:] == ("upper",) and not column.null_tokens
        plain = column.number_format == NumberFormat() and not column.leading_zeros and not column.null_tokens
        self._fast = (
            _FAST.get((column.type, column.formats[:1])) if plain and not self._late.column.transforms else None
        )
        if column.type == "decimal" and column.scale > MAX_FAST_SCALE:
            self._fast = None

    def read(self, fields: Fields) -> Read:
        """Read the column's fields of a block."""
        name, reader = self.column.name, self._late
        for transform in self._early:
            if transform == "trim":
                fields, doubt = fastcasts.trim(fields)
                if doubt.any():
                    return self._read_slowly(fields)
            else:
                fields = fastcasts.strip_point_zero(fields)
        if self.column.type == "string":
            return self._read_text(name, fields)
        present = fields.ends > fields.starts
        absent = None if present.all() else ~present
        if self._fast is None:
            values, absent = _through(reader, _text(name, fields))
            return self._finish(values, absent)
        numbers, sure = self._fast(fields, self.column)
        again = np.flatnonzero(present & ~sure)
        if len(again):
            slow, _ = _through(reader, _text(name, Fields(fields.text, fields.starts[again], fields.ends[again])))
            if self._local:
                numbers[again], sure[again] = _plain(slow)
                return self._zoned(numbers, sure, absent)
            return self._finish(_put(_series(self.column, numbers, sure), again, slow), absent)
        return (
            self._zoned(numbers, sure, absent)
            if self._local
            else self._finish(_series(self.column, numbers, sure), absent)
        )

    def _read_text(self, name: str, fields: Fields) -> Read:
        values = self._texts(name, fields)
        if not values.null_count():
            return Read(values)
        if self._late.text is None or self._upper:  # these leave no text empty that was not
            return Read(values, fields.ends == fields.starts)
        return Read(values, values.is_null().to_numpy())

    def _texts(self, name: str, fields: Fields) -> pl.Series:
        """Text after the transforms that are left; upper case only for rows that it may change, where those are few."""
        late = self._late.text
        if late is None:
            return _text(name, fields)
        if self._upper:  # the usual codes: a few bits of the views are flipped, no text is made
            flips, sure = fastcasts.to_upper(fields)
            again = np.flatnonzero(~sure)
            if len(again) * 4 <= len(sure):
                values = _text(name, fields, flips)
                return _put(values, again, values[again].to_frame().select(late).to_series()) if len(again) else values
        return _text(name, fields).to_frame().select(late).to_series()

    def _read_slowly(self, fields: Fields) -> Read:
        """All transforms through Polars: a white space beyond ASCII may stand at an end."""
        values, absent = _through(self._slow, _text(self.column.name, fields))
        return Read(values, absent) if self.column.type == "string" else self._finish(values, absent)

    def _zoned(self, numbers: Ints, valid: Flags, absent: Flags | None) -> Read:
        """Local microseconds as UTC: all on integers, as a call of Polars' series costs as much as reading 2,000 rows."""
        here = None if valid.all() else valid
        known = numbers if here is None else np.where(valid, numbers, numbers[np.argmax(valid)] if valid.any() else 0)
        found = to_utc(known, self.column.time_zone or "UTC")
        skipped, repeated = (_some(flags, valid) for flags in (found.skipped, found.repeated))
        unread = None if here is None else _some(~valid, np.ones(len(valid), bool) if absent is None else ~absent)
        meant = valid & ~_or_false(skipped) & ~_or_false(repeated)
        local = _series(self.column, numbers, valid)
        return Read(_series(self.column, found.utc, meant), absent, unread, local, skipped, repeated)

    def _finish(self, values: pl.Series, absent: Flags | None) -> Read:
        if self._local:
            return self._zoned(*_plain(values), absent)
        missing = int(np.count_nonzero(absent)) if absent is not None else 0
        unread = None
        if values.null_count() > missing:
            unread = values.is_null().to_numpy() & (~absent if absent is not None else True)
        return Read(values, absent, unread)


def _plain(values: pl.Series) -> tuple[Ints, Flags]:
    """Integers behind a series of times, 0 where it is NULL; and where it is not."""
    return values.to_physical().fill_null(0).to_numpy().copy(), values.is_not_null().to_numpy()


def _or_false(flags: Flags | None) -> Any:
    return False if flags is None else flags


def _some(flags: Flags | None, where: Flags) -> Flags | None:
    if flags is None:
        return None
    flags = flags & where
    return flags if flags.any() else None


def _text(name: str, fields: Fields, flips: tuple[Words, Words] | None = None) -> pl.Series:
    return pl.Series(name, pl.from_arrow(view_array(fields.text, fields.starts, fields.ends, flips)))


def _through(reader: Any, text: pl.Series) -> tuple[pl.Series, Flags | None]:
    """The slow path: expressions of ``casts.py``."""
    frame = text.to_frame()
    if reader.text is not None:
        frame = frame.select(reader.text)
    absent = frame.to_series().is_null().to_numpy() if frame.to_series().null_count() else None
    if reader.value is not None:
        frame = frame.select(reader.value)
    return frame.to_series().alias(text.name), absent


def _put(values: pl.Series, rows: Ints, others: pl.Series) -> pl.Series:
    """``values`` with the given rows replaced."""
    take = np.arange(len(values))
    take[rows] = len(values) + np.arange(len(rows))
    return pl.concat([values, others.cast(values.dtype)]).gather(take)


def _series(column: Column, numbers: Ints, valid: Flags) -> pl.Series:
    """A series of the column's type over integers (unscaled, days, microseconds), NULL where not valid."""
    import pyarrow as pa

    local = column.type == "timestamp"
    nulls = len(valid) - int(np.count_nonzero(valid))
    mask = pa.py_buffer(np.packbits(valid, bitorder="little")) if nulls else None
    if column.type == "decimal":
        wide = np.empty((len(numbers), 2), np.int64)
        wide[:, 0], wide[:, 1] = numbers, numbers >> 63
        kind, data = pa.decimal128(column.precision, column.scale), wide
    elif column.type == "date":
        kind, data = pa.date32(), numbers.astype(np.int32)
    else:
        zone = "UTC" if local and getattr(dtype(column), "time_zone", None) else None
        kind, data = (pa.timestamp("us", zone) if local else pa.int64()), np.ascontiguousarray(numbers)
    array = pa.Array.from_buffers(kind, len(numbers), [mask, pa.py_buffer(data)], null_count=nulls)
    return pl.Series(column.name, pl.from_arrow(array))


_STAMP, _DAY = ("yyyy-MM-dd HH:mm:ss",), ("yyyy-MM-dd",)
_FAST: dict[tuple[str, tuple[str, ...]], Any] = {
    ("integer", ()): lambda fields, column: fastcasts.integers(fields),
    ("decimal", ()): lambda fields, column: fastcasts.decimals(fields, column.scale, column.precision),
    ("date", _DAY): lambda fields, column: fastcasts.dates(fields),
    ("timestamp", _STAMP): lambda fields, column: fastcasts.timestamps(fields),
}

"""One aggregate over ranges of one column: exact for integers and decimals, from left to right for floats.

What goes here: a column as an array that folds, and the ten functions over it. What does not: ranges of windows
(``windows.py``), folding itself (``ranges.py``).

avg, var and std of integers and decimals are the doubles nearest to the exact value (sums are exact, then one
division); of floats they follow the left-to-right sums. std is the square root of var.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.streaming.definition import Aggregate, Definition
from ct_assets.streaming.known import Cut
from ct_assets.streaming.ranges import F64, I64, big_sums, distinct_counts, expanded, extremes, float_sums, int_sums

Ranges = tuple[I64, I64]
_EXACT = 2**53  # integers up to this are exact as doubles


def result_dtype(definition: Definition, aggregate: Aggregate) -> pl.DataType:
    """The Polars type of an aggregate's column."""
    kind = definition.result_type(aggregate)
    if kind.startswith("decimal("):
        precision, scale = kind[8:-1].split(",")
        return pl.Decimal(int(precision), int(scale))
    simple: dict[str, Any] = {
        "integer": pl.Int64,
        "number": pl.Float64,
        "string": pl.String,
        "boolean": pl.Boolean,
        "date": pl.Date,
        "timestamp": pl.Datetime("us", "UTC"),
    }
    found = simple[kind]
    return found() if isinstance(found, type) else found


@dataclass(frozen=True)
class All:
    """Ranges [lo, hi) of which every event counts: the corrected reading."""

    lo: I64
    hi: I64
    mixed: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    unknown: I64 = field(default_factory=lambda: np.empty(0, np.int64))


class Measured:
    """A column without nulls, as numbers: ``whole`` (unscaled integers) or ``real``; ``series`` keeps the original."""

    def __init__(self, series: pl.Series) -> None:
        """Decimals become unscaled integers; other types (text, dates) only have ``series``."""
        self.series = series
        self.scale = series.dtype.scale if isinstance(series.dtype, pl.Decimal) else 0
        self.real: F64 | None = series.to_numpy() if series.dtype == pl.Float64 else None
        self.whole: npt.NDArray[Any] | None = None
        self._squares: npt.NDArray[Any] | None = None
        self._codes: I64 | None = None
        if series.dtype == pl.Int64:
            self.whole = series.to_numpy()
        elif isinstance(series.dtype, pl.Decimal):
            self.whole = _unscaled(series)

    def sums(self, ranges: Ranges) -> npt.NDArray[Any]:
        """Exact unscaled sums, or sums of floats."""
        if self.real is not None:
            return float_sums(self.real, *ranges)
        return _whole_sums(self.whole, ranges)

    def sizes(self, ranges: Ranges) -> I64:
        """How many values each range has."""
        return ranges[1] - ranges[0]

    def square_sums(self, ranges: Ranges) -> npt.NDArray[Any]:
        """Exact sums of squares of the unscaled integers."""
        if self._squares is None:
            whole = self.whole if self.whole is not None else np.empty(0, np.int64)
            small = not len(whole) or max(abs(int(whole.max())), abs(int(whole.min()))) < 2**31
            self._squares = whole * whole if small and whole.dtype == np.int64 else whole.astype(object) ** 2
        return _whole_sums(self._squares, ranges)

    def codes(self) -> I64:
        """Small integers that are equal where the values are."""
        if self._codes is None:
            self._codes = self.series.rank("dense").cast(pl.Int64).to_numpy()
        return self._codes


def _whole_sums(values: npt.NDArray[Any] | None, ranges: Ranges) -> npt.NDArray[Any]:
    if values is None:
        raise TypeError("no numbers to add")
    return int_sums(values, *ranges) if values.dtype == np.int64 else big_sums(values, *ranges)


def _unscaled(series: pl.Series) -> npt.NDArray[Any]:
    physical = series.to_physical()
    if not len(physical):
        return np.empty(0, np.int64)
    fits = physical.cast(pl.Int64, strict=False)
    if fits.null_count() == 0:
        return fits.to_numpy()
    return np.array(physical.to_list(), object)


def result(aggregate: Aggregate, column: Measured, cut: Cut | All, kind: pl.DataType) -> pl.Series:
    """The aggregate of each range as a series of type ``kind``; null where there is no value.

    Exact sums leave out what was not known by subtracting it; everything else reads mixed ranges anew.
    """
    ranges = (cut.lo, cut.hi)
    if not len(cut.mixed) or isinstance(cut, All):
        return _result(aggregate, column, ranges, kind)
    if aggregate.function in ("sum", "avg") and column.whole is not None:
        known = _KnownSums(column, cut)
        return (
            _sum(aggregate.name, known, ranges, kind)
            if aggregate.function == "sum"
            else _average(aggregate, known, ranges, kind)
        )
    values = _result(aggregate, column, ranges, kind)
    for labels, position, lo, hi in cut.written_out():
        part = _result(aggregate, Measured(column.series.gather(position)), (lo, hi), kind)
        values = values.scatter(labels, part)
    return values


class _KnownSums(Measured):
    """A column whose sums leave out what was not known."""

    def __init__(self, column: Measured, cut: Cut) -> None:
        self.series, self.scale, self.real, self.whole = column.series, column.scale, column.real, column.whole
        self._cut = cut

    def sums(self, ranges: Ranges) -> npt.NDArray[Any]:
        sums = _whole_sums(self.whole, ranges)
        whole = self.whole if self.whole is not None else np.empty(0, np.int64)
        unknown = self._cut.unknown_sums(whole, lambda values, lo, hi: _whole_sums(values, (lo, hi)).astype(object))
        sums = sums.astype(object) if sums.dtype == object else sums
        known = sums[self._cut.mixed].astype(object) - unknown
        if sums.dtype != object and any(abs(int(v)) >= 2**63 for v in known):
            sums = sums.astype(object)
        sums[self._cut.mixed] = known
        return sums

    def sizes(self, ranges: Ranges) -> I64:
        sizes = ranges[1] - ranges[0]
        sizes[self._cut.mixed] -= self._cut.unknown
        return sizes


def _result(aggregate: Aggregate, column: Measured, ranges: Ranges, kind: pl.DataType) -> pl.Series:
    lo, hi = ranges
    function = aggregate.function
    if function == "count_distinct":
        return pl.Series(aggregate.name, distinct_counts(column.codes(), lo, hi), kind)
    if function == "sum":
        return _sum(aggregate.name, column, ranges, kind)
    if function == "avg":
        return _average(aggregate, column, ranges, kind)
    if function in ("var", "std"):
        numbers = _variance(column, ranges)
        numbers = np.sqrt(numbers) if function == "std" else numbers
        return _with_nulls(pl.Series(aggregate.name, numbers, kind), hi - lo < 2)
    return _picked(aggregate, column, ranges, kind)


def _average(aggregate: Aggregate, column: Measured, ranges: Ranges, kind: pl.DataType) -> pl.Series:
    return _with_nulls(pl.Series(aggregate.name, _avg(column, ranges), kind), column.sizes(ranges) < 1)


def _with_nulls(series: pl.Series, empty: npt.NDArray[np.bool_]) -> pl.Series:
    if not empty.any():
        return series
    return pl.select(pl.when(pl.Series(~empty)).then(series).alias(series.name)).to_series()


def _sum(name: str, column: Measured, ranges: Ranges, kind: pl.DataType) -> pl.Series:
    """The sum of nothing is 0; null where one of integers does not fit 64 bits, of decimals 38 digits, as online."""
    sums = column.sums(ranges)
    if sums.dtype == np.float64:
        return pl.Series(name, sums, kind)
    if sums.dtype != object:
        return _wholes(name, sums, kind)
    least, most = (1 - 10**38, 10**38 - 1) if isinstance(kind, pl.Decimal) else (-(2**63), 2**63 - 1)
    beyond = np.array([not least <= int(s) <= most for s in sums], bool)
    return _with_nulls(_wholes(name, np.where(beyond, 0, sums), kind), beyond)


def _wholes(name: str, values: npt.NDArray[Any], kind: pl.DataType) -> pl.Series:
    if isinstance(kind, pl.Decimal):
        return _decimals(name, values, kind)
    return pl.Series(name, values.astype(np.int64), kind)


def _decimals(name: str, unscaled: npt.NDArray[Any], kind: pl.Decimal) -> pl.Series:
    """Unscaled integers as decimals, without dividing."""
    import pyarrow as pa

    if unscaled.dtype == object:
        limbs = np.array([(int(v) & (2**64 - 1), (int(v) >> 64) & (2**64 - 1)) for v in unscaled], np.uint64)
    else:
        limbs = np.stack([unscaled.astype(np.int64), unscaled.astype(np.int64) >> np.int64(63)], axis=1).view(np.uint64)
    buffer = pa.py_buffer(np.ascontiguousarray(limbs.reshape(-1, 2)))
    array = pa.Array.from_buffers(pa.decimal128(kind.precision or 38, kind.scale), len(unscaled), [None, buffer])
    return pl.Series(name, array).cast(kind)


def _avg(column: Measured, ranges: Ranges) -> F64:
    size = np.maximum(column.sizes(ranges), 1)
    sums = column.sums(ranges)
    if sums.dtype == np.float64:
        return sums / size
    return _quotients(sums, size * 10**column.scale if column.scale < 12 else size.astype(object) * 10**column.scale)


def _variance(column: Measured, ranges: Ranges) -> F64:
    lo, hi = ranges
    size = hi - lo
    if column.real is not None:
        return _float_variance(column.real, ranges)
    n, sums = size.astype(object), column.sums(ranges).astype(object)
    above = n * column.square_sums(ranges).astype(object) - sums * sums
    return _quotients(above, np.where(size < 2, 1, n * (n - 1)) * 10 ** (2 * column.scale))


def _float_variance(values: F64, ranges: Ranges) -> F64:
    """Two passes, each from left to right: the mean, then the squares of the distances from it."""
    lo, hi = ranges
    size = hi - lo
    mean = float_sums(values, lo, hi) / np.maximum(size, 1)
    squares = np.zeros(len(lo), np.float64)
    for block, position, owner in expanded(lo, hi):
        ends = np.cumsum(size[block])
        with np.errstate(over="ignore"):  # beyond a double is an infinity, which is the value
            distance = values[position] - mean[block][owner]
            distance *= distance
        squares[block] = float_sums(distance, ends - size[block], ends)
    return squares / np.maximum(size - 1, 1)


def _quotients(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> F64:
    """The nearest double of each quotient: of integers that doubles hold, one division; else Python's exact one."""
    if above.dtype == np.int64 and below.dtype == np.int64:
        out = above.astype(np.float64) / below.astype(np.float64)
        large = np.flatnonzero((np.abs(above) > _EXACT) | (below > _EXACT))
    else:
        out, large = np.empty(len(above), np.float64), np.arange(len(above))
    for i in large:
        out[i] = _quotient(int(above[i]), int(below[i]))
    return out


def _quotient(above: int, below: int) -> float:
    try:
        return above / below  # of Python integers: correctly rounded
    except OverflowError:
        return math.copysign(math.inf, above)


def _picked(aggregate: Aggregate, column: Measured, ranges: Ranges, kind: pl.DataType) -> pl.Series:
    """min, max, first, last: one of the values."""
    lo, hi = ranges
    empty = hi <= lo
    if not len(column.series):
        return pl.Series(aggregate.name, [None] * len(lo), kind)
    if aggregate.function in ("min", "max") and column.whole is not None and column.whole.dtype == np.int64:
        found = extremes(column.whole, lo, hi, larger=aggregate.function == "max")
        return _with_nulls(_wholes(aggregate.name, found, kind), empty)
    if aggregate.function in ("first", "last"):
        where = lo if aggregate.function == "first" else hi - 1
    else:
        # ranks order every type alike, and find the row that holds the extreme
        codes = column.codes() if column.real is None else column.real
        order = _row_of_extreme(codes, ranges, aggregate.function == "max")
        where = order
    where = np.where(empty, 0, where)
    return _with_nulls(column.series.gather(where).rename(aggregate.name).cast(kind), empty)


def _row_of_extreme(values: npt.NDArray[Any], ranges: Ranges, larger: bool) -> I64:
    """A row of each range that holds its extreme."""
    found = extremes(values, *ranges, larger=larger)
    order = np.argsort(values, kind="stable")
    return order[np.minimum(np.searchsorted(values, found, sorter=order), len(values) - 1)]

"""What Redis returned, as values: sums put together, or the events of the windows folded. Exact.

What goes here: finishing one read. What does not: the window's cut and the sums, which Lua makes (``redis_read_script``).
Pure.

Counts, sums, extremes, averages and variances of exact columns come as merged sums and need one division at most. Where
the events themselves are needed (floats, which are added from left to right, first, last, distinct values, variances of
wide numbers), Lua cuts out those of the longest window and Python folds them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import cached_property
from typing import Any

import numpy as np

from ct_assets.adapters.stream.layout import Kept
from ct_assets.adapters.stream.packed_form import LIMB, Packing, answer_width, limbs_of, summary_width, whole
from ct_assets.streaming.definition import Aggregate

_EPOCH, _DAY = datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)
_CONTEXT = Context(prec=100)  # more digits than any exact sum has
_DIGITS = 10**38
_BEYOND = 1 << 63  # the first integer that needs more than 64 bits
_GROUP = struct.Struct("<iI")
Finish = Callable[[Sequence[float]], Any]


@dataclass(frozen=True)
class _Event:
    """One event of the longest window; ``values`` by column, None where null."""

    time: int
    partition: int
    offset: int
    filters: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Finisher:
    """Finishes answers about one definition."""

    packing: Packing

    def values(self, answer: bytes, at_us: int) -> dict[str, Any]:
        """The aggregates of one entity, out of what Lua returned for it."""
        if self._plan is not None:
            numbers = self._doubles.unpack(answer)
            return {name: finish(numbers) for name, finish in self._plan}
        events = sorted(self._events(answer), key=lambda e: (e.time, e.partition, e.offset))
        return {a.name: self._folded(a, events, at_us) for a in self.packing.layout.definition.aggregates}

    @cached_property
    def _doubles(self) -> struct.Struct:
        aggregates = self.packing.layout.definition.aggregates
        return struct.Struct(f"<{sum(answer_width(self.packing, a) for a in aggregates)}d")

    @cached_property
    def _plan(self) -> list[tuple[str, Finish]] | None:
        """Per aggregate what makes its value of the answer's numbers; None where events are folded."""
        if not self.packing.summarised:
            return None
        plan, at = [], 0
        for aggregate in self.packing.layout.definition.aggregates:
            plan.append((aggregate.name, self._finish(aggregate, at)))
            at += answer_width(self.packing, aggregate)
        return plan

    def _finish(self, aggregate: Aggregate, at: int) -> Finish:
        """What turns merged summaries, from ``at`` on, into the value."""
        if aggregate.function == "count" or aggregate.column is None:
            return lambda d: int(d[at])
        column = self.packing.layout.column(aggregate.column)
        if aggregate.function in ("min", "max"):
            return _extreme(column, at)
        widths = [summary_width(s) for s in self.packing.layout.needed(aggregate)]
        if aggregate.function == "sum":
            return _total(column, at, widths[0])
        second, third, end = at + 1, at + 1 + widths[1], at + sum(widths)

        def finish(d: Sequence[float]) -> float | None:
            return _moment(aggregate, column, int(d[at]), whole(d[second:third]), whole(d[third:end]))

        return finish

    # -- events ----------------------------------------------------------------------------------------------------

    def _events(self, answer: bytes) -> Iterator[_Event]:
        at = 0
        while at < len(answer):
            partition, size = _GROUP.unpack_from(answer, at)
            at += _GROUP.size
            for event in self._of_row(answer[at : at + size]):
                yield _Event(*event[:1], partition, *event[1:])
            at += size

    def _of_row(self, data: bytes) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
        """(time, offset, filters, values) of events back to back."""
        at, width = 0, self.packing.event.itemsize
        while at < len(data):
            fixed = np.frombuffer(data, self.packing.event, 1, at)[0]
            text_at = at + width
            values: dict[str, Any] = {}
            for bit, column in enumerate(self.packing.layout.kept):
                values[column.name] = True  # of a column that is only counted
                if column in self.packing.valued:
                    raw = fixed[f"c{column.position}"]
                    if column.kind == "text":
                        values[column.name] = data[text_at : text_at + int(raw)].decode()
                        text_at += int(raw)
                    else:
                        values[column.name] = _number(column, raw)
                if int(fixed["z"]) >> bit & 1:
                    values[column.name] = None
            yield int(fixed["t"]), int(fixed["o"]), int(fixed["m"]), values
            at += int(fixed["size"])

    def _folded(self, aggregate: Aggregate, events: list[_Event], at_us: int) -> Any:
        tail, bit = aggregate.tail(at_us), self.packing.layout.filters.index(aggregate.where)
        chosen = [e.values for e in events if tail <= e.time < at_us and e.filters >> bit & 1]
        if aggregate.column is None:
            return len(chosen)
        column = self.packing.layout.column(aggregate.column)
        return _fold(aggregate, column, [v for c in chosen if (v := c[column.name]) is not None])


def _number(column: Kept, raw: Any) -> Any:
    """A value as it is folded: exact ones unscaled."""
    if column.kind == "wide":
        return int.from_bytes(bytes(raw), "little", signed=True)
    return float(raw) if column.kind == "number" else int(raw)


def _fold(aggregate: Aggregate, column: Kept, values: list[Any]) -> Any:
    function = aggregate.function
    if function in ("count", "count_distinct"):
        return len(values) if function == "count" else len(set(values))
    if function == "sum":
        return _sum(column, sum(values)) if column.exact else _added(values)
    if not values:
        return None
    if function in ("first", "last"):
        return _typed(column, values[0 if function == "first" else -1])
    if function in ("min", "max"):
        return _typed(column, min(values) if function == "min" else max(values))
    if column.exact:
        return _moment(aggregate, column, len(values), sum(values), sum(v * v for v in values))
    return _of_floats(function, values)


def _added(values: list[float]) -> float:
    """From left to right (``sum`` compensates since Python 3.12)."""
    total = 0.0
    for value in values:
        total += value
    return total


def _of_floats(function: str, values: list[float]) -> float | None:
    mean = _added(values) / len(values)
    if function == "avg":
        return mean
    if len(values) < 2:
        return None
    variance = _added([(v - mean) * (v - mean) for v in values]) / (len(values) - 1)
    return variance if function == "var" else math.sqrt(variance)


def _total(column: Kept, at: int, width: int) -> Finish:
    """A sum whose limbs lie from ``at`` on; most are nothing."""
    nothing, end = _sum(column, 0), at + width

    def finish(d: Sequence[float]) -> Any:
        total = whole(d[at:end])
        return _sum(column, total) if total else nothing

    return finish


def _extreme(column: Kept, at: int) -> Finish:
    """An extreme whose flag lies at ``at``, its limbs behind."""
    first, end = at + 1, at + 1 + limbs_of(column)
    if limbs_of(column) == 1:
        return lambda d: _typed(column, d[first]) if d[at] else None
    return lambda d: _typed(column, whole(d[first:end])) if d[at] else None


def _sum(column: Kept, total: int) -> int | Decimal | None:
    """An exact sum; None when an integer's does not fit 64 bits or a decimal's 38 digits, as in PostgreSQL."""
    if column.kind == "integer":
        return total if -_BEYOND <= total < _BEYOND else None
    if abs(total) >= _DIGITS:
        return None
    return _CONTEXT.scaleb(Decimal(total), -column.scale)


def _moment(aggregate: Aggregate, column: Kept, count: int, total: int, squares: int) -> float | None:
    """avg, var, std: the double nearest to the exact value (a division of integers in Python is)."""
    unit = 10**column.scale
    if aggregate.function == "avg":
        return total / (count * unit) if count else None
    if count < 2:
        return None
    variance = (count * squares - total * total) / (count * (count - 1) * unit * unit)
    return variance if aggregate.function == "var" else math.sqrt(variance)


def _typed(column: Kept, value: Any) -> Any:
    """A folded value in the column's type."""
    if column.kind in ("scaled", "wide"):
        return _CONTEXT.scaleb(Decimal(value), -column.scale)
    if column.kind == "time":
        return _EPOCH + timedelta(microseconds=value)
    if column.kind == "date":
        return _DAY + timedelta(days=int(value))
    return bool(value) if column.kind == "boolean" else value


assert LIMB == 24  # the formats of packed_form and of the scripts say so too

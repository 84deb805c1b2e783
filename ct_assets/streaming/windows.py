"""The window kernel: what every aggregate of a definition is worth for many (entity, moment) at once.

What goes here: which accepted events lie in which window, and the aggregates over them. What does not: folds over
ranges (``ranges.py``), acceptance, storage. Batch, backfill, training and ``ct stream compute`` all use this.

Events are sorted once per filter by a packed (entity, time) key; each window is two binary searches. ``[tail, at)``
holds the events of a window; ``sawtooth`` rounds the tail DOWN to a multiple of the hop, so its width is between W and
W + hop. At multiples of the hop both modes are ``[at - W, at)``, which is also what Flink's HOP and Spark's window()
report for the window that ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.streaming.definition import Aggregate, Definition
from ct_assets.streaming.keys import Keys, codes
from ct_assets.streaming.known import Cut, Timeline
from ct_assets.streaming.measures import All, Measured, result, result_dtype
from ct_assets.streaming.ranges import I64, expanded

ORDER = ("_partition", "_offset")


class _Side:
    """Events of one filter. Sorted by (entity, time) keys at once; rows follow only where an aggregate reads them."""

    def __init__(self, frame: pl.DataFrame, largest_code: int) -> None:
        self._frame = frame
        self._time, self._code = frame["_time"].to_numpy(), frame["_code"].to_numpy()
        self.keys = Keys.over(largest_code, self._time)
        self.largest_code = largest_code
        self._packed = self.keys.of(self._code, self._time)
        self._measured: dict[str, Measured] = {}

    @cached_property
    def packed(self) -> I64:
        """The keys in order."""
        return np.sort(self._packed)  # eight times as fast as argsort, and all that a count needs

    @cached_property
    def _order(self) -> I64:
        """Rows by (entity, time, partition, offset); few times are equal, so only those are looked at twice."""
        order = np.argsort(self._packed, kind="stable")
        ordered = self._packed[order]
        tied = np.flatnonzero(ordered[1:] == ordered[:-1])
        if not len(tied) or ORDER[0] not in self._frame.columns:
            return order
        among = np.unique(np.concatenate([tied, tied + 1]))
        rows = order[among]
        partition, offset = (self._frame[name].to_numpy()[rows] for name in ORDER)
        order[among] = rows[np.lexsort((offset, partition, self._packed[rows]))]
        return order

    @cached_property
    def timeline(self) -> Timeline:
        """When each event became known, in order."""
        since = self._frame["_known_at"].to_numpy()[self._order]
        return Timeline.of(since, self._code[self._order], self.largest_code)

    def measured(self, column: str) -> Measured:
        """One column in order."""
        if column not in self._measured:
            self._measured[column] = Measured(self._frame[column].gather(self._order))
        return self._measured[column]


def evaluate(
    definition: Definition,
    events: pl.DataFrame,
    entities: pl.Series,
    at: npt.ArrayLike,
    *,
    as_known_at: npt.ArrayLike | None = None,
) -> pl.DataFrame:
    """One column an aggregate, one row a (entity, at), in the order given; unknown entities count 0.

    ``events``: accepted events in any order (``Accepted.events``); ``at``: microseconds. ``as_known_at``: only events
    with ``_known_at`` at or before that moment (one a row), which is what an online reader could have been told.
    """
    moments = np.asarray(at, np.int64)
    known = None if as_known_at is None else np.asarray(as_known_at, np.int64)
    events, code, label_code = _coded(definition, events, entities, moments)
    largest = max(int(code.max(initial=0)), int(label_code.max(initial=0)))
    order = np.argsort(Keys.over(largest, moments).of(label_code, moments))  # searches in order spare cache misses
    labels = _Labels(label_code[order], moments[order], None if known is None else known[order])
    sides: dict[Any, _Side] = {}
    cuts: dict[Any, Cut | All] = {}
    columns = []
    for aggregate in definition.aggregates:
        side_key = (aggregate.where, _needs_value(aggregate, events))
        if side_key not in sides:
            sides[side_key] = _Side(_filtered(definition, events, code, (aggregate, side_key[1])), largest)
        window = (side_key, aggregate.window_us, aggregate.hop_us)
        if window not in cuts:
            cuts[window] = labels.ranges(sides[side_key], aggregate)
        columns.append(_measure(definition, aggregate, sides[side_key], cuts[window]))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pl.DataFrame(columns)[back]


def _coded(
    definition: Definition, events: pl.DataFrame, entities: pl.Series, moments: I64
) -> tuple[pl.DataFrame, I64, I64]:
    """The events that any label can see, entity codes of them, entity codes of the labels (-1: none has events)."""
    time = definition.acceptance.event_time
    if not len(moments):
        return events.clear(), np.empty(0, np.int64), np.empty(0, np.int64)
    asked = entities.unique().drop_nulls()
    low, high = int(moments.min()) - definition.max_window_us, int(moments.max())
    stamp = pl.col(time).to_physical()
    in_reach = (stamp >= low) & (stamp < high)
    if asked.len() < 4_096 or asked.len() * 4 < events.height:
        in_reach = in_reach & pl.col(definition.entity).is_in(asked.implode())
    events = events.filter(in_reach)
    both = pl.concat(
        [events[definition.entity].rename("e"), entities.cast(events.schema[definition.entity]).rename("e")]
    )
    found = codes(both)
    return events, found[: events.height], found[events.height :]


def _needs_value(aggregate: Aggregate, events: pl.DataFrame) -> str | None:
    """The column whose nulls must be left out; None when there are none to leave out."""
    column = aggregate.column
    return column if column is not None and events[column].null_count() else None


def _filtered(
    definition: Definition, events: pl.DataFrame, code: I64, wanted: tuple[Aggregate, str | None]
) -> pl.DataFrame:
    """The events of one filter that have the value, with their entity codes and times."""
    aggregate, value = wanted
    keep = [_one_of(pl.col(column), allowed) for column, allowed in aggregate.where]
    if value is not None:
        keep.append(pl.col(value).is_not_null())
    read = [c for c in (*definition.columns, "_known_at", *ORDER) if c in events.columns]
    time = pl.col(definition.acceptance.event_time).to_physical().alias("_time")
    frame = events.select(*read, pl.Series("_code", code), time)
    return frame.filter(keep) if keep else frame


def _one_of(column: pl.Expr, allowed: tuple[Any, ...]) -> pl.Expr:
    return column == allowed[0] if len(allowed) == 1 else column.is_in(list(allowed))


@dataclass(frozen=True)
class _Labels:
    """The (entity, moment) pairs that are asked for."""

    code: I64
    at: I64
    known: I64 | None

    def ranges(self, side: _Side, aggregate: Aggregate) -> Cut | All:
        """The range of each label's events in the side."""
        tail = self.at - aggregate.window_us
        if aggregate.hop_us is not None:
            tail = tail // aggregate.hop_us * aggregate.hop_us
        lo = np.searchsorted(side.packed, side.keys.of(self.code, tail))
        hi = np.maximum(np.searchsorted(side.packed, side.keys.of(self.code, self.at)), lo)
        if self.known is None:
            return All(lo, hi)
        return side.timeline.cut((lo, hi), self.code, self.known)


def _measure(definition: Definition, aggregate: Aggregate, side: _Side, cut: Cut | All) -> pl.Series:
    kind = result_dtype(definition, aggregate)
    if aggregate.function == "count":
        counts = cut.hi - cut.lo
        counts[cut.mixed] -= cut.unknown
        return pl.Series(aggregate.name, counts, kind)
    column = aggregate.column or ""
    return result(aggregate, side.measured(column), cut, kind)


def hops(definition: Definition, events: pl.DataFrame, watermark_from: int, watermark_to: int) -> pl.DataFrame:
    """The rows that hop emission gives as the watermark moves from one value to another: entity, window_end, aggregates.

    A window ``[end - W, end)`` is emitted once, when the watermark reaches ``end`` (a multiple of ``emit.hop`` since
    1970); an entity has a row where its longest window holds at least one event. Where two windows of a definition
    differ in length, the row is that of the longest, so a shorter one may count 0.
    """
    hop = definition.emit_hop_us
    if hop is None:
        raise ValueError(f"{definition.name} has no `emit: {{hop: ...}}`")
    first, last = watermark_from // hop + 1, watermark_to // hop
    time = events[definition.acceptance.event_time].to_physical().to_numpy()
    # an event at t lies in the longest window of the ends t // hop + 1 ... (t + W) // hop
    low = np.maximum(time // hop + 1, first)
    high = np.minimum((time + max(a.window_us for a in definition.aggregates)) // hop, last)
    pairs = [
        pl.DataFrame(
            {definition.entity: events[definition.entity].clear(), "window_end": pl.Series([], dtype=pl.Int64)}
        )
    ]
    for block, end, owner in expanded(low, high + 1):
        entity = events[definition.entity][block][owner]
        pairs.append(pl.DataFrame({definition.entity: entity, "window_end": end}).unique())
    rows = pl.concat(pairs).unique().sort("window_end", definition.entity)
    ends = rows["window_end"].to_numpy() * hop
    values = evaluate(definition, events, rows[definition.entity], ends)
    return rows.select(definition.entity, pl.Series("window_end", ends).cast(pl.Datetime("us", "UTC"))).hstack(values)


def columns_needed(definitions: Sequence[Definition]) -> list[str]:
    """What must be kept of the accepted events to evaluate these definitions (one acceptance)."""
    rules = definitions[0].acceptance
    names = [rules.entity, rules.event_time, *(c for d in definitions for c in d.columns), *ORDER, "_known_at"]
    return list(dict.fromkeys(names))

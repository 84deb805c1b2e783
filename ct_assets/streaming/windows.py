"""The window kernel: what every aggregate of a definition is worth for many (entity, moment) at once.

What goes here: which accepted events lie in which window, and the aggregates over them. What does not: folds over
ranges (``ranges.py``), acceptance, storage. Batch, backfill, training and ``ct stream compute`` all use this.

Events are sorted once (``order.py``); each window is two binary searches, shared by all filters. ``[tail, at)``
holds the events of a window; ``sawtooth`` rounds the tail DOWN to a multiple of the hop, so its width is between W and
W + hop. At multiples of the hop both modes are ``[at - W, at)``, which is also what Flink's HOP and Spark's window()
report for the window that ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.streaming.definition import Aggregate, Definition
from ct_assets.streaming.keys import Keys, codes_of
from ct_assets.streaming.known import Cut
from ct_assets.streaming.measures import All, result, result_dtype
from ct_assets.streaming.order import KNOWN, ORDER, Mask, Ordered, Side
from ct_assets.streaming.ranges import I64, expanded

_MOST = 0.8  # filters that keep less of the events than this have the others dropped before the sort


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
    events, code, wanted, masks = _chosen(definition, events, code)
    time = events[definition.acceptance.event_time].to_physical().to_numpy()
    ordered = Ordered(events, code, time, largest)
    labels = _Labels(ordered, label_code[order], moments[order], None if known is None else known[order])
    sides = {which: Side(ordered, mask) for which, mask in masks.items()}
    cuts: dict[Any, Cut | All] = {}
    columns = []
    for aggregate, which in zip(definition.aggregates, wanted, strict=True):
        window = (which, aggregate.window_us, aggregate.hop_us)
        if window not in cuts:
            cuts[window] = labels.ranges(sides[which], aggregate)
        columns.append(_measure(definition, aggregate, sides[which], cuts[window]))
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
    low, high = int(moments.min()) - definition.max_window_us, int(moments.max())
    stamp, entity = pl.col(time).to_physical(), events[definition.entity]
    in_reach = (stamp >= low) & (stamp < high)
    if not entity.dtype.is_integer():  # ranking text is slow: first without what is not asked for
        in_reach = in_reach & pl.col(definition.entity).is_in(entities.unique().drop_nulls().implode())
    events = _only(events, events.select(in_reach).to_series().to_numpy())
    code, label_code = codes_of(events[definition.entity], entities)
    asked = np.zeros(max(int(code.max(initial=0)), int(label_code.max())) + 1, np.bool_)
    asked[label_code] = True
    wanted = asked[code]
    return _only(events, wanted), code if wanted.all() else code[wanted], label_code


def _only(events: pl.DataFrame, kept: Mask) -> pl.DataFrame:
    return events if kept.all() else events.filter(pl.Series(kept))


Which = tuple[tuple[tuple[str, tuple[Any, ...]], ...], str | None]  # a filter, and the column that must not be null


def _which(aggregate: Aggregate, events: pl.DataFrame) -> Which:
    """The events an aggregate is over."""
    column = aggregate.column
    return aggregate.where, column if column is not None and events[column].null_count() else None


def _chosen(
    definition: Definition, events: pl.DataFrame, code: I64
) -> tuple[pl.DataFrame, I64, list[Which], dict[Which, Mask | None]]:
    """The events that some aggregate is over, their codes, and which of them are whose (None: all)."""
    read = [c for c in (definition.acceptance.event_time, *definition.columns, KNOWN, *ORDER) if c in events.columns]
    events = events.select(list(dict.fromkeys(read)))
    wanted = [_which(a, events) for a in definition.aggregates]
    masks = {which: None if which == ((), None) else _mask(events, which) for which in dict.fromkeys(wanted)}
    given = [mask for mask in masks.values() if mask is not None]
    if len(given) < len(masks):
        return events, code, wanted, masks
    kept = np.logical_or.reduce(given)
    alone = len(given) == 1  # then keys are all that a count needs
    if not alone and kept.sum() > _MOST * len(kept):
        return events, code, wanted, masks
    fewer = {which: None if mask is None or alone else mask[kept] for which, mask in masks.items()}
    return _only(events, kept), code[kept], wanted, fewer


def _mask(events: pl.DataFrame, which: Which) -> Mask:
    where, value = which
    keep = [_one_of(pl.col(column), allowed) for column, allowed in where]
    if value is not None:
        keep.append(pl.col(value).is_not_null())
    return events.select(pl.all_horizontal(keep).fill_null(False)).to_series().to_numpy()


def _one_of(column: pl.Expr, allowed: tuple[Any, ...]) -> pl.Expr:
    return column == allowed[0] if len(allowed) == 1 else column.is_in(list(allowed))


class _Labels:
    """The (entity, moment) pairs that are asked for, in order, and their places among the events."""

    def __init__(self, events: Ordered, code: I64, at: I64, known: I64 | None) -> None:
        self._events, self._code, self._at, self._known = events, code, at, known
        self._first: dict[tuple[int, int | None], I64] = {}

    def _place(self, moment: I64) -> I64:
        return np.searchsorted(self._events.packed, self._events.keys.of(self._code, moment))

    def _tail(self, aggregate: Aggregate) -> I64:
        """The place of the first event of each label's window."""
        window = (aggregate.window_us, aggregate.hop_us)
        if window not in self._first:
            tail = self._at - aggregate.window_us
            if aggregate.hop_us is not None:
                tail = tail // aggregate.hop_us * aggregate.hop_us
            self._first[window] = self._place(tail)
        return self._first[window]

    @cached_property
    def _is_end_known(self) -> bool:
        """Whether leaving out the end of a range leaves out all that was not known."""
        return self._known is None or self._events.is_told_in_order

    @cached_property
    def _end(self) -> I64:
        """The place after the last event of each label's windows, and after the last known one where that is an end."""
        if self._known is None or not self._is_end_known:
            return self._place(self._at)
        keys, told = self._events.told
        return np.minimum(self._place(self._at), np.searchsorted(told, keys.of(self._code, self._known + 1)))

    def ranges(self, side: Side, aggregate: Aggregate) -> Cut | All:
        """The range of each label's events in the side."""
        lo = side.places(self._tail(aggregate))
        hi = np.maximum(side.places(self._end), lo)
        if self._known is None or self._is_end_known:
            return All(lo, hi)
        return side.timeline.cut((lo, hi), self._code, self._known)


def _measure(definition: Definition, aggregate: Aggregate, side: Side, cut: Cut | All) -> pl.Series:
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

"""The window kernel: what every aggregate of a definition is worth for many (entity, moment) at once.

What goes here: which accepted events lie in which window, and the aggregates over them. What does not: folds over
ranges (``ranges.py``), acceptance, storage. Batch, backfill, training and ``ct stream compute`` all use this.

The events of each filter are sorted once (``order.py``); each window is two binary searches. ``[tail, at)`` holds the events of a window; ``sawtooth`` rounds the tail DOWN to a multiple of the hop, so its width is between W and
W + hop. At multiples of the hop both modes are ``[at - W, at)``, which is also what Flink's HOP and Spark's window()
report for the window that ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.streaming.definition import Aggregate, Definition
from ct_assets.streaming.keys import Keys, codes_of
from ct_assets.streaming.known import Cut
from ct_assets.streaming.measures import All, result, result_dtype
from ct_assets.streaming.order import KNOWN, ORDER, Events, Mask, Side
from ct_assets.streaming.ranges import I64, expanded

MOST = 0.8  # filters that keep less of the events than this have the others dropped before the sort
_FEW = 4  # values of a filter
_THREADS = 2
_LARGE = 100_000  # events from which threads are worth their start


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
    valued = {which for a, which in zip(definition.aggregates, wanted, strict=True) if a.function != "count"}
    every = Events(events, code, time, largest)
    sides = {which: Side(every, mask, which in valued) for which, mask in masks.items()}
    labels = _Labels(every, label_code[order], moments[order], None if known is None else known[order])
    asked: dict[Which, list[Aggregate]] = {which: [] for which in sides}
    for aggregate, which in zip(definition.aggregates, wanted, strict=True):
        asked[which].append(aggregate)
    found = _each(lambda which: _of_side(definition, asked[which], sides[which], labels), list(sides), len(events))
    by_name = {column.name: column for columns in found for column in columns}
    columns = [by_name[aggregate.name] for aggregate in definition.aggregates]
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pl.DataFrame(columns)[back]


def _each(work: Callable[[Which], list[pl.Series]], sides: list[Which], events: int) -> list[list[pl.Series]]:
    """Sides next to one another where they are large: numpy and Polars work outside the interpreter's lock."""
    if events < _LARGE or len(sides) == 1:
        return [work(which) for which in sides]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, sides))


def _of_side(definition: Definition, asked: list[Aggregate], side: Side, labels: _Labels) -> list[pl.Series]:
    """The aggregates over the events of one filter."""
    cuts: dict[tuple[int, int | None], Cut | All] = {}
    columns = []
    for aggregate in asked:
        window = (aggregate.window_us, aggregate.hop_us)
        if window not in cuts:
            cuts[window] = labels.ranges(side, aggregate)
        columns.append(_measure(definition, aggregate, side, cuts[window]))
    return columns


def _coded(
    definition: Definition, events: pl.DataFrame, entities: pl.Series, moments: I64
) -> tuple[pl.DataFrame, I64, I64]:
    """The events that any label can see, entity codes of them, entity codes of the labels (-1: none has events)."""
    if not len(moments):
        return events.clear(), np.empty(0, np.int64), np.empty(0, np.int64)
    time = events[definition.acceptance.event_time].to_physical().to_numpy()
    low, high = int(moments.min()) - definition.max_window_us, int(moments.max())
    if len(time) and (time.min() < low or time.max() >= high):
        events = _most(events, (time >= low) & (time < high))[0]
    if not events[definition.entity].dtype.is_integer():  # ranking text is slow: first without what is not asked for
        asked = pl.col(definition.entity).is_in(entities.unique().drop_nulls().implode())
        events = _most(events, events.select(asked.fill_null(False)).to_series().to_numpy())[0]
    code, label_code = codes_of(events[definition.entity], entities)
    asked = np.zeros(max(int(code.max(initial=0)), int(label_code.max())) + 1, np.bool_)
    asked[label_code] = True
    return *_most(events, asked[code], code), label_code


def _most(events: pl.DataFrame, kept: Mask, code: I64 | None = None) -> tuple[pl.DataFrame, I64]:
    """Events and codes without what nobody asks for, unless that is so little that to sort it along is faster."""
    code = np.empty(0, np.int64) if code is None else code
    if np.count_nonzero(kept) > MOST * len(kept):
        return events, code
    return events.filter(pl.Series(kept)), code[kept] if len(code) else code


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
    if not alone and np.count_nonzero(kept) > MOST * len(kept):
        return events, code, wanted, masks
    fewer = {which: None if mask is None or alone else mask[kept] for which, mask in masks.items()}
    return events.filter(pl.Series(kept)), code[kept], wanted, fewer


def _mask(events: pl.DataFrame, which: Which) -> Mask:
    where, value = which
    keep = [one_of(pl.col(column), allowed) for column, allowed in where]
    if value is not None:
        keep.append(pl.col(value).is_not_null())
    return events.select(pl.all_horizontal(keep).fill_null(False)).to_series().to_numpy()


def one_of(column: pl.Expr, allowed: Sequence[Any]) -> pl.Expr:
    """Whether a value is among those of a filter; null where it is null. Few are compared one by one, which takes a
    sixth of the time of ``is_in``."""
    if len(allowed) > _FEW:
        return column.is_in(list(allowed))
    return pl.any_horizontal([column == value for value in allowed])


class _Labels:
    """The (entity, moment) pairs that are asked for, in order, and their places among the events of a filter."""

    def __init__(self, events: Events, code: I64, at: I64, known: I64 | None) -> None:
        self._events, self._code, self._at, self._known = events, code, at, known
        self._head = events.keys.of(code, at)  # the key of each label
        self._doubts = self._doubted()
        self._tails: dict[tuple[int, int | None], I64] = {}
        self._ends: dict[Side, tuple[I64, I64]] = {}

    def _tail(self, aggregate: Aggregate) -> I64:
        """The key of the first moment of each label's window."""
        window = (aggregate.window_us, aggregate.hop_us)
        if window not in self._tails:
            tail = self._at - aggregate.window_us
            if aggregate.hop_us is not None:
                tail = tail // aggregate.hop_us * aggregate.hop_us
            self._tails[window] = self._events.keys.of(self._code, tail)
        return self._tails[window]

    def _doubted(self) -> tuple[I64, Mask] | None:
        """What :meth:`Side.doubtful` asks for: of every label a key, and whether an event is overdue."""
        if self._known is None or not len(self._events.key):
            return None
        recent = self._events.keys.of(self._code, self._known - self._events.usual_delay + 1)
        return recent, self._events.overdue(self._code, self._head, self._known)

    def _end(self, side: Side) -> tuple[I64, I64]:
        """The place after the last event of each label's windows, and which labels may have events not known yet."""
        if side not in self._ends:
            end = np.searchsorted(side.packed, self._head)
            doubtful = np.empty(0, np.int64) if self._doubts is None else side.doubtful(end, *self._doubts)
            self._ends[side] = end, doubtful
        return self._ends[side]

    def ranges(self, side: Side, aggregate: Aggregate) -> Cut | All:
        """The range of each label's events in the side."""
        lo, (hi, which) = np.searchsorted(side.packed, self._tail(aggregate)), self._end(side)
        if self._known is None or not len(which):
            return All(lo, hi)
        code, limit = self._code[which], self._known[which]
        cut = side.timeline(np.unique(code)).cut((lo[which], hi[which]), code, limit)
        return cut.among((lo, hi), self._known, which)


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

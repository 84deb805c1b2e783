"""The specification in a page of plain Python: which events are accepted, and what an aggregate is worth at a moment.

What goes here: brute force that a person can check against docs/streaming.md. What does not: anything fast; every
other module of this package is tested against this one. It sees events after decoding (a dict of typed values, times in
integer microseconds); what decoding refuses comes as its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import localcontext
from fractions import Fraction
from typing import Any

from ct_assets.streaming.definition import Acceptance, Aggregate, Definition

_BEFORE_ALL = -(10**20)
BACKFILL_US = 600_000_000  # appended this much after its time: history that is replayed


@dataclass(frozen=True)
class Message:
    """One message: a decoded event, or the reason why it is none, or None for a tombstone. ``append`` None: absent."""

    event: dict[str, Any] | str | None
    partition: int = 0
    offset: int = 0
    append: int | None = None


@dataclass(frozen=True)
class Event:
    """An accepted event."""

    values: dict[str, Any]
    time: int
    partition: int
    offset: int
    known_at: int


def accept(
    messages: Iterable[Message], rules: Acceptance, lag: int = 1_000_000
) -> tuple[list[Event], list[tuple[int, str]], int]:
    """(accepted events, dead letters as (index, reason), duplicates). The first reason that applies is the reason."""
    accepted: list[Event] = []
    dead: list[tuple[int, str]] = []
    duplicates = 0
    remembered: dict[tuple[int, Any], Event] = {}
    top: dict[int, int] = {}
    frontier: dict[int, int] = {}
    for index, m in enumerate(messages):
        if not isinstance(m.event, dict):
            dead += [(index, m.event)] if m.event else []
            continue
        time, event_id, p = m.event[rules.event_time], m.event[rules.event_id], m.partition
        watermark = top.get(p, _BEFORE_ALL) - rules.out_of_orderness_us
        first = remembered.get((p, event_id))
        first = None if first and watermark > first.time + rules.dedup_horizon_us else first  # forgotten
        if m.append is not None and time > m.append + rules.max_future_skew_us:
            dead.append((index, "future"))
        elif first and first.values == m.event:
            duplicates += 1
        elif first:
            dead.append((index, "conflict"))
        elif time < watermark - rules.allowed_lateness_us:
            dead.append((index, "late"))
        else:
            capped = time if m.append is None else min(time, m.append)
            top[p], frontier[p] = max(top.get(p, capped), capped), max(frontier.get(p, time), time)
            known = _known(m.append, frontier[p])
            event = Event(m.event, time, p, m.offset, known + lag)
            remembered[(p, event_id)] = event
            accepted.append(event)
    return accepted, dead, duplicates


def _known(append: int | None, frontier: int) -> int:
    """When an event was there to be read, but for the lag: its append time, or for replayed history the frontier."""
    return frontier if append is None or append - frontier > BACKFILL_US else append


def value(
    definition: Definition, accepted: Iterable[Event], entity: Any, at: int, as_known_at: int | None = None
) -> dict[str, Any]:
    """What each aggregate of this entity is worth at ``at``, optionally of what was known at another moment."""
    own = [e for e in accepted if e.values[definition.entity] == entity]
    if as_known_at is not None:
        own = [e for e in own if e.known_at <= as_known_at]
    own.sort(key=lambda e: (e.time, e.partition, e.offset))
    worth = {a.name: _worth(a, own, at) for a in definition.aggregates}
    return {name: None if _is_beyond(v, definition, name) else v for name, v in worth.items()}


def _is_beyond(found: Any, definition: Definition, name: str) -> bool:
    """Whether a decimal has more than the 38 digits of its type: no column of a training set could hold it."""
    kind = definition.result_type(definition.aggregate(name))
    if found is None or not kind.startswith("decimal("):
        return False
    return abs(Fraction(found)) * 10 ** int(kind[8:-1].split(",")[1]) >= 10**38


def _worth(aggregate: Aggregate, own: list[Event], at: int) -> Any:
    """One aggregate over [tail, at)."""
    rows = [
        e.values
        for e in own
        if aggregate.tail(at) <= e.time < at and all(e.values.get(c) in allowed for c, allowed in aggregate.where)
    ]
    if aggregate.column is None:
        return len(rows)
    return fold(aggregate.function, [v for row in rows if (v := row.get(aggregate.column)) is not None])


def fold(function: str, values: list[Any]) -> Any:
    """The function of the values that are there, in order of (event time, partition, offset)."""
    if function in ("count", "count_distinct"):
        return len(values) if function == "count" else len(set(values))
    if function == "sum":
        return _sum(values)
    if not values:
        return None
    simple = {"min": min, "max": max, "first": lambda v: v[0], "last": lambda v: v[-1]}
    if function in simple:
        return simple[function](values)
    return _avg(values) if function == "avg" else _spread(function, values)


def _sum(values: list[Any]) -> Any:
    """Exact for integers and decimals; floats from left to right, beginning with 0.0, never subtracted.

    Of integers null where it does not fit 64 bits: no column of a training set could hold it.
    """
    total = type(values[0])(0) if values else 0
    with localcontext(prec=100):  # Python's own 28 digits would round
        for v in values:
            total += v
    return None if isinstance(total, int) and not -(2**63) <= total < 2**63 else total


def _avg(values: list[Any]) -> float:
    """The nearest double to the exact mean; of floats the sum from left to right divided by the count."""
    if isinstance(values[0], float):
        return _sum(values) / len(values)
    return float(sum(map(Fraction, values)) / len(values))


def _spread(function: str, values: list[Any]) -> float | None:
    """Sample variance (divisor n - 1), or its square root; null below two values."""
    n = len(values)
    if n < 2:
        return None
    if isinstance(values[0], float):
        mean = _sum(values) / n
        variance = _sum([(v - mean) * (v - mean) for v in values]) / (n - 1)
    else:
        exact = [Fraction(v) for v in values]
        variance = float((n * sum(v * v for v in exact) - sum(exact) ** 2) / (n * (n - 1)))
    return variance if function == "var" else math.sqrt(variance)

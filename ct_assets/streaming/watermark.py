"""How complete a stream is: the minimum over the partitions that are active.

What goes here: that one decision. What does not: the watermark of a partition (``accept.py`` moves it), clocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PartitionState:
    """What is known of one partition. ``top`` None: it never had an accepted event.

    ``caught_up``: everything up to the broker's end offset was read at ``looked_us`` (None: now). ``last_message_us``:
    when its last message was appended or read (the wall clock, microseconds); None when it never had one.
    """

    partition: int
    top: int | None
    caught_up: bool
    last_message_us: int | None = None
    looked_us: int | None = None


@dataclass(frozen=True)
class Completeness:
    """``at``: all events before it are in, as far as out-of-orderness promises; ``held_by``: the partition it waits for."""

    at: int | None
    held_by: int | None
    idle: tuple[int, ...] = ()


def completeness(
    states: Iterable[PartitionState], now_us: int, *, out_of_orderness_us: int, idle_timeout_us: int
) -> Completeness:
    """The minimum of the active partitions' watermarks; when all are idle, the furthest of theirs.

    A partition is idle when it is caught up with the broker's end and was silent for the idle timeout; one that lags is
    never idle. A partition without an accepted event that is read to its end does not hold it back; one that has
    messages still to read and no event yet holds back everything (``at`` is None).

    When nobody looks any more (its worker ended) a partition stays what it was: idle, or not, because messages may have
    come since. So the end of the workers takes nothing back and lets nothing pass.
    """
    used = [s for s in states if not (s.top is None and s.caught_up)]
    idle = [s for s in used if _is_idle(s, now_us, idle_timeout_us)]
    active = [s for s in used if s not in idle]
    names = tuple(sorted(s.partition for s in idle))
    blocked = [s.partition for s in active if s.top is None]
    if blocked:
        return Completeness(None, min(blocked), names)
    if active:
        at, partition = min((s.top, s.partition) for s in active if s.top is not None)
        return Completeness(at - out_of_orderness_us, partition, names)
    tops = [s.top for s in idle if s.top is not None]
    return Completeness(max(tops) - out_of_orderness_us if tops else None, None, names)


def _is_idle(state: PartitionState, now_us: int, idle_timeout_us: int) -> bool:
    as_of = now_us if state.looked_us is None else min(now_us, state.looked_us)
    silent = state.last_message_us is None or as_of - state.last_message_us >= idle_timeout_us
    return state.caught_up and silent

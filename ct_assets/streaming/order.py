"""The events of each filter by (entity, time, partition, offset).

What goes here: the order, and which events became known late. What does not: what windows are (``windows.py``).

Each filter's events are sorted by themselves: filters seldom overlap much, and where nothing but a count is asked for, keys
are sorted as values, a quarter of the time of sorting rows by them. Rows that are in order of time already are sorted by
entity code alone (radix, 16 bits a pass).

Nearly all events become known soon after their time. So instead of looking at when each one did, the last event before a
label is compared with the usual delay (:meth:`Side.doubtful`), and only the few that took longer are looked at closely.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.streaming.keys import Keys
from ct_assets.streaming.known import Timeline, Told
from ct_assets.streaming.measures import Measured
from ct_assets.streaming.ranges import I64, expanded

ORDER = ("_partition", "_offset")
KNOWN = "_known_at"
Mask = npt.NDArray[np.bool_]
_USUAL = 0.97  # of a sample of the events became known within the usual delay
_SAMPLE = 4_096


def rows_by(code: I64, largest_code: int) -> I64:
    """Row numbers by code; equal ones stay as they are. Codes lie between 0 and ``largest_code``."""
    order = None
    for shift in range(0, largest_code.bit_length(), 16):
        digit = (code >> np.int64(shift)).astype(np.uint16)  # the lowest 16 bits: numpy sorts those by radix
        if order is None:
            order = np.argsort(digit, kind="stable")
        else:
            order = order[np.argsort(digit[order], kind="stable")]
    return np.arange(len(code)) if order is None else order


class _Late(NamedTuple):
    """Events that took longer than usual to become known."""

    packed: I64  # (entity, event time), rising
    keys: Keys
    newest: I64  # (entity, the latest known_at among these events of it so far), rising


class Events:
    """The events that some filter keeps, as the rows of a frame: their keys, and when they became known."""

    def __init__(self, frame: pl.DataFrame, code: I64, time: I64, largest_code: int) -> None:
        """``code`` and ``time`` are those of the rows of ``frame``; codes lie between 0 and ``largest_code``."""
        self.frame, self.code, self.largest_code = frame, code, largest_code
        self.keys = Keys.over(largest_code, time)
        self.key, self._time = self.keys.own(code, time), time

    @cached_property
    def _is_in_order_of_time(self) -> bool:
        return bool((self._time[1:] >= self._time[:-1]).all())

    @cached_property
    def since(self) -> I64:
        """When each row became known."""
        return self.frame[KNOWN].to_numpy()

    def in_order(self, rows: I64 | None) -> I64:
        """These rows (rising; None: all) in order; few times are equal, so only those are looked at twice."""
        key = self.key if rows is None else self.key[rows]
        if self._is_in_order_of_time:
            order = rows_by(self.code if rows is None else self.code[rows], self.largest_code)
        else:
            order = np.argsort(key)
        key, found = key[order], order if rows is None else rows[order]
        tied = np.flatnonzero(key[1:] == key[:-1])
        if len(tied):
            among = np.unique(np.concatenate([tied, tied + 1]))
            equal = found[among]
            places = [self.frame[name].to_numpy()[equal] for name in ORDER if name in self.frame.columns]
            found[among] = equal[np.lexsort((equal, *reversed(places), key[among]))]
        return found

    @cached_property
    def _delay(self) -> I64:
        return self.since - self._time

    @cached_property
    def usual_delay(self) -> int:
        """Within this after their time nearly all events became known."""
        sample = self._delay[:: max(len(self._delay) // _SAMPLE, 1)]
        place = int(len(sample) * _USUAL)
        return int(np.partition(sample, place)[place])

    @cached_property
    def late(self) -> _Late:
        """The others."""
        rows = self.in_order(np.flatnonzero(self._delay > self.usual_delay))
        keys = Keys.over(self.largest_code, self.since[rows])
        told = keys.own(self.code[rows], self.since[rows])
        return _Late(self.key[rows], keys, np.maximum.accumulate(told))

    def overdue(self, code: I64, head: I64, limit: I64) -> Mask:
        """Of which labels (``head``: their keys) an event that took longer than usual was not known at ``limit``."""
        late = self.late
        if not len(late.packed):
            return np.zeros(len(head), np.bool_)
        before = np.maximum(np.searchsorted(late.packed, head) - 1, 0)
        return late.newest[before] >= late.keys.of(code, limit + 1)


class Side:
    """The events of one filter, in order; ``mask`` over the rows (None: all). ``with_values``: more than keys is asked."""

    def __init__(self, events: Events, mask: Mask | None, with_values: bool) -> None:
        self.events, self._mask = events, mask
        self._with_values = with_values
        self._measured: dict[str, Measured] = {}
        self._timeline: Timeline | None = None

    @cached_property
    def rows(self) -> I64:
        """The rows, in order."""
        return self.events.in_order(None if self._mask is None else np.flatnonzero(self._mask))

    @cached_property
    def packed(self) -> I64:
        """The keys, rising."""
        key = self.events.key
        if self._with_values:
            return key[self.rows]
        packed = key.copy() if self._mask is None else key[self._mask]
        packed.sort()
        return packed

    def doubtful(self, end: I64, recent: I64, overdue: Mask) -> I64:
        """Which labels may have events before place ``end`` that were not known: of those ``overdue``, and of those whose
        last event is at or after their key ``recent``, the usual delay before the moment they were to be known at."""
        if not len(self.packed):
            return np.empty(0, np.int64)
        return np.flatnonzero(overdue | (self.packed[np.maximum(end - 1, 0)] >= recent))

    def timeline(self, entities: I64) -> Timeline:
        """When each event of these entities (rising codes) became known; made once, for the first that are asked for."""
        if self._timeline is None:
            events, bits = self.events, np.int64(self.events.keys.bits)
            lo, hi = np.searchsorted(self.packed, np.stack([entities << bits, (entities + 1) << bits]))
            places = np.concatenate([position for _, position, _ in expanded(lo, hi)])
            rows = self.rows[places] if self._with_values else events.in_order(self._rows_of(entities))
            told = Told(places, events.since[rows], events.code[rows])
            self._timeline = Timeline.of(told, events.largest_code, len(self.packed))
        return self._timeline

    def _rows_of(self, entities: I64) -> I64:
        wanted = np.zeros(self.events.largest_code + 1, np.bool_)
        wanted[entities] = True
        kept = wanted[self.events.code]
        return np.flatnonzero(kept if self._mask is None else kept & self._mask)

    def measured(self, column: str) -> Measured:
        """One column, in order."""
        if column not in self._measured:
            self._measured[column] = Measured(self.events.frame[column].gather(self.rows))
        return self._measured[column]

"""Windows as they were known at a moment: which events of a range had not been told yet.

What goes here: for many ranges of one sorted side, the events with ``known_at`` beyond the label's limit, without
writing the ranges out. What does not: windows themselves (``windows.py``), arithmetic (``ranges.py``).

In order of event time most events also become known in that order (``regular``); the late ones (``spikes``) are few.
Unknown regular events are the end of a range, found by bisection; unknown spikes are looked for one by one among spikes
alone, so a hot entity costs its late events and not its window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ct_assets.streaming.keys import Keys
from ct_assets.streaming.ranges import I64, expanded

Mask = npt.NDArray[np.bool_]


class Told(NamedTuple):
    """Events of some entities, by entity and event time: their places in a side, when they became known, whose they are."""

    places: I64
    since: I64
    code: I64


@dataclass(frozen=True)
class Timeline:
    """When events of a side became known, split into regular events and spikes. The side may hold other entities, of
    which nothing is known here."""

    since: I64  # by place in the side, 0 at other entities'
    regular: I64  # places
    spikes: I64
    keys: Keys
    regular_keys: I64  # (entity, known_at) of the regular events: rising
    spike_keys: I64  # of the spikes: (entity, the latest known_at among its spikes so far): rising

    @classmethod
    def of(cls, told: Told, largest_code: int, size: int) -> Timeline:
        """Regular: no later event of the entity was known earlier. ``size``: events of the side."""
        keys = Keys.over(largest_code, told.since)
        key = keys.own(told.code, told.since)  # codes rise, so an extreme so far never comes from another entity
        is_regular = key <= np.minimum.accumulate(key[::-1])[::-1]
        since = np.zeros(size, np.int64)  # pages that nobody writes to take no memory
        since[told.places] = told.since
        regular, spikes = told.places[is_regular], told.places[~is_regular]
        return cls(since, regular, spikes, keys, key[is_regular], np.maximum.accumulate(key[~is_regular]))

    def cut(self, ranges: tuple[I64, I64], code: I64, limit: I64) -> Cut:
        """What of each range [lo, hi) was not known at its limit."""
        lo, hi = ranges
        first, last = (np.searchsorted(self.regular, edge) for edge in ranges)
        spike_lo, spike_hi = (np.searchsorted(self.spikes, edge) for edge in ranges)
        unknown_key = self.keys.of(code, limit + 1)
        beyond = np.clip(np.searchsorted(self.regular_keys, unknown_key), first, last)
        sure = np.clip(np.searchsorted(self.spike_keys, unknown_key), spike_lo, spike_hi)
        count = last - beyond
        earliest = np.where(beyond < last, np.append(self.regular, 0)[np.minimum(beyond, len(self.regular))], hi)
        for block, position, owner in expanded(sure, spike_hi):
            where = self.spikes[position]
            unknown = self.since[where] > limit[block][owner]
            count[block] += np.bincount(owner[unknown], minlength=block.stop - block.start)
            np.minimum.at(earliest[block], owner[unknown], where[unknown])
        ended = np.where(hi - earliest == count, earliest, hi)  # what is unknown is the end of the range
        mixed = np.flatnonzero((count > 0) & (ended == hi))
        return Cut(
            self, lo, ended, limit, mixed, (beyond[mixed], last[mixed], sure[mixed], spike_hi[mixed]), count[mixed]
        )


@dataclass(frozen=True)
class Cut:
    """Ranges [lo, hi) that hold known events only, except those of ``mixed``, where ``unknown`` events lie between."""

    timeline: Timeline
    lo: I64
    hi: I64
    limit: I64
    mixed: I64
    places: tuple[I64, I64, I64, I64]
    unknown: I64

    def among(self, ranges: tuple[I64, I64], limit: I64, which: I64) -> Cut:
        """The same of all ``ranges``, where this cut is of those numbered ``which`` and the others are known whole."""
        lo, hi = ranges
        hi = hi.copy()
        hi[which] = self.hi
        return replace(self, lo=lo, hi=hi, limit=limit, mixed=which[self.mixed])

    def unknown_sums(self, values: npt.NDArray[Any], sums: Callable[..., npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Of each mixed range the sum of the values that were not known; ``sums(values, lo, hi)`` adds ranges."""
        beyond, last, sure, spike_hi = self.places
        found = sums(values[self.timeline.regular], beyond, last)
        limit = self.limit[self.mixed]
        for block, position, owner in expanded(sure, spike_hi):
            where = self.timeline.spikes[position]
            unknown = self.timeline.since[where] > limit[block][owner]
            ends = np.cumsum(np.bincount(owner[unknown], minlength=block.stop - block.start))
            starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            found[block] = found[block] + sums(values[where[unknown]], starts, ends)
        return found

    def written_out(self) -> Iterator[tuple[I64, I64, I64, I64]]:
        """Mixed ranges block by block: (which labels, positions of their known events, lo, hi within those)."""
        lo, hi, limit = self.lo[self.mixed], self.hi[self.mixed], self.limit[self.mixed]
        for block, position, owner in expanded(lo, hi):
            known = self.timeline.since[position] <= limit[block][owner]
            ends = np.cumsum(np.bincount(owner[known], minlength=block.stop - block.start))
            yield self.mixed[block], position[known], np.concatenate([np.zeros(1, np.int64), ends[:-1]]), ends

"""Windows as they were known at a moment: which events of a range had not been told yet.

What goes here: for many ranges of one sorted side, the events with ``known_at`` beyond the label's limit, without
writing the ranges out. What does not: windows themselves (``windows.py``), arithmetic (``ranges.py``).

In order of event time most events also become known in that order (``regular``); the late ones (``spikes``) are few.
Unknown regular events are the end of a range, found by bisection; unknown spikes are looked for one by one among spikes
alone, so a hot entity costs its late events and not its window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ct_assets.streaming.keys import Keys
from ct_assets.streaming.ranges import I64, expanded

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Timeline:
    """``known_at`` of a side's events (by entity, then event time), split into regular events and spikes."""

    since: I64
    regular: I64  # positions
    spikes: I64
    before: I64  # regular events before each position, and at the end
    keys: Keys
    regular_keys: I64  # (entity, known_at) of the regular events: rising
    spike_keys: I64  # of the spikes: (entity, the latest known_at among its spikes so far): rising

    @classmethod
    def of(cls, since: I64, code: I64, largest_code: int) -> Timeline:
        """Regular: no later event of the entity was known earlier."""
        earliest = -_running_max(-since[::-1], code[::-1])[::-1]
        is_regular = since <= earliest
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_regular, dtype=np.int64)])
        spikes = np.flatnonzero(~is_regular)
        regular = np.flatnonzero(is_regular)
        keys = Keys.over(largest_code, since)
        newest = _running_max(since[spikes], code[spikes])
        places = keys.of(code[regular], since[regular]), keys.of(code[spikes], newest)
        return cls(since, regular, spikes, before, keys, *places)

    def cut(self, ranges: tuple[I64, I64], code: I64, limit: I64) -> Cut:
        """What of each range [lo, hi) was not known at its limit."""
        lo, hi = ranges
        first, last = self.before[lo], self.before[hi]
        spike_lo, spike_hi = lo - first, hi - last
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


def _running_max(values: I64, code: I64) -> I64:
    """The largest value so far within each run of equal codes."""
    out = values.copy()
    if not len(values):
        return out
    begins = np.concatenate([[True], code[1:] != code[:-1]])
    run = np.cumsum(begins) - 1
    low, span = int(values.min()), int(values.max()) - int(values.min()) + 1
    if int(run[-1] + 1) * span < 2**62:
        shift = run * np.int64(span)
        return np.maximum.accumulate(values - low + shift) - shift + low
    ordered, rank = np.unique(values, return_inverse=True)
    if int(run[-1] + 1) * (len(ordered) + 1) < 2**62:
        shift = run * np.int64(len(ordered) + 1)
        return ordered[np.maximum.accumulate(rank + shift) - shift]
    for part in np.split(np.arange(len(code)), np.flatnonzero(begins)[1:]):
        out[part] = np.maximum.accumulate(values[part])
    return out

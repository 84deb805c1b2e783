"""Which event ids were accepted lately: an open-addressing table of three arrays, looked up for whole batches.

What goes here: fingerprints of ids and payloads, and the table. What does not: what a repeat means (``accept.py``).

24 bytes a slot. An id is a 64-bit hash plus 32 bits of a second one, a payload 32 bits: among 100 million remembered
ids a new event is taken for a known one with a chance of 10**-21, and a conflict for a repeat with 10**-10.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

SMALLEST = 1 << 12
_UPPER = np.uint64(0xFFFFFFFF00000000)


@dataclass(frozen=True)
class Prints:
    """``key``: the id (never 0); ``check``: the id again in the upper half, the whole payload in the lower."""

    key: U64
    check: U64

    def at(self, rows: npt.NDArray[np.int64]) -> Prints:
        """Those of some rows."""
        return Prints(self.key[rows], self.check[rows])


def fingerprints(frame: pl.DataFrame, event_id: str) -> Prints:
    """Of each event: equal ids have equal keys, equal typed columns equal checks."""
    ids = frame[event_id]
    key = ids.hash(11).to_numpy()
    again = ids.hash(21).to_numpy()
    floats = [pl.col(n) + 0.0 for n, kind in frame.schema.items() if kind == pl.Float64]  # -0.0 equals 0.0
    plain = frame.with_columns(floats) if floats else frame
    payload = plain.select(sorted(frame.columns)).hash_rows(31).to_numpy()
    return Prints(np.maximum(key, np.uint64(1)), (again & _UPPER) | (payload >> np.uint64(32)))


@dataclass
class Seen:
    """The table. A slot with key 0 is free; entries are dropped only when the table is rebuilt."""

    keys: U64 = field(default_factory=lambda: np.zeros(SMALLEST, np.uint64))
    checks: U64 = field(default_factory=lambda: np.zeros(SMALLEST, np.uint64))
    times: I64 = field(default_factory=lambda: np.zeros(SMALLEST, np.int64))
    used: int = 0

    @property
    def nbytes(self) -> int:
        """What the table takes."""
        return self.keys.nbytes + self.checks.nbytes + self.times.nbytes

    def find(self, keys: U64) -> I64:
        """The slot of each key, or -1."""
        mask = len(self.keys) - 1
        slot = (keys & np.uint64(mask)).astype(np.int64)
        there = self.keys[slot]
        found = np.where(there == keys, slot, -1)
        open_ = np.flatnonzero((there != keys) & (there != 0))
        at = slot[open_]
        while len(open_):
            at = (at + 1) & mask
            there = self.keys[at]
            hit = there == keys[open_]
            found[open_[hit]] = at[hit]
            go_on = ~hit & (there != 0)
            open_, at = open_[go_on], at[go_on]
        return found

    def put(self, prints: Prints, times: I64, slots: I64, forget_before: int) -> None:
        """Remember accepted events with distinct ids. ``slots``: what ``find`` says of them; others' entries may go
        that happened before ``forget_before``."""
        known, new = np.flatnonzero(slots >= 0), np.flatnonzero(slots < 0)
        if len(known):
            self._write(slots[known], prints.at(known), times[known])
        if not len(new):
            return
        if (self.used + len(new)) * 3 > len(self.keys) * 2:
            self._rebuild(len(new), forget_before)
        self._insert(prints if len(new) == len(slots) else prints.at(new), times[new])

    def _insert(self, prints: Prints, times: I64) -> None:
        """Distinct keys that are not in the table."""
        mask = len(self.keys) - 1
        key, rows = prints.key, np.arange(len(prints.key))
        at = (key & np.uint64(mask)).astype(np.int64)
        slots = np.empty(len(key), np.int64)
        while len(rows):
            free = np.flatnonzero(self.keys[at] == 0)
            self.keys[at[free]] = key[free]  # several may want one slot: the last one has it
            won = self.keys[at] == key
            slots[rows[won]] = at[won]
            lost = np.flatnonzero(~won)
            rows, key, at = rows[lost], key[lost], (at[lost] + 1) & mask
        self.checks[slots], self.times[slots] = prints.check, times
        self.used += len(prints.key)

    def _write(self, slots: I64, prints: Prints, times: I64) -> None:
        self.keys[slots], self.checks[slots], self.times[slots] = prints.key, prints.check, times

    def _rebuild(self, more: int, forget_before: int) -> None:
        kept = np.flatnonzero((self.keys != 0) & (self.times >= forget_before))
        old = Prints(self.keys[kept], self.checks[kept])
        times = self.times[kept]
        size = max(SMALLEST, 1 << (2 * (len(kept) + more) - 1).bit_length())
        self.keys, self.checks = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self.times, self.used = np.zeros(size, np.int64), 0
        self._insert(old, times)

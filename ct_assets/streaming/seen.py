"""Which event ids were accepted lately: an open-addressing table, looked up for whole batches.

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
    """The table: rows of (key, check, time). A slot with key 0 is free; entries go only when the table is rebuilt.

    One row lies together: a look-up is one miss of the cache, and so is an insertion.
    """

    slots: U64 = field(default_factory=lambda: np.zeros((SMALLEST, 3), np.uint64))
    used: int = 0

    @property
    def keys(self) -> U64:
        """The key of every slot."""
        return self.slots[:, 0]

    @property
    def nbytes(self) -> int:
        """What the table takes."""
        return self.slots.nbytes

    def checks(self, slot: I64) -> U64:
        """The checks in these slots."""
        return self.slots[slot, 1]

    def times(self, slot: I64) -> I64:
        """The times in these slots."""
        return self.slots[slot, 2].view(np.int64)

    def find(self, keys: U64) -> I64:
        """The slot of each key; of one that is not there, ``~slot`` of the free slot where the search ended."""
        mask, there_ = len(self.slots) - 1, self.keys
        slot = (keys & np.uint64(mask)).astype(np.int64)
        there = there_[slot]
        found = np.where(there == keys, slot, ~slot)
        open_ = np.flatnonzero((there != keys) & (there != 0))
        at = slot[open_]
        while len(open_):
            at = (at + 1) & mask
            there = there_[at]
            hit = there == keys[open_]
            found[open_] = np.where(hit, at, ~at)
            go_on = ~hit & (there != 0)
            open_, at = open_[go_on], at[go_on]
        return found

    def put(self, prints: Prints, times: I64, slots: I64, forget_before: int) -> None:
        """Remember accepted events with distinct ids. ``slots``: what ``find`` says of them; others' entries may go
        that happened before ``forget_before``."""
        entries = np.empty((len(slots), 3), np.uint64)
        entries[:, 0], entries[:, 1], entries[:, 2] = prints.key, prints.check, times.view(np.uint64)
        known = slots >= 0
        if known.any():
            _items(self.slots)[slots[known]] = _items(entries[known])
            entries, slots = entries[~known], slots[~known]
        if (self.used + len(entries)) * 3 > len(self.slots) * 2:
            self._rebuild(entries, forget_before)
        else:
            self._insert(entries, ~slots)

    def _insert(self, entries: U64, at: I64) -> None:
        """Distinct keys that are not in the table, each from where its search ended: a free slot."""
        items, keys, mask = _items(self.slots), self.keys, len(self.slots) - 1
        self.used += len(entries)
        items[at] = _items(entries)  # several may want one slot: the last one has it
        while len(lost := np.flatnonzero(keys[at] != entries[:, 0])):
            entries, at = entries[lost], (at[lost] + 1) & mask
            free = keys[at] == 0
            items[at[free]] = _items(entries[free])

    def _rebuild(self, entries: U64, forget_before: int) -> None:
        """A table of what is still remembered and of ``entries``."""
        kept = self.slots[(self.keys != 0) & (self.slots[:, 2].view(np.int64) >= forget_before)]
        entries = np.concatenate([kept, entries])
        # a third full at most: rebuilding moves fewer entries than have come since the last time
        size = max(SMALLEST, 1 << (3 * len(entries) - 1).bit_length())
        self.slots, self.used = np.zeros((size, 3), np.uint64), 0
        self._insert(entries, (entries[:, 0] & np.uint64(size - 1)).astype(np.int64))


def _items(rows: U64) -> npt.NDArray[np.void]:
    """Rows of three words as one item each."""
    return rows.view("V24").reshape(-1)

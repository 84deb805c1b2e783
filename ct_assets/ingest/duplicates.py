"""Has this row, or this key, been seen before in the file? Exact across blocks, in bounded memory.

What goes here: 128-bit fingerprints and the set that remembers them. What does not: what happens to a repeat.

A fingerprint is two independent 64-bit hashes of the values; two unlike rows share both with a probability of 2^-128
(10^9 rows: about 10^-21 for the whole file), which is taken as equality. A key of one integer column is
multiplied by an odd number, which loses nothing: equality is exact there.

Most rows are new. A blocked Bloom filter (Putze, Sanders, Singler 2007: three bits in one word) says so for all but a
few in a thousand, and only those few are looked up in sorted runs: one a block, of which every ``FAN`` become one (125
runs of 16,000 rows made the look-ups dearer than all the rest). Beyond ``SPILL_ROWS`` the runs are merged into an unnamed
temporary file with a sparse index in memory (the idea of a log-structured merge tree, O'Neil et al. 1996).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
import polars as pl

Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
BLOOM_BITS = 22  # words of 64 bits: 32 MB
SPILL_ROWS = 1_500_000  # 2 M rows took 50 MB more at the peak of merging
FAN = 8
SPARSE = 1_024
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_SHIFT = np.uint64(64 - BLOOM_BITS)
_ONE, _SIX_BITS = np.uint64(1), np.uint64(63)


@dataclass(frozen=True)
class Fingerprints:
    """Two words a row; ``high`` is None where ``low`` is the value itself."""

    low: Words
    high: Words | None

    def __getitem__(self, rows: npt.NDArray[np.int64] | Flags) -> Fingerprints:
        """Those of some rows."""
        return Fingerprints(self.low[rows], None if self.high is None else self.high[rows])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.low)


def fingerprints(frame: pl.DataFrame, columns: list[str]) -> Fingerprints:
    """Fingerprints of the rows over the named columns; NULL equals NULL (a single integer key must have none)."""
    if len(columns) == 1 and frame.schema[columns[0]] == pl.Int64:
        return Fingerprints(frame[columns[0]].fill_null(0).to_numpy().view(np.uint64) * _MIX[0], None)
    rows = pl.DataFrame(
        [frame.get_column(name) for name in columns]
    )  # two seeds: a pair of rows that one hash takes for equal is like any other to the other
    return Fingerprints(rows.hash_rows(seed=1).to_numpy(), rows.hash_rows(seed=2).to_numpy())


def null_rows(frame: pl.DataFrame, columns: list[str]) -> Flags:
    """True where any of the key's columns is NULL: such a row has no key."""
    return frame.select(pl.any_horizontal(pl.col(columns).is_null())).to_series().to_numpy()


class Seen:
    """A growing set of fingerprints."""

    def __init__(self) -> None:
        """Nothing seen, nothing allocated."""
        self._bloom: Words | None = None
        self._runs: list[Fingerprints] = []  # merged ones first
        self._small = 0  # how many of the last runs are of one block each
        self._spilled: list[_OnDisk] = []
        self._rows = 0

    def first(self, prints: Fingerprints) -> Flags:
        """True where a fingerprint is met for the first time, counting earlier calls; all are remembered."""
        order = np.argsort(prints.low)
        held = prints[order]
        new = _first_of_equals(held, order)
        if self._rows:
            new &= ~self._met(held)
        self._remember(held[new])
        first = np.empty(len(prints), bool)
        first[order] = new
        return first

    def _met(self, held: Fingerprints) -> Flags:
        """Which of the sorted fingerprints an earlier call has seen."""
        at, bits = _bloom_place(held.low)
        met = np.zeros(len(held), bool)
        maybe = np.flatnonzero((self._filter()[at] & bits) == bits)
        if len(maybe):
            asked = held[maybe]
            found = np.zeros(len(maybe), bool)
            for run in self._runs:
                found |= _contains(run, asked)
            for run in self._spilled:
                found |= run.contains(asked, found)
            met[maybe] = found
        return met

    def _filter(self) -> Words:
        if self._bloom is None:
            self._bloom = np.zeros(1 << BLOOM_BITS, np.uint64)
            for run in self._runs:
                _enter(self._bloom, run.low)
        return self._bloom

    def _remember(self, run: Fingerprints) -> None:
        if not len(run):
            return
        if self._bloom is not None:
            _enter(self._bloom, run.low)
        self._rows += len(run)
        self._runs.append(run)
        self._small += 1
        if sum(map(len, self._runs)) > SPILL_ROWS:
            self._filter()
            self._spilled.append(_OnDisk(self._runs))
            self._runs, self._small = [], 0
        elif self._small >= FAN:
            self._runs[-FAN:], self._small = [_merged(self._runs[-FAN:])], 0


def _bloom_place(low: Words) -> tuple[npt.NDArray[np.int64], Words]:
    """The filter's word and the three bits in it; sorted fingerprints give sorted places, which the cache likes."""
    bits = _ONE << (low & _SIX_BITS)
    bits |= _ONE << ((low >> np.uint64(6)) & _SIX_BITS)
    bits |= _ONE << ((low >> np.uint64(12)) & _SIX_BITS)
    return (low >> _SHIFT).astype(np.int64), bits


def _enter(bloom: Words, low: Words) -> None:
    at, bits = _bloom_place(low)
    bloom[at] |= bits  # where places are equal the last one wins: they are entered again below
    shared = np.flatnonzero(at[1:] == at[:-1])
    np.bitwise_or.at(bloom, at[shared], bits[shared])


def _first_of_equals(held: Fingerprints, order: npt.NDArray[np.int64]) -> Flags:
    """Among fingerprints sorted by ``low``: False for all of an equal group but the one that came first (least ``order``)."""
    new = np.ones(len(held), bool)
    same = held.low[1:] == held.low[:-1]
    if not same.any():
        return new
    grouped = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    high = np.zeros(len(grouped), np.uint64) if held.high is None else held.high[grouped]
    by = np.lexsort((order[grouped], high, held.low[grouped]))
    low, high = held.low[grouped][by], high[by]
    new[grouped[by[1:]]] = ~((low[1:] == low[:-1]) & (high[1:] == high[:-1]))
    return new


def _merged(runs: list[Fingerprints]) -> Fingerprints:
    low = np.concatenate([run.low for run in runs])
    if runs[0].high is None:
        low.sort()
        return Fingerprints(low, None)
    order = np.argsort(low)
    return Fingerprints(low[order], np.concatenate([run.high for run in runs if run.high is not None])[order])


def _contains(run: Fingerprints, asked: Fingerprints) -> Flags:
    """Which of the sorted ``asked`` are in the sorted run."""
    begin = np.searchsorted(run.low, asked.low)
    inside = begin < len(run)
    hit = inside & (run.low[np.minimum(begin, len(run) - 1)] == asked.low)
    if run.high is None or asked.high is None or not hit.any():
        return hit
    at = begin.copy()
    found = np.zeros(len(asked), bool)
    while hit.any():  # more than one round only where unlike rows share ``low``
        where = np.flatnonzero(hit)
        found[where] |= run.high[at[where]] == asked.high[where]
        at += 1
        hit &= ~found & (at < len(run))
        hit &= run.low[np.minimum(at, len(run) - 1)] == asked.low
    return found


class _OnDisk:
    """A sorted run in an unnamed temporary file; every ``SPARSE``-th fingerprint stays in memory."""

    def __init__(self, runs: list[Fingerprints]) -> None:
        """Merges the runs, one word after the other: both at once would need a third more memory."""
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the set; unnamed, so a kill leaves nothing)
        low = np.concatenate([run.low for run in runs])
        self._rows = len(low)
        order = np.argsort(low)
        low = low[order]
        low.tofile(self._file)
        self._sparse = low[::SPARSE].copy()
        del low
        highs = [run.high for run in runs if run.high is not None]
        self._wide = bool(highs)
        if highs:
            np.concatenate(highs)[order].tofile(self._file)
        self._file.flush()

    def __del__(self) -> None:
        self._file.close()

    def contains(self, asked: Fingerprints, known: Flags) -> Flags:
        """Which of the sorted ``asked`` are in the run; those already ``known`` are not looked up."""
        found = np.zeros(len(asked), bool)
        # equal values may begin in the stretch before the one whose first value they equal
        stretch = np.maximum(np.searchsorted(self._sparse, asked.low, side="left") - 1, 0)
        last = np.searchsorted(self._sparse, asked.low, side="right") - 1
        for begin in np.unique(stretch[~known]):
            rows = np.flatnonzero((stretch == begin) & ~known)
            found[rows] = _contains(self._stretch(int(begin), int(last[rows].max())), asked[rows])
        return found

    def _stretch(self, begin: int, last: int) -> Fingerprints:
        at, end = begin * SPARSE, min((max(last, begin) + 1) * SPARSE, self._rows)
        low = self._words(at, end)
        return Fingerprints(low, self._words(self._rows + at, self._rows + end) if self._wide else None)

    def _words(self, at: int, end: int) -> Words:
        return np.frombuffer(os.pread(self._file.fileno(), 8 * (end - at), 8 * at), np.uint64)

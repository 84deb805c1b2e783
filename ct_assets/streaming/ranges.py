"""Folds over index ranges ``[lo, hi)`` of an ordered array: the arithmetic below the windows.

What goes here: exact sums, floats from left to right, extremes, distinct counts, vectorised over many ranges.
What does not: which events lie in a window (``windows.py``).

Integers are summed exactly (two 32-bit limbs, so that no prefix sum wraps); floats are never subtracted:
``(1e16 + 1) - 1e16`` is 0 in doubles, so each range is folded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

LONG = 4_096  # a float range longer than this is folded by itself
AT_ONCE = 4_000_000  # elements of ranges that are written out at a time
_LOW = np.int64(0xFFFFFFFF)


def expanded(lo: I64, hi: I64) -> Iterator[tuple[slice, I64, I64]]:
    """Blocks of ranges written out: (which ranges, position in the array, number of the range within the block)."""
    size = np.maximum(hi - lo, 0)
    ends = np.cumsum(size)
    begin = 0
    while begin < len(lo):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + AT_ONCE, "right")), begin + 1)
        part = size[begin:end]
        owner = np.repeat(np.arange(end - begin), part)
        first = np.cumsum(part) - part
        yield slice(begin, end), np.arange(int(part.sum())) + np.repeat(lo[begin:end] - first, part), owner
        begin = end


def int_sums(values: I64, lo: I64, hi: I64) -> I64 | npt.NDArray[np.object_]:
    """Exact sums; Python integers where one does not fit 64 bits."""
    if not len(values):
        return np.zeros(len(lo), np.int64)
    largest = max(abs(int(values.max())), abs(int(values.min())))
    if largest * len(values) < 2**62:
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
        return total[hi] - total[lo]
    low = np.concatenate([np.zeros(1, np.int64), np.cumsum(values & _LOW)])
    high = np.concatenate([np.zeros(1, np.int64), np.cumsum(values >> np.int64(32))])
    lows, highs = low[hi] - low[lo], high[hi] - high[lo]
    highs, lows = highs + (lows >> np.int64(32)), lows & _LOW
    if len(highs) == 0 or (highs.max() < 2**31 and highs.min() >= -(2**31)):
        return (highs << np.int64(32)) | lows
    return highs.astype(object) * 2**32 + lows.astype(object)


def big_sums(values: npt.NDArray[np.object_], lo: I64, hi: I64) -> npt.NDArray[np.object_]:
    """The same of Python integers of any size."""
    total = np.concatenate([np.zeros(1, object), np.cumsum(values)]) if len(values) else np.zeros(1, object)
    return total[hi] - total[lo]


def float_sums(values: F64, lo: I64, hi: I64) -> F64:
    """Each range from left to right, beginning with 0.0; an infinity where it gets beyond a double, which is its value."""
    with np.errstate(over="ignore"):
        return _float_sums(values, lo, hi)


def _float_sums(values: F64, lo: I64, hi: I64) -> F64:
    out = np.zeros(len(lo), np.float64)
    size = hi - lo
    for i in np.flatnonzero(size > LONG):
        out[i] = np.add.accumulate(np.concatenate([[0.0], values[lo[i] : hi[i]]]))[-1]  # accumulate is sequential
    active = np.flatnonzero((size > 0) & (size <= LONG))
    active = active[np.argsort(-size[active], kind="stable")]
    falling = size[active]
    step = 0
    while len(active):
        out[active] += values[lo[active] + step]
        step += 1
        alive = int(np.searchsorted(-falling, -step, "left"))  # ranges longer than `step`
        active, falling = active[:alive], falling[:alive]
    return out


def extremes(values: npt.NDArray[np.generic], lo: I64, hi: I64, larger: bool) -> npt.NDArray[np.generic]:
    """The largest or smallest of each non-empty range (an empty one gets any value): a sparse table, level by level."""
    out = np.zeros(len(lo), values.dtype)
    pick: Callable[..., npt.NDArray[np.generic]] = np.maximum if larger else np.minimum
    size = hi - lo
    level_of = np.where(size > 0, np.frexp(np.maximum(size, 1).astype(np.float64))[1] - 1, -1)
    table = values
    for level in range(int(level_of.max(initial=-1)) + 1):
        if level:
            half = 1 << (level - 1)
            table = pick(table[:-half], table[half:])
        here = np.flatnonzero(level_of == level)
        out[here] = pick(table[lo[here]], table[hi[here] - (1 << level)])
    return out


def distinct_counts(codes: I64, lo: I64, hi: I64) -> I64:
    """Unlike codes of each range: an element counts where its previous equal lies before the range."""
    previous = np.full(len(codes), -1, np.int64)
    order = np.argsort(codes, kind="stable")
    same = codes[order[1:]] == codes[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    out = np.zeros(len(lo), np.int64)
    for block, position, owner in expanded(lo, hi):
        fresh = previous[position] < lo[block][owner]
        out[block] = np.bincount(owner[fresh], minlength=block.stop - block.start)
    return out

"""(entity, time) as one integer that sorts alike, so that a window is two binary searches.

What goes here: entity codes and packed keys. What does not: what is searched for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ct_assets.streaming.ranges import I64

_NEAR = 1 << 24  # integers no further apart are codes as they are


@dataclass(frozen=True)
class Keys:
    """Entity code in the upper bits; below it the time from ``base``, or its rank where 63 bits are short."""

    base: int
    bits: int
    ranks: I64 | None = None

    @classmethod
    def over(cls, largest_code: int, time: I64) -> Keys:
        """For these times and codes from 0 to ``largest_code``."""
        base = int(time.min()) if len(time) else 0
        bits = ((int(time.max()) if len(time) else 0) - base + 2).bit_length()
        if bits + (largest_code + 1).bit_length() <= 62:
            return cls(base, bits)
        ranks = np.unique(time)
        return cls(0, (len(ranks) + 2).bit_length(), ranks)

    def own(self, code: I64, time: I64) -> I64:
        """The keys of the times that these keys are over."""
        if self.ranks is not None:
            return self.of(code, time)
        key = code << np.int64(self.bits)
        key += time
        key -= np.int64(self.base)
        return key

    def of(self, code: I64, time: I64) -> I64:
        """The key whose place among sorted keys is that of the first event of the entity at or after ``time``."""
        if self.ranks is not None:
            place = np.searchsorted(self.ranks, time)
        else:
            place = np.clip(time - self.base, 0, (1 << self.bits) - 1)
        return (code << np.int64(self.bits)) | place


def codes_of(events: pl.Series, labels: pl.Series) -> tuple[I64, I64]:
    """Codes of both, equal where the values are: see :func:`codes`."""
    if events.dtype == labels.dtype == pl.Int64 and not events.null_count() and not labels.null_count():
        each = [v.to_numpy() for v in (events, labels)]
        bounds = [int(pick(v)) for v in each if len(v) for pick in (np.min, np.max)]
        low = min(bounds, default=0)
        if max(bounds, default=0) - low < _NEAR:
            return each[0] - low, each[1] - low
    found = codes(pl.concat([events.rename("e"), labels.cast(events.dtype).rename("e")]))
    return found[: len(events)], found[len(events) :]


def codes(values: pl.Series) -> I64:
    """Small integers that are equal where the values are; null has the code 0."""
    if values.dtype == pl.Int64 and not values.null_count() and len(values):
        low, high = int(values.min()), int(values.max())  # pyright: ignore[reportArgumentType]
        if high - low < _NEAR:
            return values.to_numpy() - low
    return values.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()

"""Local times become UTC, except those that the clock skipped or repeated.

What goes here: one zone's offset a day at a time. What does not: parsing of texts (``casts.py``).

A day without transition has one offset, found once (zoneinfo, every hour, both folds); rows of a day with a transition
are converted one by one by Polars, which says which local times do not exist and which happened twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from ct_assets.ingest.fastcasts import DAY_US, Flags, Ints

MAX_TABLE_DAYS = 10_000
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Converted:
    """UTC microseconds; ``skipped`` and ``repeated`` mark local times that have no single meaning (None: there are none)."""

    utc: Ints
    skipped: Flags | None = None
    repeated: Flags | None = None


@cache
def _day_offset(zone: str, day: int) -> int | None:
    """Offset of a whole local day from UTC in microseconds; None when it changes during it."""
    try:
        begin = _EPOCH + timedelta(days=day)
        moments = [
            (begin + timedelta(hours=h)).replace(tzinfo=ZoneInfo(zone), fold=f) for h in range(25) for f in (0, 1)
        ]
    except OverflowError:
        return None
    offsets = {moment.utcoffset() for moment in moments}
    offset = offsets.pop()
    return None if offsets or offset is None else offset // _MICROSECOND


def to_utc(local: Ints, zone: str) -> Converted:
    """Convert microseconds of a zone's local time since 1970."""
    if not len(local):
        return Converted(local)
    days = local // DAY_US
    low, high = int(days.min()), int(days.max())
    if low == high and (offset := _day_offset(zone, low)) is not None:
        return Converted(local - offset)
    if high - low < MAX_TABLE_DAYS:  # sorting the days was the dearest step of reading a timestamp
        which = days - low
        unlike = np.flatnonzero(np.bincount(which, minlength=1)) + low
        places = np.zeros(high - low + 1, np.int64)
        places[unlike - low] = np.arange(len(unlike))
        which = places[which]
    else:
        unlike, which = np.unique(days, return_inverse=True)
    offsets = [_day_offset(zone, int(day)) for day in unlike]
    utc = local - np.array([offset or 0 for offset in offsets], np.int64)[which]
    turning = np.array([offset is None for offset in offsets])
    if not turning.any():
        return Converted(utc)
    return _one_by_one(local, utc, np.flatnonzero(turning[which]), zone)


def _one_by_one(local: Ints, utc: Ints, rows: Ints, zone: str) -> Converted:
    naive = pl.Series(local[rows]).cast(pl.Datetime("us"))
    sure = naive.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    earlier = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    utc[rows] = sure.dt.convert_time_zone("UTC").to_physical().fill_null(0).to_numpy()
    skipped, repeated = np.zeros(len(local), bool), np.zeros(len(local), bool)
    skipped[rows] = earlier.is_null().to_numpy()
    repeated[rows] = (sure.is_null() & earlier.is_not_null()).to_numpy()
    return Converted(utc, skipped, repeated)

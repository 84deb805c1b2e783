"""ISO 8601 text to integer microseconds UTC, exactly, one text at a time.

What goes here: the strict reading that every faster path must equal. What does not: vectorised reading (``scanner.py``).
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from ct_assets.json_values import shown

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(Z|z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class NotATime(ValueError):
    """The text is no moment: malformed, no such day, or without offset where no zone is declared."""


def microseconds(text: str, zone: str | None = None) -> int:
    """Microseconds since 1970 of ``2026-01-01T00:00:00.000001+02:00``; digits beyond the sixth are cut off.

    A text without offset is a local time of ``zone``; without a zone, or when the clock skipped or repeated that time,
    it is none. Raises NotATime with the reason.
    """
    match = _ISO.fullmatch(text)
    if match is None:
        raise NotATime(f"{shown(text[:40])} is no ISO 8601 time")
    year, month, day, hour, minute = (int(g) for g in match.groups()[:5])
    fraction = int((match.group(7) or "0")[:6].ljust(6, "0"))
    try:
        local = datetime(year, month, day, hour, minute, int(match.group(6) or 0), fraction)
    except ValueError as wrong:
        raise NotATime(f"{shown(text[:40])}: {wrong}") from None
    if match.group(8) is None:
        return _zoned(local, zone, text)
    return (local.replace(tzinfo=UTC) - _EPOCH) // MICROSECOND - _offset(match.group(8), text)


def _offset(text: str, whole: str) -> int:
    """Microseconds of ``+02:00``, ``+0200``, ``+02`` or ``Z``."""
    if text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[-2:]) if len(text) > 3 else 0
    if hours > 23 or minutes > 59:
        raise NotATime(f"{shown(whole[:40])}: no offset {text}")
    return (-1 if text[0] == "-" else 1) * (hours * 60 + minutes) * 60_000_000


def _zoned(local: datetime, zone: str | None, text: str) -> int:
    if zone is None:
        raise NotATime(f"{shown(text[:40])} has no offset, and the contract declares no zone")
    info = _zone(zone)
    early, late = (local.replace(tzinfo=info, fold=fold) for fold in (0, 1))
    if early.utcoffset() != late.utcoffset():
        raise NotATime(f"{shown(text[:40])} was skipped or repeated by the clock in {zone}")
    try:
        return (early.astimezone(UTC) - _EPOCH) // MICROSECOND
    except OverflowError:
        raise NotATime(f"{shown(text[:40])} is beyond the calendar") from None


@lru_cache(maxsize=8)
def _zone(name: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(name)


def calendar_day(text: str) -> date:
    """A date ``2026-01-31``. Raises NotATime."""
    match = _DATE.fullmatch(text)
    try:
        if match is not None:
            return date(*(int(g) for g in match.groups()))
    except ValueError:
        pass
    raise NotATime(f"{shown(text[:40])} is no day (yyyy-mm-dd)")

"""One decoded object (JSON or Avro) becomes typed values, exactly, or a dead letter's reason.

What goes here: the truth table of a value per declared type, one value at a time. What does not: parsing bytes
(``decode.py``), rules (``rules.py``), the vectorised reading of the usual case (``scanner.py``).

=============  =========================================================================================
string         a JSON string; no NUL, no lone surrogate (no database keeps them)
integer        a JSON integer within 64 bits: not 1.0, not "42", not true
decimal(p,s)   a JSON number or a string holding one, exactly: at most s decimals (zeros aside), p digits
number         a JSON number, finite as a double
boolean        true or false
date           a string yyyy-mm-dd
timestamp      a string, ISO 8601 with an offset (or a local time where the contract declares a zone)
=============  =========================================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.json_values import shown
from ct_assets.streaming.definition import EARLIEST_US, LATEST_US, UNITS_OF_TIME, Acceptance
from ct_assets.streaming.times import MICROSECOND, NotATime, calendar_day, microseconds

_DECIMAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE_64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Refused(Exception):
    """A value or an event that does not count: the dead letter's reason and what was wrong."""

    reason: str
    error: str


class Reading:
    """Reads objects by one schema and one acceptance."""

    def __init__(self, schema: DatasetSchema, acceptance: Acceptance) -> None:
        """Derived columns are not looked for: they are computed later, for the whole batch."""
        self._acceptance = acceptance
        self._columns = [(c, _READ[c.type]) for c in schema.delivered]
        self._zone = zone_of(schema.column(acceptance.event_time))
        self._closed = {c.name for c in schema.delivered} if schema.closed else None

    def row(self, event: Mapping[str, Any]) -> tuple[Any, ...]:
        """The typed values in the order of the delivered columns, times in microseconds. Raises Refused.

        The reasons are tried in their order: null_key, timestamp_out_of_range, contract.
        """
        rules = self._acceptance
        if event.get(rules.entity) is None:
            raise Refused("null_key", f"{rules.entity} is absent or null")
        time = self._time(event.get(rules.event_time))
        if isinstance(time, int) and not EARLIEST_US <= time < LATEST_US:
            raise Refused(
                "timestamp_out_of_range", f"{rules.event_time} {shown(event[rules.event_time])} is outside 2000 to 2100"
            )
        if isinstance(time, str):
            raise Refused("contract", f"{rules.event_time}: {time}")
        if event.get(rules.event_id) is None:
            raise Refused("contract", f"{rules.event_id} is absent or null")
        unknown = set(event) - self._closed if self._closed is not None else None
        if unknown:
            raise Refused("contract", f"unknown {', '.join(sorted(unknown)[:3])} (the contract is closed)")
        return tuple(time if c.name == rules.event_time else _typed(c, read, event) for c, read in self._columns)

    def _time(self, value: Any) -> int | str:
        """Microseconds, or what is wrong."""
        unit = UNITS_OF_TIME.get(self._acceptance.time_unit)
        try:
            if unit is None:
                return _timestamp_us(value, self._zone)
            return whole(value) * unit
        except (ValueError, TypeError) as wrong:
            return str(wrong)


def zone_of(column: Column) -> str | None:
    """The zone whose local times a column may hold; None: an offset is needed."""
    return column.time_zone if column.time_zone and not column.offsets else None


def _typed(column: Column, read: Callable[[Column, Any], Any], event: Mapping[str, Any]) -> Any:
    value = event.get(column.name)
    if value is None:
        return None
    try:
        return read(column, value)
    except (ValueError, TypeError, InvalidOperation, OverflowError) as wrong:
        raise Refused("contract", f"{column.name}: {wrong}") from None


def whole(value: Any) -> int:
    """A JSON integer of any size. Raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{shown(value)} is no integer")
    return value


def _integer(_: Column, value: Any) -> int:
    if whole(value) not in _WHOLE_64:
        raise ValueError(f"{shown(value)} is beyond 64 bits")
    return value


def _string(_: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is no string")
    if "\x00" in value:
        raise ValueError("the text holds NUL")
    return value


def _decimal(column: Column, value: Any) -> Decimal:
    given = value
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal | float):
        raise TypeError(f"{shown(value)} is no decimal")
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not exact.is_finite() or abs(exact.adjusted()) > 60:
        raise ValueError(f"{shown(given)} is no decimal({column.precision},{column.scale})")
    unscaled, rest = divmod(int(exact.scaleb(20 + column.scale, _CONTEXT)), 10**20)
    if rest or abs(unscaled) >= 10**column.precision or exact.scaleb(column.scale, _CONTEXT) != unscaled:
        raise ValueError(f"{shown(given)} is no decimal({column.precision},{column.scale})")
    return Decimal(unscaled).scaleb(-column.scale, _CONTEXT)


def _number(_: Column, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(f"{shown(value)} is no number")
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{shown(value)} is beyond a double")
    return found


def _boolean(_: Column, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{shown(value)} is neither true nor false")
    return value


def _date(_: Column, value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value  # Avro's logical type
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is no date")
    return calendar_day(value)


def _timestamp(column: Column, value: Any) -> int:
    return _timestamp_us(value, zone_of(column))


def _timestamp_us(value: Any, zone: str | None) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value - _EPOCH) // MICROSECOND  # Avro's logical type
    if value is None:
        raise NotATime("absent or null")
    if not isinstance(value, str):
        raise NotATime(f"{shown(value)} is no ISO 8601 text")
    return microseconds(value, zone)


def _context() -> Any:
    from decimal import Context

    return Context(prec=200, Emax=10_000, Emin=-10_000)


_CONTEXT = _context()
_READ: dict[str, Callable[[Column, Any], Any]] = {
    "string": _string,
    "integer": _integer,
    "decimal": _decimal,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
}

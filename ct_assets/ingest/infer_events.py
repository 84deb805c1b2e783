"""A contract proposed from JSON lines that the streaming reader holds every event of the same file to.

What goes here: what the values of each key are, and the ODCS YAML that follows. What does not: what an event's values may
be (``ct_assets.streaming.values``), the proposal for CSV (``infer.py``), whose evidence and wording are used.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import polars as pl

from ct_assets.errors import UsageError
from ct_assets.ingest.duplicates import Seen
from ct_assets.ingest.infer import (
    FEW_VALUES,
    MAX_DIGITS,
    Proposal,
    column_lines,
    comment,
    dataset_name,
    mark_personal,
    quote,
)
from ct_assets.ingest.profile import FORMS, IDENTIFIER, ColumnProfile, add_texts
from ct_assets.streaming.decode import parse_json
from ct_assets.streaming.definition import EARLIEST_US, LATEST_US, UNITS_OF_TIME, WHOLE_64
from ct_assets.streaming.times import calendar_day, microseconds
from ct_assets.streaming.values import Refused

EVENTS_AT_ONCE = 10_000
EXACT_DECIMALS = 6  # numbers with more are measured: a float
TIMELIKE = re.compile(r"(?:^|_)(?:ts|time|timestamp|at|date|epoch|unix|when)(?:_|$)|(?:time|At|Date)$", re.IGNORECASE)
CALENDAR_US = 61 * 10**15  # the calendar goes 1,969 years back from 1970 and 8,029 on
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_JSON_LINES = "give a file with one JSON object a line"


def _day(text: str) -> int:
    return (calendar_day(text) - _EPOCH.date()).days * 86_400_000_000


# how each text may be read, beside as text; the first that all texts of a key keep is proposed
_READINGS: dict[str, Callable[[str], int]] = {
    "date": _day,
    "timestamp": microseconds,
    "local": lambda text: microseconds(text, "UTC"),
}


@dataclass
class _Key:
    """What the values of one key are; null is none."""

    found: ColumnProfile
    seen: Seen = field(default_factory=Seen)
    texts: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    nulls: int = 0
    times: dict[str, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(_READINGS, (LATEST_US, -LATEST_US)))
    printed: bool = True  # every text is a number
    low: Decimal = Decimal("inf")
    high: Decimal = Decimal("-inf")
    whole_digits: int = 1
    decimals: int = 0
    is_double: bool = True  # every number is finite as one

    def add(self, value: Any) -> None:
        if value is None:
            self.nulls += 1
            return
        kind = _kind(value)
        self.kinds[kind] += 1
        if kind == "text":
            self.texts.append(value)
            self._text(value)
        elif kind in ("integer", "decimal"):
            self._number(Decimal(value))
        self.found.example = self.found.example or _example(value)

    def _text(self, text: str) -> None:
        for name in list(self.times):
            try:
                at = _READINGS[name](text)
            except ValueError:
                del self.times[name]
            else:
                low, high = self.times[name]
                self.times[name] = min(low, at), max(high, at)
        self.printed = self.printed and len(text) <= MAX_DIGITS + 2 and _DECIMAL.fullmatch(text) is not None
        if self.printed:
            self._number(Decimal(text))

    def _number(self, value: Decimal) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.is_double = self.is_double and math.isfinite(float(value))
        if abs(value.adjusted()) > MAX_DIGITS:
            self.whole_digits = 2 * MAX_DIGITS  # no decimal holds it
            return
        digits = format(value, "f").lstrip("-").partition(".")
        self.whole_digits = max(self.whole_digits, len(digits[0]))
        self.decimals = max(self.decimals, len(digits[2].rstrip("0")))

    @property
    def present(self) -> int:
        return sum(self.kinds.values())

    @property
    def is_exact(self) -> bool:
        """Whether a decimal of 38 digits holds every number."""
        return self.whole_digits + max(self.decimals, 2) <= MAX_DIGITS


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in WHOLE_64 else "decimal"
    if isinstance(value, str):
        return "text with NUL" if "\x00" in value else "text"
    return "decimal" if isinstance(value, Decimal) else "an object" if isinstance(value, dict) else "a list"


def _example(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def event_contract(lines: Iterable[bytes], name: str) -> tuple[str, list[str]]:
    """The proposed contract of lines of JSON as YAML, and which keys it leaves out and why. Raises UsageError where no line is an event."""
    keys: dict[str, _Key] = {}
    counts = Counter[str]()
    for event in _events(lines, counts):
        counts["read"] += 1
        for key, value in event.items():
            if key not in keys:
                keys[key] = _Key(ColumnProfile(key, forms=set(FORMS)))
            keys[key].add(value)
        if counts["read"] % EVENTS_AT_ONCE == 0:
            _gather(keys)
    _gather(keys)
    if not counts["read"]:
        what = f"{name}: no line is a JSON object" if counts["broken"] else f"{name}: the file is empty"
        raise UsageError(what, hint=_JSON_LINES)
    left_out = [f"{quote(k)}, {why}" for k, found in keys.items() if (why := _why_not(found, counts["read"]))]
    kept = {k: found for k, found in keys.items() if not _why_not(found, counts["read"])}
    if not kept:
        raise UsageError(f"{name}: no key has values that a column can hold", hint="; ".join(left_out) or _JSON_LINES)
    return "\n".join([*_head(name, counts, left_out), *_properties(kept, counts["read"]), ""]), left_out


def _events(lines: Iterable[bytes], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield parse_json(line)
        except Refused:
            counts["broken"] += 1


def _gather(keys: dict[str, _Key]) -> None:
    """The texts so far into each column's profile."""
    for key in keys.values():
        if set(key.kinds) != {"text"}:
            key.found.forms.clear()
        if key.texts:
            add_texts(key.found, pl.Series(key.found.name, key.texts), key.seen)
            key.texts = []


def _why_not(key: _Key, events: int) -> str:
    """Why no column holds the values of a key; empty when one does."""
    kinds = set(key.kinds)
    plain = kinds <= {"integer", "decimal"} or len(kinds) <= 1
    if not key.found.name:
        return "a key without a name"
    if kinds & {"an object", "a list", "text with NUL"} or not (plain or (key.printed and "boolean" not in kinds)):
        return " and ".join(f"{kind} in {n:,}" for kind, n in sorted(key.kinds.items())) + f" of {events:,} events"
    if kinds & {"decimal", "integer"} and not key.is_exact and not (key.is_double and "text" not in kinds):
        return "numbers that neither a decimal of 38 digits nor a double holds"
    return ""


def _head(name: str, counts: Counter[str], left_out: list[str]) -> list[str]:
    dataset = quote(dataset_name(name))
    return [
        f"# Proposed from {comment(PurePath(name).name)}: {counts['read']:,} events read, {counts['broken']:,} of the lines are no JSON object.",
        "# Comments say what speaks for each clause; questions marked with ? are yours to answer.",
        *(f"# left out: {comment(text)}: a column holds one plain value" for text in left_out),
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: {dataset}",
        f"name: {dataset}",
        "version: 0.1.0",
        "status: proposed",
        "schema:",
        f"  - name: {dataset}",
        "    logicalType: object",
        "    properties:",
    ]


def _properties(keys: dict[str, _Key], events: int) -> Iterator[str]:
    taken = set(keys)
    for key in keys.values():
        column = _propose(key, events)
        if "personalData" in column.custom and column.keys["logicalType"] in ("date", "timestamp"):
            key.found.example = ""
        yield from column_lines(key.found, column, taken)


def _propose(key: _Key, events: int) -> Proposal:
    column = Proposal(key.found.name)
    if not key.present:
        column.keys["logicalType"] = "string"
        column.evidence.append(
            f"null wherever it is, in {key.nulls:,} of {events:,} events: nothing is known of its type"
        )
        return column
    _type(key, column)
    if key.present == events:
        column.keys["required"] = "true"
        column.evidence.append(f"present in all {events:,} events")
    else:
        absent = events - key.present - key.nulls
        column.evidence.append(f"null in {key.nulls:,}, absent in {absent:,} of {events:,} events")
    mark_personal(key.found, column)
    return column


def _type(key: _Key, column: Proposal) -> None:
    times = next(iter(key.times), None) if set(key.kinds) == {"text"} else None
    if times is not None:
        _time(key, times, column)
    elif set(key.kinds) == {"boolean"}:
        column.keys["logicalType"] = "boolean"
    elif set(key.kinds) == {"integer"}:
        _integer(key, column)
    elif set(key.kinds) != {"text"} or _is_decimal_text(key):
        _number(key, column)
    else:
        _text(key, column)


def _time(key: _Key, reading: str, column: Proposal) -> None:
    column.keys["logicalType"] = "date" if reading == "date" else "timestamp"
    column.evidence.append(f"every value is an ISO 8601 {column.keys['logicalType']}{_span(*key.times[reading])}")
    if reading != "date":
        column.options["timezone"] = "true"
    if reading == "local":
        column.options["defaultTimezone"] = "UTC"
        column.questions.append("local times without an offset: of which zone? UTC stands here until you say it")


def _span(low_us: int, high_us: int) -> str:
    """The first and the last moment; nothing where an offset takes one out of the calendar."""
    if abs(low_us) > 61 * 10**15 or abs(high_us) > 250 * 10**15:
        return ""
    low, high = (_EPOCH + timedelta(microseconds=us) for us in (low_us, high_us))
    return f", from {low:%Y-%m-%d %H:%M:%S} to {high:%Y-%m-%d %H:%M:%S} UTC"


def _integer(key: _Key, column: Proposal) -> None:
    column.keys["logicalType"] = "integer"
    low, high = int(key.low), int(key.high)
    unit = next((u for u, us in UNITS_OF_TIME.items() if low * us >= EARLIEST_US and high * us < LATEST_US), None)
    if unit is None:
        _bounds(key, column)
        return
    span = _span(low * UNITS_OF_TIME[unit], high * UNITS_OF_TIME[unit])
    named = TIMELIKE.search(key.found.name) is not None
    if named or unit != "s":  # any number of ten digits could be seconds
        column.custom["unit"] = unit
        column.evidence.append(f"whole numbers; as {unit} since 1970{span}")
    if not named:
        column.questions.append(f"is it a time? with {{property: unit, value: {unit}}} the values are moments{span}")


def _bounds(key: _Key, column: Proposal) -> None:
    column.evidence.append(f"every value is a number, from {key.low:g} to {key.high:g}")
    if key.low >= 0:
        column.options["minimum"] = "0"
        column.evidence.append("never negative")


def _is_decimal_text(key: _Key) -> bool:
    return key.printed and key.decimals > 0 and key.is_exact and not IDENTIFIER.search(key.found.name)


def _number(key: _Key, column: Proposal) -> None:
    column.keys["logicalType"] = "number"
    if key.is_exact and (key.decimals <= EXACT_DECIMALS or "text" in key.kinds):
        scale = max(key.decimals, 2)
        _bounds(key, column)
        column.keys["physicalType"] = quote(f"decimal({max(18, key.whole_digits + scale)},{scale})")
        column.evidence.append(f"kept exact: an event with more than {scale} decimals is refused")
    else:
        column.keys["physicalType"] = "double"
        column.evidence.append(
            f"every value is a number, from {key.low:g} to {key.high:g}; {key.decimals} decimals: a float"
        )
        if key.low >= 0:
            column.questions.append("never negative here; add logicalTypeOptions: {minimum: 0} if it cannot be")


def _text(key: _Key, column: Proposal) -> None:
    column.keys["logicalType"] = "string"
    found = key.found
    form = next((f for f in ("uuid", "email", "ipv4") if f in found.forms), None)
    if form and found.shortest is not None and not found.untrimmed and not found.absent:
        column.options["format"] = form
        column.evidence.append(f"all {key.present:,} values are of the form {form}")
    values = sorted(found.values)
    if not found.many and len(values) <= FEW_VALUES and 2 * len(values) <= key.present and not found.untrimmed:
        said = ", ".join(quote(value) for value in values)
        column.questions.append(f"only {len(values)} unlike values; add enum: [{said}] if there can be no others")

"""What the values of a form mean by a contract: which messages teach a form, and how each value of it is read.

What goes here: one reader a declared type, over a table of messages of one form. What does not: forms (``forms.py``), the
columns of a batch (``form_columns.py``), the contract's rules.

A form is only learnt where every value of it is certain to be read as the exact reader reads it; what depends on digits
(an hour of 25, a leading zero) is decided row by row, and those rows are left to the exact reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ct_assets.contracts.model import ERROR, Column, DatasetSchema
from ct_assets.streaming.definition import EARLIEST_US, LATEST_US, UNITS_OF_TIME, Acceptance
from ct_assets.streaming.forms import DIGIT, TEXT, Form, Place, Table, places
from ct_assets.streaming.text import I64, ZEROS, Mask, civil
from ct_assets.streaming.values import zone_of

_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|[+-](\d\d):(\d\d))")
_DATE = re.compile(rb"\d{4}-\d\d-\d\d")

# of a table: (values, which rows are certain)
Read = Callable[[Table], tuple[Any, Mask | None]]


class Unread(Exception):
    """A value that no form reads: its messages are for the other readers."""


@dataclass(frozen=True)
class Part:
    """One value of a form: what its bytes may be, and how it is read. ``constant``: the same in every message."""

    kinds: npt.NDArray[np.uint8]
    read: Read | None = None
    constant: Any = None


@dataclass
class Known:
    """A form with the columns that it fills, and how often it came lately."""

    form: Form
    parts: dict[str, tuple[Place, Part]]
    hits: int = 0


class FormValues:
    """Learns forms by one schema. Columns that need more than digits (local times of a zone) teach none."""

    def __init__(self, schema: DatasetSchema, acceptance: Acceptance) -> None:
        """``columns``: those that a message delivers, by name."""
        self._acceptance, self._closed = acceptance, schema.closed
        self.columns = {c.name: c for c in schema.delivered}
        self._needed = {acceptance.event_id, acceptance.entity, acceptance.event_time}
        self._enums = {
            r.columns[0]: sorted(r.limit)
            for r in schema.rules
            if r.kind == "enum" and r.severity == ERROR and len(r.limit) <= 32
        }

    def words(self, name: str) -> list[str]:
        """The words of a column's enum, when it is one of text."""
        words = self._enums.get(name, []) if self.columns[name].type == "string" else []
        return [str(word) for word in words]

    def learn(self, payload: bytes) -> Known | None:
        """The form of a message; None when a value of it needs another reader."""
        found = places(payload)
        keys = {place.key for place in found or ()}
        if not keys >= self._needed or (self._closed and not keys <= set(self.columns)):
            return None
        kinds = np.zeros(len(payload), np.uint8)
        parts: dict[str, tuple[Place, Part]] = {}
        try:
            for place in found or ():
                part = self._part(place)
                kinds[place.at : place.at + place.width] = part.kinds
                if part.read is not None or part.constant is not None or place.key in self.columns:
                    parts[place.key] = (place, part)
        except Unread:
            return None
        return Known(Form(payload, kinds), parts)

    def _part(self, place: Place) -> Part:
        column = self.columns.get(place.key)
        literal = np.zeros(place.width, np.uint8)
        if not place.is_string and place.sample == b"null" and place.key not in self._needed:
            return Part(literal)
        if column is None:
            return _ignored(place)
        if place.is_string:
            return self._string(place, column)
        if column.type == "boolean" and place.sample in (b"true", b"false"):
            return Part(literal, constant=place.sample == b"true")
        return self._number(place, column)

    def _string(self, place: Place, column: Column) -> Part:
        if column.type == "string":
            words = self.words(column.name)
            if not words:
                return Part(np.full(place.width, TEXT, np.uint8), in_place)
            if place.sample.decode() in words:
                return Part(np.zeros(place.width, np.uint8), constant=words.index(place.sample.decode()))
        elif column.type == "timestamp" and zone_of(column) is None:
            return self._time(place, column)
        elif column.type == "date" and _DATE.fullmatch(place.sample):
            return Part(_digit_kinds(place.sample), lambda table: _days(table, place.at))
        raise Unread

    def _time(self, place: Place, column: Column) -> Part:
        match = _TIME.fullmatch(place.sample)
        if match is None:
            raise Unread
        hours, minutes = int(match.group(3) or 0), int(match.group(4) or 0)
        if hours > 23 or minutes > 59:
            raise Unread
        shift = (hours * 60 + minutes) * 60_000_000 * (-1 if b"+" in place.sample else 1)
        kinds = _digit_kinds(place.sample)
        if match.group(3):
            kinds[-6:] = 0  # the offset belongs to the form
        limited = column.name == self._acceptance.event_time
        places_ = len(match.group(2) or b"")
        return Part(kinds, lambda table: _moment(table, place.at, places_, shift, limited))

    def _number(self, place: Place, column: Column) -> Part:
        match = _NUMBER.fullmatch(place.sample)
        if match is None or column.type not in _NUMBERS:
            raise Unread
        whole, fraction = match.group(1), match.group(2) or b""
        kinds = _digit_kinds(place.sample)
        negative = place.sample[:1] == b"-"
        at = place.at + negative
        read = _NUMBERS[column.type](self, column, _Digits(at, len(whole), len(fraction), negative))

        def certain(table: Table) -> tuple[Any, Mask | None]:
            values, sure = read(table)
            if len(whole) == 1:
                return values, sure
            leads = table.byte(at) != ord("0")
            return values, leads if sure is None else sure & leads

        return Part(kinds, certain)

    def _integer(self, column: Column, digits: _Digits) -> Read:
        if digits.fraction or digits.whole > 18:
            raise Unread
        if column.name != self._acceptance.event_time:
            return lambda table: (digits.of(table, 0), None)
        unit = UNITS_OF_TIME[self._acceptance.time_unit]

        def time(table: Table) -> tuple[Any, Mask | None]:
            value = digits.of(table, 0)
            sure = (value >= EARLIEST_US // unit) & (value < LATEST_US // unit)
            return np.where(sure, value, 0) * unit, sure

        return time

    def _decimal(self, column: Column, digits: _Digits) -> Read:
        if digits.fraction > column.scale or digits.whole + column.scale > 18:
            raise Unread
        if digits.whole + column.scale <= column.precision:
            return lambda table: (digits.of(table, column.scale), None)

        def limited(table: Table) -> tuple[Any, Mask | None]:
            value = digits.of(table, column.scale)
            return value, np.abs(value) < 10**column.precision

        return limited

    def _float(self, column: Column, digits: _Digits) -> Read:
        if digits.whole + digits.fraction > 15:  # below 2**53, and the power of ten is exact (Clinger 1990)
            raise Unread
        sign, power = (-1.0 if digits.negative else 1.0), 10.0**digits.fraction
        plain = _Digits(digits.at, digits.whole, digits.fraction, False)
        zero = 0.0 if digits.fraction == 0 else -0.0  # the whole number -0 is 0, -0.0 keeps its sign
        return lambda table: (sign * (plain.of(table, digits.fraction) / power) + zero, None)


@dataclass(frozen=True)
class _Digits:
    """Where the digits of a number lie: ``whole`` of them, then a point when there is a ``fraction``."""

    at: int
    whole: int
    fraction: int
    negative: bool

    def of(self, table: Table, scale: int) -> I64:
        """The number as an integer of 10**-scale."""
        value = table.digits(self.at, self.whole) * 10**scale
        if self.fraction:
            value = value + table.digits(self.at + self.whole + 1, self.fraction) * 10 ** (scale - self.fraction)
        return -value if self.negative else value


_NUMBERS: dict[str, Callable[[FormValues, Column, _Digits], Read]] = {
    "integer": FormValues._integer,
    "decimal": FormValues._decimal,
    "number": FormValues._float,
}


def in_place(_: Table) -> tuple[Any, Mask | None]:
    """Text stays where it is."""
    return 0, None


def _ignored(place: Place) -> Part:
    """A key that the contract does not know: its value must still be JSON, so only text and words may vary or stay."""
    if place.is_string:
        return Part(np.full(place.width, TEXT, np.uint8))
    if place.sample in (b"true", b"false"):
        return Part(np.zeros(place.width, np.uint8))
    raise Unread


def _digit_kinds(sample: bytes) -> npt.NDArray[np.uint8]:
    """Digits may be any digit; signs, points and punctuation are literal."""
    text = np.frombuffer(sample, np.uint8)
    return np.where((text >= ord("0")) & (text <= ord("9")), DIGIT, 0).astype(np.uint8)


def _days(table: Table, at: int) -> tuple[I64, Mask]:
    """``2026-01-31`` as days since 1970; the calendar is asked once where all rows have one day."""
    first, second = table.eight(at), table.eight(at + 8) & np.uint64(0xFFFF)
    if table.rows and (first == first[0]).all() and (second == second[0]).all():
        day, good = civil(first[:1], second[:1])
        return np.full(table.rows, day[0]), np.full(table.rows, good[0])
    return civil(first, second)


def _moment(table: Table, at: int, places_: int, shift: int, limited: bool) -> tuple[I64, Mask]:
    """``2026-01-31T00:00:00`` with a fraction of ``places_`` digits (cut at the sixth) as microseconds, plus ``shift``."""
    day, sure = _days(table, at)
    clock = (table.eight(at + 11) ^ ZEROS) & np.uint64(0xFFFF00FFFF00FFFF)
    pairs = clock * np.uint64(10) + (clock >> np.uint64(8))  # two digits a byte, at most 99
    hour, minute, second = (((pairs >> np.uint64(k)) & np.uint64(0xFF)).view(np.int64) for k in (0, 24, 48))
    sure = sure & (hour < 24) & (minute < 60) & (second < 60)
    out = ((day * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + shift
    if places_:
        out += table.digits(at + 20, min(places_, 6)) * 10 ** (6 - min(places_, 6))
    if limited:
        sure &= (out >= EARLIEST_US) & (out < LATEST_US)
    return out, sure

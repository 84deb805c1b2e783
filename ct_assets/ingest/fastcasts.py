"""Numbers and times read straight from bytes, eight at a time, where the text is in its plainest form.

What goes here: vectorised readers that answer "this is the value" or "not sure". What does not: the truth table
(``casts.py``): whatever is not sure here is read again there, so this module can only save time, never decide.

The digit arithmetic is the well-known SIMD-within-a-register parse of eight ASCII digits by three multiplications
(D. Lemire, "Quickly parsing eight digits", 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

_ZEROS = np.uint64(0x3030303030303030)
_HIGH = np.uint64(0xF0F0F0F0F0F0F0F0)
_SIX = np.uint64(0x0606060606060606)
_DOTS = np.uint64(0x2E2E2E2E2E2E2E2E)
_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_LOW = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)
_FILL = np.array([0x3030303030303030 & ((1 << (64 - 8 * n)) - 1) for n in range(9)], np.uint64)
_UP = np.array([(64 - 8 * n) % 64 for n in range(9)], np.uint64)
_TEN = np.array([10**n for n in range(19)], np.int64)
_FROM_A, _BEYOND_Z = np.uint64(0x1F1F1F1F1F1F1F1F), np.uint64(0x0505050505050505)  # added: the top bit is set
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Fields:
    """Stretches [starts, ends) of a padded text."""

    text: bytes
    starts: Ints
    ends: Ints

    def words(self, offset: int = 0) -> Words:
        """Eight bytes from each start on, little endian."""
        words = np.ndarray((len(self.text) - 7,), "<u8", buffer=self.text, strides=(1,))
        return words[self.starts + offset] if offset else words[self.starts]

    def stretches(self, words: int) -> Words:
        """So many words from each start on, (rows, words): gathering 8 or 24 unaligned bytes takes the same time."""
        width = 8 * words
        found = np.ndarray((len(self.text) - width + 1,), f"V{width}", buffer=self.text, strides=(1,))[self.starts]
        return found.view("<u8").reshape(-1, words)


def integers(fields: Fields) -> tuple[Ints, Flags]:
    """Integers of up to eight digits with an optional minus, no leading zero. Values and where they are sure."""
    word, length = fields.words(), fields.ends - fields.starts
    negative = (word & np.uint64(255)) == ord("-")
    if negative.any():
        word = np.where(negative, word >> np.uint64(8), word)
        length = length - negative
    sure = (length >= 1) & (length <= np.where(negative, 7, 8))
    length = np.where(sure, length, 1)
    sure &= ((word & np.uint64(255)) != ord("0")) | (length == 1)
    value, digits = _eight_digits(word, length)
    return np.where(negative, -value, value), sure & digits


def decimals(fields: Fields, scale: int, precision: int) -> tuple[Ints, Flags]:
    """Unscaled decimals from texts of up to eight characters with at most ``scale`` decimals; and where they are sure."""
    word, length = fields.words(), fields.ends - fields.starts
    negative = (word & np.uint64(255)) == ord("-")
    if negative.any():
        word = np.where(negative, word >> np.uint64(8), word)
        length = length - negative
    sure = (length >= 1) & (length <= np.where(negative, 7, 8))
    length = np.where(sure, length, 1)
    word &= _LOW[length]
    whole = _dot_at(word, length)
    fraction = np.maximum(length - whole - 1, 0)
    has_dot = whole < length
    sure &= (whole >= 1) & (~has_dot | ((fraction >= 1) & (fraction <= scale)))
    sure &= ((word & np.uint64(255)) != ord("0")) | (whole == 1)
    whole, fraction = np.where(sure, whole, 1), np.where(sure, fraction, 0)
    after = np.where(has_dot, (word >> np.uint64(8)) & ~_LOW[np.minimum(whole, 8)], np.uint64(0))
    value, digits = _eight_digits((word & _LOW[whole]) | after, whole + fraction)
    if precision - scale < 8:
        sure &= whole <= precision - scale
    value = value * _TEN[np.minimum(scale - fraction, 18)]
    return np.where(negative, -value, value), sure & digits


def _dot_at(word: Words, length: Ints) -> Ints:
    """Position of the first dot, or the length."""
    other = word ^ _DOTS
    found = (other - _ONES) & ~other & _TOPS
    lowest = found & (~found + np.uint64(1))
    at = np.bitwise_count(lowest - np.uint64(1)).astype(np.int64) >> 3
    return np.where(found == 0, length, np.minimum(at, length))


def _eight_digits(word: Words, length: Ints) -> tuple[Ints, Flags]:
    """The number in the first ``length`` bytes (1 to 8), and whether all of them are digits."""
    word = (word << _UP[length]) | _FILL[length]
    digits = ((word & _HIGH) == _ZEROS) & (((word + _SIX) & _HIGH) == _ZEROS)
    word = word - _ZEROS
    word = (word * np.uint64(10)) + (word >> np.uint64(8))
    low = (word & np.uint64(0x000000FF000000FF)) * np.uint64(0x000F424000000064)
    high = ((word >> np.uint64(16)) & np.uint64(0x000000FF000000FF)) * np.uint64(0x0000271000000001)
    return ((low + high) >> np.uint64(32)).astype(np.int64), digits


_DATE_MARKS, _DATE_MASK = np.uint64(0x2D00002D00000000), np.uint64(0xFF0000FF00000000)
_DATE_DIGITS = np.uint64(0x00F0F000F0F0F0F0)
_TIME_MARKS, _TIME_MASK = np.uint64(0x00003A00003A0000), np.uint64(0x0000FF0000FF0000)
_TIME_DIGITS = np.uint64(0xF0F000F0F000F0F0)


def dates(fields: Fields) -> tuple[Ints, Flags]:
    """Days since 1970 from texts ``yyyy-MM-dd``; and where they are sure."""
    return _days(fields.words(), fields.words(8), (fields.ends - fields.starts) == 10)


def timestamps(fields: Fields) -> tuple[Ints, Flags]:
    """Microseconds since 1970 from texts ``yyyy-MM-dd HH:mm:ss``; and where they are sure."""
    sure = (fields.ends - fields.starts) == 19
    if not sure.all():
        fields = Fields(fields.text, np.where(sure, fields.starts, 0), fields.ends)
    first, last, rest = (np.ascontiguousarray(word) for word in fields.stretches(3).T)
    days, sure = _days(first, last, sure & ((last & np.uint64(0xFF0000)) == ord(" ") << 16))
    clock = last >> np.uint64(24) | rest << np.uint64(40)  # from the eleventh byte on
    sure &= ((clock & _TIME_MASK) == _TIME_MARKS) & _all_digits(clock, _TIME_DIGITS)
    pairs = _pairs(clock)
    hour, minute, second = _pair(pairs, 0), _pair(pairs, 3), _pair(pairs, 6)
    sure &= (hour < 24) & (minute < 60) & (second < 60)
    return days * DAY_US + (hour * 3600 + minute * 60 + second) * 1_000_000, sure


def _days(word: Words, last: Words, sure: Flags) -> tuple[Ints, Flags]:
    """``last``: the bytes from the eighth on."""
    sure = (
        sure
        & ((word & _DATE_MASK) == _DATE_MARKS)
        & _all_digits(word, _DATE_DIGITS)
        & _all_digits(last, np.uint64(0xF0F0))
    )
    pairs = _pairs(word)
    year, month, day = _pair(pairs, 0) * 100 + _pair(pairs, 2), _pair(pairs, 5), _pair(_pairs(last), 0)
    first, longest = _calendar()
    sure &= (month >= 1) & (month <= 12) & (year >= 1) & (year <= 9999)
    at = np.where(sure, year * 12 + month - 1, 0)
    sure &= (day >= 1) & (day <= longest[at])
    return first[at] + day - 1, sure


@cache
def _calendar() -> tuple[Ints, Ints]:
    """For month ``year * 12 + month - 1``: the day (since 1970) it begins on, and its number of days."""
    months = np.arange("0000-01", "10001-01", dtype="datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return months[:-1], np.diff(months)


def _all_digits(word: Words, nibbles: Words | np.uint64) -> Flags:
    """All bytes under the mask are ASCII digits."""
    threes = nibbles & _ZEROS
    return ((word & nibbles) == threes) & (((word + _SIX) & nibbles) == threes)


def _pairs(word: Words) -> Words:
    """In each byte: ten times its digit plus the digit of the next byte."""
    digits = word & np.uint64(0x0F0F0F0F0F0F0F0F)
    return digits * np.uint64(10) + (digits >> np.uint64(8))


def _pair(pairs: Words, at: int) -> Ints:
    return ((pairs >> np.uint64(8 * at)) & np.uint64(255)).view(np.int64)


_SPACES = np.zeros(256, bool)
_SPACES[[9, 10, 13, 32]] = True


def trim(fields: Fields) -> tuple[Fields, Flags]:
    """Move both ends past ASCII white space; and where a non-ASCII character at an end leaves doubt."""
    data = np.frombuffer(fields.text, np.uint8)
    # neither white space nor doubt where both ends are printable ASCII: 33 to 127 become 0 to 94
    odd = (data[fields.starts] - np.uint8(33) > 94) | (data[fields.ends - 1] - np.uint8(33) > 94)
    odd &= fields.ends > fields.starts
    doubt = np.zeros(len(odd), bool)
    some = np.flatnonzero(odd)
    if not len(some):
        return fields, doubt
    starts, ends = fields.starts[some], fields.ends[some]
    for edge, step in ((starts, 1), (ends, -1)):
        rows = np.flatnonzero(_SPACES[data[edge if step > 0 else edge - 1]] & (ends > starts))
        while len(rows):
            edge[rows] += step
            rows = rows[(ends[rows] > starts[rows]) & _SPACES[data[edge[rows] if step > 0 else edge[rows] - 1]]]
    doubt[some] = ((data[starts] | data[ends - 1]) >= 128) & (ends > starts)
    trimmed = Fields(fields.text, fields.starts.copy(), fields.ends.copy())
    trimmed.starts[some], trimmed.ends[some] = starts, ends
    return trimmed, doubt


def to_upper(fields: Fields) -> tuple[tuple[Words, Words], Flags]:
    """Which bits of the first and the next eight bytes to flip for upper case; sure for at most twelve bytes of ASCII."""
    length = fields.ends - fields.starts
    flips, other = [], np.zeros(len(length), np.uint64)
    for at in (0, 8):
        if at and length.max(initial=0) <= at:
            flips.append(other[:0])
            break
        word = fields.words(at) & _LOW[np.clip(length - at, 0, 8)]
        other |= word
        flips.append(((word + _FROM_A) & ~(word + _BEYOND_Z) & _TOPS) >> np.uint64(2))
    return (flips[0], flips[1]), (length <= 12) & ((other & _TOPS) == 0)


def strip_point_zero(fields: Fields) -> Fields:
    """Drop a trailing ``.0``."""
    data = np.frombuffer(fields.text, np.uint8)
    length = fields.ends - fields.starts
    printed = (length >= 2) & (data[fields.ends - 1] == ord("0")) & (data[fields.ends - 2] == ord("."))
    return Fields(fields.text, fields.starts, fields.ends - 2 * printed)

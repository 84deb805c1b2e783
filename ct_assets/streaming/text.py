"""Values of many texts at once, read from one byte buffer: digits, decimals, times, words.

What goes here: vectorised readers over (start, length) positions, each with a mask of the texts it is sure of. What does
not: layouts (``scanner.py``), the exact reading of the rest (``values.py``): where a mask is False, that one decides.

A reader may refuse a good text, never accept a bad one. Eight bytes are read as one little-endian word; the parallel
digit sums are Daniel Lemire's ("Quickly parsing eight digits", 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

PAD = 256  # bytes before the first text and after the last, so that whole words can be read anywhere
ZEROS = np.uint64(0x3030303030303030)
HIGH = np.uint64(0x8080808080808080)
_POWERS = 10 ** np.arange(19, dtype=np.int64)
# by how many bytes of a word are wanted: masks of its first and of its last bytes
_FIRST = np.array([(1 << (8 * k)) - 1 for k in range(8)] + [2**64 - 1], np.uint64)
_LAST = np.array([0] + [(2**64 - 1) ^ ((1 << (8 * (8 - k))) - 1) for k in range(1, 9)], np.uint64)


@dataclass
class Bytes:
    """A padded buffer that is read in words at any position."""

    data: npt.NDArray[np.uint8]

    @classmethod
    def padded(cls, data: bytes | bytearray | memoryview) -> Bytes:
        """A copy with room to read whole words before and after; positions shift by PAD."""
        whole = np.zeros(len(data) + 2 * PAD, np.uint8)
        whole[PAD : PAD + len(data)] = np.frombuffer(data, np.uint8)
        return cls(whole)

    @classmethod
    def over(cls, data: bytes | bytearray | memoryview) -> Bytes:
        """The bytes themselves, without a copy: only whole texts can be read."""
        return cls(np.frombuffer(data, np.uint8))

    def words(self, start: I64, count: int) -> U64:
        """``count`` words from each start: shape (len(start), count)."""
        size = 8 * count
        # one fixed-size string a position: a gather of whole items, without alignment
        view = np.ndarray((len(self.data) - size + 1,), dtype=f"S{size}", buffer=self.data, strides=(1,))
        return np.ascontiguousarray(view[start]).view(np.uint64).reshape(len(start), count)

    def byte(self, position: I64) -> npt.NDArray[np.uint8]:
        """One byte of each position."""
        return self.data[position]

    def equal(self, start: I64, text: bytes) -> Mask:
        """Where the bytes at each start are ``text``."""
        count = (len(text) + 7) // 8
        want = np.frombuffer(text.ljust(8 * count, b"\0"), np.uint64)
        words = self.words(start, count)
        same = words[:, 0] & _FIRST[min(len(text), 8)] == want[0]
        for k in range(1, count):
            same &= words[:, k] & _FIRST[min(len(text) - 8 * k, 8)] == want[k]
        return same


def eight(word: U64) -> I64:
    """The number that eight digit values (0 to 9, first digit in the lowest byte) write."""
    word = (word * np.uint64(10) + (word >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    word = (word * np.uint64(100) + (word >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return ((word * np.uint64(10_000) + (word >> np.uint64(32))) & np.uint64(0xFFFFFFFF)).view(np.int64)


def digits(data: Bytes, start: I64, length: I64) -> tuple[I64, Mask]:
    """Texts of 1 to 18 ASCII digits as integers."""
    sure = (length >= 1) & (length <= 18)
    rest = np.where(sure, length, 1)
    out = np.zeros(len(start), np.int64)
    end, scale = start + rest, 1
    for _ in range(max(-(-int(rest.max(initial=1)) // 8), 1)):
        take = np.clip(rest, 0, 8)
        word = (data.words(end - 8, 1)[:, 0] ^ ZEROS) & _LAST[take]
        # a byte above 9 carries into the high bit when 0x76 is added
        sure &= ((word + np.uint64(0x7676767676767676)) | word) & HIGH == 0
        out += eight(word) * scale
        end, rest, scale = end - 8, rest - 8, scale * 10**8
    return out, sure


def integers(data: Bytes, start: I64, length: I64) -> tuple[I64, Mask]:
    """JSON integers of at most 18 digits."""
    negative = data.byte(start) == ord("-")
    begin, size = start + negative, length - negative
    value, sure = digits(data, begin, size)
    sure &= (data.byte(begin) != ord("0")) | (size == 1)
    return np.where(negative, -value, value), sure


def decimals(data: Bytes, start: I64, length: I64, scale: int) -> tuple[I64, Mask]:
    """JSON numbers without exponent as integers of 10**-scale, where that is exact and fits 18 digits."""
    negative = data.byte(start) == ord("-")
    begin, size = start + negative, length - negative
    end = begin + size
    places = np.zeros(len(start), np.int64)
    for k in range(1, min(scale, 16) + 1):
        places[(data.byte(end - 1 - k) == ord(".")) & (size > k + 1) & (places == 0)] = k
    if not places.any():
        value, sure = digits(data, begin, size)
        fraction: I64 = np.zeros(1, np.int64)
        whole_size = size
    else:
        whole_size = np.where(places > 0, size - places - 1, size)
        value, sure = digits(data, begin, whole_size)
        fraction, good = digits(data, end - np.maximum(places, 1), np.maximum(places, 1))
        sure &= good | (places == 0)
        fraction = np.where(places > 0, fraction, 0)
    sure &= (data.byte(begin) != ord("0")) | (whole_size == 1)
    sure &= whole_size + scale <= 18
    unscaled = np.where(sure, value, 0) * _POWERS[scale] + fraction * _POWERS[scale - np.minimum(places, scale)]
    return np.where(negative, -unscaled, unscaled), sure


def timestamps(data: Bytes, start: I64, length: I64) -> tuple[I64, Mask]:
    """ISO 8601 with an offset, ``2026-01-01T00:00:00[.f]Z`` or ``+hh:mm``, as microseconds UTC."""
    out, sure = np.zeros(len(start), np.int64), np.zeros(len(start), np.bool_)
    for size in np.unique(length)[:8].tolist():  # a stream writes its times in few forms
        rows = np.flatnonzero(length == size)
        if len(rows) and 20 <= size <= 35:
            whole = len(rows) == len(start)
            out_, sure_ = _of_one_length(data, start if whole else start[rows], size)
            out[rows], sure[rows] = out_, sure_
    return out, sure


def _of_one_length(data: Bytes, start: I64, size: int) -> tuple[I64, Mask]:
    zulu = data.byte(start + (size - 1)) == ord("Z")
    if zulu.all():
        return _seconds(data, start, size - 1)
    if zulu.any() or size < 25:  # mixed: the exact reader takes them
        value, sure = _seconds(data, start, size - 1)
        return value, sure & zulu
    value, sure = _seconds(data, start, size - 6)
    sign = data.byte(start + (size - 6))
    hours, good = digits(data, start + (size - 5), np.full(len(start), 2))
    minutes, fine = digits(data, start + (size - 2), np.full(len(start), 2))
    sure &= good & fine & (hours < 24) & (minutes < 60) & (data.byte(start + (size - 3)) == ord(":"))
    sure &= (sign == ord("+")) | (sign == ord("-"))
    offset = (hours * 60 + minutes) * 60_000_000
    return np.where(sign == ord("-"), value + offset, value - offset), sure


# which bytes of "2026-01-01T00:00:00" are digits, and what the others must be
_CLOCK_SIGNS = (np.uint64(0x00003A00003A0000), np.uint64(0x0000FF0000FF0000))


def _seconds(data: Bytes, start: I64, size: int) -> tuple[I64, Mask]:
    """``2026-01-01T00:00:00`` and a fraction of up to 9 digits (cut at the sixth) in ``size`` bytes."""
    day, sure = _days(data, start)
    words = data.words(start + 11, 1)[:, 0]
    signs, where = _CLOCK_SIGNS
    sure &= (words & where == signs) & (data.byte(start + 10) == ord("T"))
    clock = (words ^ ZEROS) & ~where
    sure &= ((clock + np.uint64(0x7676767676767676)) | clock) & HIGH == 0
    at = [((clock >> np.uint64(8 * k)) & np.uint64(0xFF)).view(np.int64) for k in (0, 1, 3, 4, 6, 7)]
    hour, minute, second = at[0] * 10 + at[1], at[2] * 10 + at[3], at[4] * 10 + at[5]
    sure &= (hour < 24) & (minute < 60) & (second < 60)
    out = ((day * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000
    places = size - 20
    if size == 19:
        return out, sure
    if not 1 <= places <= 9:
        return out, np.zeros(len(start), np.bool_)
    fraction, good = digits(data, start + 20, np.full(len(start), places))
    sure &= good & (data.byte(start + 19) == ord("."))
    micro = fraction * int(_POWERS[6 - places]) if places <= 6 else fraction // int(_POWERS[places - 6])
    return out + micro, sure


def _days(data: Bytes, start: I64) -> tuple[I64, Mask]:
    """``2026-01-31`` as days since 1970; the calendar is asked once a distinct day."""
    words = data.words(start, 2)
    first, second = words[:, 0], words[:, 1] & np.uint64(0xFFFF)
    if len(start) and (first == first[0]).all() and (second == second[0]).all():
        day, good = civil(words[:1, 0], second[:1])
        return np.full(len(start), day[0]), np.full(len(start), good[0])
    return civil(first, second)


def civil(first: U64, second: U64) -> tuple[I64, Mask]:
    """Days of (``2026-01-``, ``31``), proleptic Gregorian (Howard Hinnant, "days_from_civil")."""
    signs = np.uint64(0x2D00002D00000000)
    where = np.uint64(0xFF0000FF00000000)
    sure = first & where == signs
    date, day_word = (first ^ ZEROS) & ~where, second ^ np.uint64(0x3030)
    for word in (date, day_word):
        sure &= ((word + np.uint64(0x7676767676767676)) | word) & HIGH == 0
    digit = [((date >> np.uint64(8 * k)) & np.uint64(0xFF)).view(np.int64) for k in (0, 1, 2, 3, 5, 6)]
    year = ((digit[0] * 10 + digit[1]) * 10 + digit[2]) * 10 + digit[3]
    month = digit[4] * 10 + digit[5]
    day = ((day_word & np.uint64(0xFF)) * np.uint64(10) + (day_word >> np.uint64(8))).view(np.int64)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    longest = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[np.clip(month, 0, 12)] + (
        leap & (month == 2)
    )
    sure &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= longest) & (year >= 1)
    y = year - (month <= 2)
    era = y // 400
    yoe = y - era * 400
    doy = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    doe = yoe * 365 + yoe // 4 - yoe // 100 + doy
    return era * 146_097 + doe - 719_468, sure


def dates(data: Bytes, start: I64, length: I64) -> tuple[I64, Mask]:
    """``2026-01-31`` as days since 1970."""
    day, sure = _days(data, start)
    return day, sure & (length == 10)

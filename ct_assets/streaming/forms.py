"""JSON messages of one form: equal byte for byte, but for digits and strings of equal widths at equal places.

What goes here: forms (learnt from messages), which of many messages of one length have one, and their digits as numbers.
What does not: types and columns (``form_columns.py``), layouts whose values vary in width (``scanner.py``).

A stream's messages come in few forms (a layout, and the widths of its values), and within a form every value begins at the
same byte: no quote is looked for, no position is kept, and a check is a few operations on words of eight bytes. Words
that an enum allows, null, true and false, signs, points and the punctuation of times belong to the form itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ct_assets.streaming.scanner import Layout, Slot
from ct_assets.streaming.text import HIGH, I64, U64, ZEROS, Mask, eight

_BARE = re.compile(rb"[^\s,}]+")
_ONES, _CONTROL = np.uint64(0x0101010101010101), np.uint64(0x2020202020202020)
_QUOTES, _BACKSLASHES = np.uint64(0x2222222222222222), np.uint64(0x5C5C5C5C5C5C5C5C)
_SEVENTY_SIX = np.uint64(0x7676767676767676)
_PLAIN = ord("a")
DIGIT, TEXT = 1, 2  # what a byte of a form may be, beside literally itself (0)


@dataclass(frozen=True)
class Place:
    """Where one value of a form lies, and its bytes in the message that the form was learnt from."""

    key: str
    is_string: bool
    at: int
    sample: bytes

    @property
    def width(self) -> int:
        """Its length in bytes."""
        return len(self.sample)


def places(payload: bytes) -> list[Place] | None:
    """The values of a flat object; None when it is none (or repeats a key)."""
    layout = Layout.of(payload)
    if layout is None or not payload.isascii():
        return None
    at, found = 0, []
    for slot in layout.slots:
        at += len(slot.before)
        found.append(Place(slot.key, slot.is_string, at, _value(payload, at, slot)))
        at += found[-1].width
    return found


def _value(payload: bytes, at: int, slot: Slot) -> bytes:
    if slot.is_string:
        return payload[at : payload.index(b'"', at)]
    bare = _BARE.match(payload, at)
    return bare.group(0) if bare else b""


class Form:
    """Which bytes are literal, which are digits, which are text; ``kinds`` has one number a byte."""

    def __init__(self, sample: bytes, kinds: npt.NDArray[np.uint8]) -> None:
        """``sample``: one message of the form."""
        self.size = len(sample)
        self.words = -(-self.size // 8)
        whole = np.frombuffer(sample.ljust(8 * self.words, b"\0"), np.uint8)
        padded = np.zeros(8 * self.words, np.uint8)
        padded[: self.size] = kinds
        literal = np.zeros_like(padded)
        literal[: self.size][kinds == 0] = 255
        self._literal = [(k, whole.view(np.uint64)[k], m) for k, m in enumerate(literal.view(np.uint64)) if m]
        self._digits = _masks(padded == DIGIT)
        self._text = _masks(padded == TEXT)

    def holds(self, table: Table) -> Mask:
        """Which rows have this form: every literal byte equal, digits where digits are, plain ASCII where text is."""
        wrong = np.zeros(table.rows, np.uint64)
        for k, want, mask in self._literal:
            wrong |= (table.word(k) ^ want) & mask
        for k, mask in self._digits:
            digits = (table.word(k) ^ ZEROS) & mask
            wrong |= ((digits + _SEVENTY_SIX) | digits) & HIGH
        for k, mask in self._text:
            text = table.word(k) & mask | ~mask & _filled(_PLAIN)
            quote, slash = text ^ _QUOTES, text ^ _BACKSLASHES
            below = (text - _CONTROL) & ~text
            wrong |= (text | below | (quote - _ONES) & ~quote | (slash - _ONES) & ~slash) & HIGH
        return wrong == 0


def _masks(bytes_: Mask) -> list[tuple[int, np.uint64]]:
    words = (bytes_ * np.uint8(255)).view(np.uint64)
    return [(k, mask) for k, mask in enumerate(words) if mask]


def _filled(byte: int) -> np.uint64:
    return np.uint64(byte) * _ONES


class Table:
    """Messages of one length as rows of one array: every value is a column."""

    def __init__(self, data: npt.NDArray[np.uint8], start: I64, size: int) -> None:
        """Copy the messages that begin at ``start``; ``data`` must hold 8 bytes behind each."""
        self.rows, self.size = len(start), size
        self._stride = 8 * -(-size // 8)
        # every stride bytes of the buffer as one item, at any position: a gather of whole messages
        items = np.ndarray((len(data) - self._stride + 1,), f"V{self._stride}", data, strides=(1,))
        self._bytes = items[start].view(np.uint64).reshape(self.rows, -1)

    def word(self, number: int) -> U64:
        """The eight bytes from ``8 * number`` of every row."""
        return self._bytes[:, number]

    @cached_property
    def _view(self) -> Callable[[int, str], npt.NDArray]:
        buffer, stride, rows = self._bytes.view(np.uint8).reshape(-1), self._stride, self.rows
        return lambda at, kind: np.ndarray((rows,), kind, buffer, at, (stride,))

    def byte(self, at: int) -> npt.NDArray[np.uint8]:
        """One byte of every row."""
        return self._view(at, "u1")

    def eight(self, at: int) -> U64:
        """The eight bytes from ``at`` of every row; beyond the end of the message they are zero."""
        begin = min(at, self._stride - 8)
        return self._view(begin, "<u8") >> np.uint64(8 * (at - begin))

    def digits(self, at: int, width: int) -> I64:
        """The number that ``width`` digits from ``at`` write (at most 18); the form says that they are digits."""
        if width > 8:
            return self.digits(at, width - 8) * 100_000_000 + self.digits(at + width - 8, 8)
        # the first digit lies in the lowest byte: shifted up, zeros stand before it and what follows is gone
        return eight((self.eight(at) ^ ZEROS) << np.uint64(8 * (8 - width)))

    def take(self, rows: I64) -> Table:
        """Some rows, as a table of their own."""
        part = object.__new__(Table)
        part.rows, part.size, part._stride, part._bytes = len(rows), self.size, self._stride, self._bytes[rows]
        return part

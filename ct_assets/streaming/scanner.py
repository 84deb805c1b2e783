"""JSON messages that share a layout, read all at once: literal text between values is compared, values are read in place.

What goes here: layouts (learnt from the messages themselves), which messages have one, where their values lie.
What does not: reading values (``text.py``), types and columns (``fields.py``), messages of no known layout
(``decode.py`` reads those one by one).

A layout is the text of a flat object with its values taken out: ``{"id":"`` · ``","n":`` · ``}``. Every byte outside
the values is compared with it, strings have no quote, backslash or control character, and bare values are read by
strict readers, so a message that fits is valid JSON with exactly these keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ct_assets.streaming.messages import Messages
from ct_assets.streaming.text import I64, PAD, Bytes, Mask

MAX_LAYOUTS = 24  # remembered
MAX_TRIED = 16  # new ones a batch: each costs a pass over what is still open
MAX_LITERAL = PAD - 16
_STRING = rb'"([^"\\\x00-\x1f]*)"'
_PAIR = re.compile(
    rb"([ \t\r]*)"
    + _STRING
    + rb'([ \t\r]*:[ \t\r]*)(?:"[^"\\\x00-\x1f]*(")|(-?[0-9][0-9.eE+-]*|null|true|false))([ \t\r]*)([,}])'
)
_OPEN = re.compile(rb"[ \t\r]*\{")
_END = re.compile(rb"[ \t\r]*")


@dataclass(frozen=True)
class Slot:
    """One value of a layout: the literal text before it (a string's opening quote included) and its key."""

    before: bytes
    key: str
    is_string: bool


@dataclass(frozen=True)
class Layout:
    """The text of a flat object around its values."""

    slots: tuple[Slot, ...]
    after: bytes
    quotes: int
    controls: int

    @classmethod
    def of(cls, payload: bytes) -> Layout | None:
        """The layout of one message; None when it is no flat object or repeats a key."""
        head = _OPEN.match(payload)
        if head is None:
            return None
        slots: list[Slot] = []
        before, at = head.group(0), head.end()
        while True:
            pair = _PAIR.match(payload, at)
            if pair is None:
                return None
            lead, key, colon, text, _, space, mark = pair.groups()
            quote = b'"' if text else b""
            try:
                slots.append(Slot(before + lead + b'"' + key + b'"' + colon + quote, key.decode(), bool(text)))
            except UnicodeDecodeError:
                return None
            before, at = quote + space + mark, pair.end()
            if mark == b"}":
                break
        end = _END.match(payload, at)
        if end is None or end.end() != len(payload) or len({s.key for s in slots}) != len(slots):
            return None
        after = before + end.group(0)
        literals = b"".join(s.before for s in slots) + after
        if max(len(after), *(len(s.before) for s in slots)) > MAX_LITERAL:
            return None
        controls = sum(byte < 32 for byte in literals)
        return cls(tuple(slots), after, literals.count(b'"'), controls)


@dataclass
class Found:
    """The messages of one layout: their indices, and where each value lies in the padded buffer."""

    layout: Layout
    rows: I64
    start: list[I64]
    length: list[I64]


class Scanner:
    """Remembers layouts from batch to batch."""

    def __init__(self) -> None:
        """No layout is known before the first message."""
        self._layouts: list[Layout] = []

    def scan(self, messages: Messages, wanted: I64) -> tuple[Bytes, list[Found]]:
        """The messages among ``wanted`` that have a known or new layout; the others are in none of the results."""
        data = Bytes.padded(messages.data)
        page = _Page.of(data, messages, wanted)
        found: list[Found] = []
        open_ = page.plain
        tried: list[Layout] = []
        for layout in list(self._layouts):
            open_ = self._match(page, layout, open_, found)
            tried.append(layout)
        for _ in range(MAX_TRIED if open_.any() else 0):
            first = int(np.argmax(open_))
            if not open_[first]:
                break
            layout = Layout.of(messages.payload(int(wanted[first])) or b"")
            if layout is not None and layout not in tried:
                tried.append(layout)
                open_ = self._match(page, layout, open_, found)
                if len(found) and found[-1].layout == layout and len(found[-1].rows) > 1:
                    self._layouts.append(layout)
            open_[first] = False
        self._layouts.sort(key=lambda known: -sum(len(f.rows) for f in found if f.layout == known))
        del self._layouts[MAX_LAYOUTS:]
        return data, found

    def _match(self, page: _Page, layout: Layout, open_: Mask, found: list[Found]) -> Mask:
        match = page.match(layout, open_)
        if len(match.rows):
            found.append(match)
        return open_


@dataclass
class _Page:
    """The structure of a buffer: where its quotes are, and how many each message has."""

    data: Bytes
    rows: I64
    start: I64
    end: I64
    quotes: I64
    first: I64
    count: I64
    controls: I64 | None
    plain: Mask

    @classmethod
    def of(cls, data: Bytes, messages: Messages, wanted: I64) -> _Page:
        start = messages.start[wanted] + PAD
        end = start + messages.length[wanted]
        text = data.data[PAD : len(data.data) - PAD]
        quotes = np.flatnonzero(text == ord('"')) + PAD
        first = np.searchsorted(quotes, start)
        count = np.searchsorted(quotes, end) - first
        plain = np.ones(len(wanted), np.bool_)
        if b"\\" in messages.data if isinstance(messages.data, bytes | bytearray) else (text == 92).any():
            plain &= _per_row(text == ord("\\"), start - PAD, end - PAD) == 0
        controls = None
        control = text < 32
        if int(np.count_nonzero(control)) != int(
            (messages.length >= 0).sum()
        ):  # more than the newlines that end messages
            controls = _per_row(control, start - PAD, end - PAD)
        plain &= _valid_utf8(messages, text, start - PAD, end - PAD)
        return cls(data, wanted, start, end, quotes, first, count, controls, plain)

    def match(self, layout: Layout, open_: Mask) -> Found:
        """The open messages that have the layout; they are closed in ``open_``."""
        here = open_ & (self.count == layout.quotes)
        if self.controls is not None:
            here &= self.controls == layout.controls
        elif layout.controls:
            here[:] = False
        rows = np.flatnonzero(here)
        quotes = self._quotes(rows, layout.quotes)
        good = np.ones(len(rows), np.bool_)
        starts: list[I64] = []
        ends: list[I64] = []
        at = self.start[rows]  # where the next literal begins
        used = 0  # quotes passed so far: those of literals that were compared, so the next one ends the value
        for slot in layout.slots:
            good &= self.data.equal(at, slot.before)
            value = at + len(slot.before)
            used += slot.before.count(b'"')
            starts.append(value)
            following = layout.slots[len(starts)].before if len(starts) < len(layout.slots) else layout.after
            quote = following.find(b'"')
            at = self.end[rows] - len(following) if quote < 0 else quotes[:, used] - quote
            ends.append(at)
            good &= at >= value
            at = np.maximum(at, value)
        good &= self.data.equal(at, layout.after) & (at + len(layout.after) == self.end[rows])
        open_[rows[good]] = False
        if good.all():
            return Found(layout, self.rows[rows], starts, [e - s for s, e in zip(starts, ends, strict=True)])
        lengths = [(e - s)[good] for s, e in zip(starts, ends, strict=True)]
        return Found(layout, self.rows[rows[good]], [s[good] for s in starts], lengths)

    def _quotes(self, rows: I64, count: int) -> npt.NDArray[np.int64]:
        if len(rows) * count == len(self.quotes):
            return self.quotes.reshape(len(rows), count)
        return self.quotes[self.first[rows][:, None] + np.arange(count)]


def _per_row(flags: Mask, start: I64, end: I64) -> I64:
    where = np.flatnonzero(flags)
    return np.searchsorted(where, end) - np.searchsorted(where, start)


def _valid_utf8(messages: Messages, text: npt.NDArray[np.uint8], start: I64, end: I64) -> Mask:
    """Messages of valid UTF-8; when the whole buffer is not, only plain ASCII ones are."""
    try:
        bytes(messages.data).decode("utf-8")
    except UnicodeDecodeError:
        return _per_row(text >= 128, start, end) == 0
    return np.ones(len(start), np.bool_)

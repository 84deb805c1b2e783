"""One record at a time: the extent of one that breaks quoting, the fields of a header.

What goes here: walks along one record. What does not: sound records in bulk (``records.py`` proves those many at a time).

Where a record ends once its quoting is broken is a convention; this is the one of Python's csv reader in its default
(not strict) mode: after the fault the field goes on unquoted, and later quoted fields of the record still hold their
line ends. So lines that stand inside a quoted field never pass for records.
"""

from __future__ import annotations


def record_end(text: bytes, at: int, size: int, delimiter: int, quote: int) -> int | None:
    """Position of the line feed that ends the record at ``at`` (``size`` at the end); None while a quote is open."""
    mark, cut = bytes([quote]), bytes([delimiter])
    line = -1
    while True:
        if text[at] == quote:
            at = _closing(text, at + 1, size, mark)
            if at < 0:
                return None
        if line < at:
            line = text.find(b"\n", at, size)
            line = size if line < 0 else line
        field = text.find(cut, at, line)
        if field < 0:
            return line
        at = field + 1


def _closing(text: bytes, at: int, size: int, mark: bytes) -> int:
    """Position after the quote that closes a quoted field, -1 when there is none."""
    while True:
        at = text.find(mark, at, size)
        if at < 0:
            return -1
        if text[at + 1 : at + 2] != mark:
            return at + 1
        at += 2


def split_strictly(text: str, delimiter: str, quote: str) -> list[str] | None:
    """The fields of one record (without its line end) by RFC 4180, or None when it breaks quoting."""
    fields: list[str] = []
    at = 0
    while True:
        if text[at : at + 1] == quote:
            end = _closing_in(text, at + 1, quote)
            if end is None or text[end : end + 1] not in ("", delimiter):
                return None
            fields.append(text[at + 1 : end - 1].replace(quote * 2, quote))
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            if quote in text[at:end]:
                return None
            fields.append(text[at:end])
        if end == len(text):
            return fields
        at = end + 1


def _closing_in(text: str, at: int, quote: str) -> int | None:
    while (at := text.find(quote, at)) >= 0:
        if text[at + 1 : at + 2] != quote:
            return at + 1
        at += 2
    return None

"""The structural bytes of a stretch of CSV: what cuts fields and records, and whether the quotes are legitimate.

What goes here: one vectorised pass over bytes. What does not: records (``records.py``).

RFC 4180, strictly: a quoted field is closed by a quote that a delimiter or line end follows; inside, a quote is
doubled; an unquoted field holds no quote. The quotes of a stretch are legitimate exactly when each that opens stands
after a delimiter, a line end or (as half of a doubled quote) a quote, and each that closes stands before one. Then the
parity of quotes tells inside from outside, and the delimiters and line feeds outside are the record structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
LF, CR, TAB = 10, 13, 9
PAD = 32  # zero bytes after the data that wide loads may touch


@dataclass(frozen=True)
class Shape:
    """What the scan needs to know: the number of columns, delimiter and quote as byte values, caps in bytes."""

    columns: int
    delimiter: int = 44
    quote: int = 34
    max_field: int = 131_072
    max_row: int = 1_048_576


@dataclass
class Structure:
    """``cuts``: delimiters and line feeds outside quotes, with their ``kinds``, up to the first illegitimate quote.

    ``suspects``: control bytes that spoil their record. ``doubled``: second halves of doubled quotes. ``inner_lines``: line
    feeds inside quotes. ``open_quote``: the stretch ends inside quotes. ``bad_quote``: it was cut short by such a quote.
    """

    cuts: Positions
    kinds: Bytes
    suspects: Positions
    doubled: Positions
    inner_lines: Positions
    quotes: bool = False
    open_quote: bool = False
    bad_quote: bool = False


@dataclass(frozen=True)
class _Spots:
    """All structural bytes of a stretch."""

    data: Bytes
    at: Positions
    kinds: Bytes
    cuts: Flags  # delimiters and line feeds, wherever they stand


def find_structure(data: Bytes, begin: int, end: int, shape: Shape) -> Structure:
    """Structure of data[begin:end), which begins outside quotes with a record's first byte; data is padded by ``PAD``."""
    window = data[begin:end]
    at = np.flatnonzero((window == shape.delimiter) | (window < 32) | (window == shape.quote))
    kinds = window[at]
    at += begin
    spots = _Spots(data, at, kinds, (kinds == shape.delimiter) | (kinds == LF))
    none = at[:0]
    if spots.cuts.all():
        return Structure(at, kinds, none, none, none)
    is_quote = kinds == shape.quote
    if is_quote.any():
        return _quoted(spots, is_quote, (begin, end), shape)
    return Structure(at[spots.cuts], kinds[spots.cuts], _suspects(spots, None, shape), none, none)


def _quoted(spots: _Spots, is_quote: Flags, stretch: tuple[int, int], shape: Shape) -> Structure:
    data, at, end = spots.data, spots.at, stretch[1]
    inside = (np.cumsum(is_quote, dtype=np.int32) & 1).astype(bool)  # the state after each spot
    enters, leaves = at[is_quote & inside], at[is_quote & ~inside]
    before = data[enters - 1]
    before[enters == stretch[0]] = LF
    after, next_but_one = data[leaves + 1], data[leaves + 2]
    enter_bad = ~((before == shape.delimiter) | (before == LF) | (before == shape.quote))
    leave_bad = ~(
        (after == shape.delimiter) | (after == LF) | (after == shape.quote) | ((after == CR) & (next_but_one == LF))
    )
    leave_bad &= leaves + 1 < len(data) - PAD  # at the very end nothing follows (yet)
    first_bad = min(_first(enters, enter_bad, end), _first(leaves, leave_bad, end))
    keep = spots.cuts & ~inside
    suspects = _suspects(spots, inside, shape)
    if first_bad < end:
        keep &= at < first_bad
        suspects = suspects[suspects < first_bad]
    return Structure(
        cuts=at[keep],
        kinds=spots.kinds[keep],
        suspects=suspects,
        doubled=enters[(before == shape.quote) & (enters < first_bad)],
        inner_lines=at[(spots.kinds == LF) & inside],
        quotes=True,
        open_quote=bool(inside[-1]) and first_bad >= end,
        bad_quote=first_bad < end,
    )


def _first(spots: Positions, bad: Flags, default: int) -> int:
    return int(spots[np.argmax(bad)]) if bad.any() else default


def _suspects(spots: _Spots, inside: Flags | None, shape: Shape) -> Positions:
    """Control bytes but tab, line feed, CR before LF; inside quotes CR and LF may stand as they are."""
    kinds = spots.kinds
    control = (kinds < 32) & ~spots.cuts & (kinds != TAB)
    if inside is not None:
        control &= ~((kinds == CR) & inside)
    if control.any():
        carriage = np.flatnonzero(control & (kinds == CR))
        control[carriage[spots.data[spots.at[carriage] + 1] == LF]] = False
    return spots.at[control]

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


PIECE = 1 << 17  # bytes looked at a time, so that the marks stay in the cache: 1 MiB took 1.7 times as long
DENSE = 4  # quoted content beyond a quarter of the stretch is told from the rest spot by spot


@dataclass
class Structure:
    """``cuts``: delimiters and line feeds outside quotes, up to the first illegitimate quote; ``feeds``: the line feeds of them.

    ``suspects``: control bytes that spoil their record. ``doubled``: second halves of doubled quotes. ``openers``: quotes
    that open a field. ``inner_lines``: line feeds inside quotes. ``open_quote``: the stretch ends inside quotes.
    ``bad_quote``: it was cut short by such a quote.
    """

    cuts: Positions
    feeds: Positions
    suspects: Positions
    doubled: Positions
    openers: Positions
    inner_lines: Positions
    open_quote: bool = False
    bad_quote: bool = False


@dataclass(frozen=True)
class _Quotes:
    """The quotes of a stretch: those that enter, those that leave (one fewer where the stretch ends inside)."""

    enters: Positions
    leaves: Positions
    doubled: Positions
    openers: Positions
    first_bad: int  # the stretch's end where all are legitimate


def find_structure(data: Bytes, begin: int, end: int, shape: Shape) -> Structure:
    """Structure of data[begin:end), which begins outside quotes with a record's first byte; data is padded by ``PAD``."""
    spots = _spots_of(data, begin, end, shape.quote)
    none = np.empty(0, np.int64)
    if not len(spots):
        cuts, feeds, controls = _marked(data, (begin, end), shape, none)
        return Structure(cuts, feeds, _alone(data, controls), none, none, none)
    quotes = _judged(data, spots, (begin, end), shape)
    if _inside(quotes, end) * DENSE < end - begin:
        inner = _range_of(quotes, end)
        cuts, feeds, controls = _marked(data, (begin, end), shape, inner)
        inner_lines = inner[data[inner] == LF]
    else:
        cuts, feeds, inner_lines, controls = _by_spot(data, quotes, (begin, end), shape)
    in_quotes = (np.searchsorted(spots, controls) & 1).astype(bool)
    suspects = _alone(data, controls[~(in_quotes & (data[controls] == CR))])
    bad = quotes.first_bad < end
    doubled, openers = quotes.doubled, quotes.openers
    if bad:
        cuts, feeds, suspects, doubled, openers = (
            found[: np.searchsorted(found, quotes.first_bad)] for found in (cuts, feeds, suspects, doubled, openers)
        )
    open_quote = len(quotes.enters) > len(quotes.leaves) and not bad
    return Structure(cuts, feeds, suspects, doubled, openers, inner_lines, open_quote, bad)


def _spots_of(data: Bytes, begin: int, end: int, byte: int) -> Positions:
    found = [np.flatnonzero(data[at : min(at + PIECE, end)] == byte) + at for at in range(begin, end, PIECE)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _marked(
    data: Bytes, stretch: tuple[int, int], shape: Shape, inner: Positions
) -> tuple[Positions, Positions, Positions]:
    """Delimiters and line feeds, line feeds alone, both without ``inner``; and control bytes but tab, wherever they stand."""
    cuts, feeds, controls = [], [], [np.empty(0, np.int64)]
    for at in range(stretch[0], stretch[1], PIECE):
        window = data[at : min(at + PIECE, stretch[1])]
        feed, cut, low = window == LF, window == shape.delimiter, window < 32
        below = np.count_nonzero(cut) if shape.delimiter < 32 else 0
        if np.count_nonzero(low) > np.count_nonzero(feed) + below:
            controls.append(np.flatnonzero(low & ~feed & ~cut & (window != TAB)) + at)
        cut |= feed
        if len(inner):
            here = inner[np.searchsorted(inner, at) : np.searchsorted(inner, at + len(window))] - at
            cut[here] = feed[here] = False
        for found, mark in ((cuts, cut), (feeds, feed)):
            spots = np.flatnonzero(mark)
            spots += at
            found.append(spots)
    return np.concatenate(cuts), np.concatenate(feeds), np.concatenate(controls)


def _judged(data: Bytes, spots: Positions, stretch: tuple[int, int], shape: Shape) -> _Quotes:
    enters, leaves = spots[0::2], spots[1::2]
    before = data[enters - 1]
    before[enters == stretch[0]] = LF
    after, next_but_one = data[leaves + 1], data[leaves + 2]
    enter_bad = ~((before == shape.delimiter) | (before == LF) | (before == shape.quote))
    leave_bad = ~(
        (after == shape.delimiter) | (after == LF) | (after == shape.quote) | ((after == CR) & (next_but_one == LF))
    )
    leave_bad &= leaves + 1 < len(data) - PAD  # at the very end nothing follows (yet)
    again = before == shape.quote
    first_bad = min(_first(enters, enter_bad, stretch[1]), _first(leaves, leave_bad, stretch[1]))
    return _Quotes(enters, leaves, enters[again], enters[~again], first_bad)


def _first(spots: Positions, bad: Flags, default: int) -> int:
    return int(spots[np.argmax(bad)]) if bad.any() else default


def _inside(quotes: _Quotes, end: int) -> int:
    """How many bytes stand inside quotes."""
    open_bytes = end - int(quotes.enters[-1]) if len(quotes.enters) > len(quotes.leaves) else 0
    return int((quotes.leaves - quotes.enters[: len(quotes.leaves)]).sum()) + open_bytes


def _range_of(quotes: _Quotes, end: int) -> Positions:
    """All places from a quote that enters to the one that leaves."""
    leaves = quotes.leaves if len(quotes.leaves) == len(quotes.enters) else np.append(quotes.leaves, end)
    lengths = leaves - quotes.enters
    return np.arange(int(lengths.sum())) + np.repeat(quotes.enters - np.cumsum(lengths) + lengths, lengths)


def _by_spot(
    data: Bytes, quotes: _Quotes, stretch: tuple[int, int], shape: Shape
) -> tuple[Positions, Positions, Positions, Positions]:
    """Where much is quoted: the parity of the quotes before a spot says on which side it stands.

    Cuts and line feeds outside, line feeds inside, control bytes.
    """
    none = np.empty(0, np.int64)
    at, _, controls = _marked(data, stretch, shape, none)
    turns = np.zeros(stretch[1] - stretch[0], np.uint8)
    turns[quotes.enters - stretch[0]] = turns[quotes.leaves - stretch[0]] = 1
    inside = (np.cumsum(turns, dtype=np.uint8)[at - stretch[0]] & 1).astype(bool)  # parity survives the wrap at 256
    feed = data[at] == LF
    return at[~inside], at[~inside & feed], at[inside & feed], controls


def _alone(data: Bytes, controls: Positions) -> Positions:
    """Without the CRs before a line feed."""
    return controls[~((data[controls] == CR) & (data[controls + 1] == LF))]

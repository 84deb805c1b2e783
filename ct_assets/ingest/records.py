"""The records of a block of CSV bytes: where each begins and ends, where its fields do, and which are no rows.

What goes here: windows over the block, cutting structure into rows, putting records aside. What does not: finding the
structure (``structure.py``), one record by hand (``broken.py``), text (``text.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ct_assets.ingest.broken import record_end
from ct_assets.ingest.structure import CR, LF, PAD, Bytes, Flags, Positions, Shape, Structure, find_structure

FIRST_WINDOW = 1 << 16  # after a record read by hand the next stretch is short, so that many faults stay affordable


@dataclass(frozen=True)
class Broken:
    """Records that cannot be rows: their bytes [begin, finish) without the line feed, and why."""

    begin: Positions
    finish: Positions
    reason: str


@dataclass
class Records:
    """The records of one block. ``starts``/``ends`` are (columns, rows): the content of each field, quotes stripped.

    ``lines`` counts the line feeds consumed. ``escaped`` lists (row, column) of fields with doubled quotes. ``consumed`` is where the next block must begin;
    ``unterminated`` is the start of a record whose quote is still open at the end of the file.
    """

    starts: Positions
    ends: Positions
    begin: Positions
    finish: Positions
    line: Positions  # line feeds before the record, counted from the block's begin
    escaped: list[tuple[int, int]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    consumed: int = 0
    lines: int = 0
    unterminated: int | None = None


def scan(text: bytes, shape: Shape, final: bool, begin: int = 0) -> Records:
    """Find the records of a padded block (``PAD`` zero bytes after the data) from ``begin`` on.

    ``final``: the file ends here. Otherwise the last, incomplete record is left for the next block (``consumed``).
    """
    data = np.frombuffer(text, np.uint8)
    size = len(text) - PAD
    parts: list[Records] = []
    window, at = size, begin
    while at < size:
        end = min(size, at + window)
        part, bad_quote = _stretch(data, at, end, shape, final and end == size)
        parts.append(part)
        if part.unterminated is not None or (end == size and not bad_quote):
            break
        window = min(size, window * 2)
        if bad_quote:
            part = _by_hand(text, part.consumed, size, shape, final)
            parts.append(part)
            if not part.broken:
                break
            window = FIRST_WINDOW
        at = part.consumed
    return _joined(parts, shape, begin)


def _stretch(data: Bytes, at: int, end: int, shape: Shape, final: bool) -> tuple[Records, bool]:
    piece = find_structure(data, at, end, shape)
    if final and not piece.open_quote and not piece.bad_quote and end > at and data[end - 1] != LF:
        piece.cuts, piece.feeds = np.append(piece.cuts, end), np.append(piece.feeds, end)
    part = _rows(data, at, piece, shape)
    if len(piece.inner_lines):
        part.line = part.line + np.searchsorted(piece.inner_lines, part.begin)
        part.lines += int(np.searchsorted(piece.inner_lines, part.consumed))
    if len(piece.suspects):
        _spoil(part, piece.suspects, "control_byte")
    if len(piece.doubled):
        _mark_doubled(part, piece.doubled)
    if piece.open_quote and final:
        part.unterminated = part.consumed
    return part, piece.bad_quote


def _rows(data: Bytes, at: int, piece: Structure, shape: Shape) -> Records:
    """Cut a proved stretch into records and fields."""
    cuts, finish = piece.cuts, piece.feeds
    rows, columns = len(finish), shape.columns
    if not rows:
        return _empty(shape, at)
    begin = np.empty_like(finish)
    begin[0], begin[1:] = at, finish[:-1] + 1
    part = _empty(shape, min(int(finish[-1]) + 1, len(data) - PAD))
    part.lines = rows
    whole = cuts[: rows * columns].reshape(-1, columns) if len(cuts) >= rows * columns else None
    if columns > 1 and whole is not None and np.array_equal(whole[:, -1], finish):
        part.begin, part.finish, part.line = begin, finish, np.arange(rows)
        part.ends = np.ascontiguousarray(whole.T)
        opened = np.searchsorted(cuts, piece.openers)
        part.starts = _contents(data, part, (opened // columns, opened % columns), shape)
    else:
        line_ends = np.searchsorted(cuts, finish)
        _irregular(data, part, (begin, finish, line_ends), cuts, shape)
        row = np.searchsorted(part.finish, piece.openers)
        held = np.flatnonzero(row < len(part.finish))
        held = held[piece.openers[held] >= part.begin[row[held]]]
        row, openers = row[held], piece.openers[held]
        part.starts = _contents(data, part, (row, (part.ends[:, row] < openers).sum(axis=0)), shape)
    _cap(part, shape)
    return part


def _irregular(
    data: Bytes, part: Records, lines: tuple[Positions, Positions, Positions], cuts: Positions, shape: Shape
) -> None:
    """Keep the records that have the right number of fields; drop blank lines; put the others with the broken ones."""
    begin, finish, line_ends = lines
    counts = np.diff(line_ends, prepend=-1)
    blank = (counts == 1) & ((finish == begin) | ((finish == begin + 1) & (data[begin] == CR)))
    regular = counts == shape.columns
    unlike = ~regular & ~blank
    if unlike.any():
        part.broken.append(Broken(begin[unlike], finish[unlike], "field_count"))
    kept = np.flatnonzero(regular & ~blank)
    part.begin, part.finish, part.line = begin[kept], finish[kept], kept
    part.ends = cuts[np.arange(1 - shape.columns, 1)[:, None] + line_ends[kept]]


def _contents(data: Bytes, part: Records, opened: tuple[Positions, Positions], shape: Shape) -> Positions:
    """Where each field's content begins, and ``part.ends`` moved to where it ends: without the line's CR, without quotes.

    ``opened``: row and column of each field that a quote opens (beyond the last record: ignored).
    """
    ends = part.ends
    starts = np.empty_like(ends)
    starts[0] = part.begin
    np.add(ends[:-1], 1, out=starts[1:])
    last = ends[-1]
    last -= (data[last - 1] == CR) & (last > starts[-1])
    row, column = opened
    inside = row < len(part.begin)
    row, column = row[inside], column[inside]
    starts[column, row] += 1
    ends[column, row] -= 1
    return starts


def _cap(part: Records, shape: Shape) -> None:
    if not len(part.begin) or int((part.finish - part.begin).max()) <= shape.max_field:
        return
    set_aside(part, (part.ends - part.starts).max(axis=0) > shape.max_field, "field_too_long")
    set_aside(part, (part.finish - part.begin) > shape.max_row, "row_too_long")


def set_aside(part: Records, rows: Flags, reason: str) -> None:
    """Take rows out of the records and put them with the broken ones."""
    if not rows.any():
        return
    part.broken.append(Broken(part.begin[rows], part.finish[rows], reason))
    keep = ~rows
    moved = np.cumsum(keep) - 1
    part.escaped = [(int(moved[r]), c) for r, c in part.escaped if keep[r]]
    part.starts, part.ends, part.line = part.starts[:, keep], part.ends[:, keep], part.line[keep]
    part.begin, part.finish = part.begin[keep], part.finish[keep]


def _holding(part: Records, spots: Positions) -> Positions:
    """For each spot the row whose record holds it, -1 when none does."""
    row = np.searchsorted(part.finish, spots)
    known = np.minimum(row, len(part.finish) - 1)
    return np.where((row < len(part.finish)) & (spots >= part.begin[known]), known, -1)


def _spoil(part: Records, spots: Positions, reason: str) -> None:
    if not len(part.begin):
        return
    rows = _holding(part, spots)
    held = np.zeros(len(part.begin), bool)
    held[rows[rows >= 0]] = True
    set_aside(part, held, reason)


def _mark_doubled(part: Records, doubled: Positions) -> None:
    if not len(part.begin):
        return
    rows = _holding(part, doubled)
    doubled, rows = doubled[rows >= 0], rows[rows >= 0]
    columns = (part.starts[:, rows] <= doubled).sum(axis=0) - 1
    part.escaped = sorted(set(zip(rows.tolist(), columns.tolist(), strict=True)))


def _by_hand(text: bytes, at: int, size: int, shape: Shape, final: bool) -> Records:
    """Read the record at ``at``, which breaks quoting, as far as a lenient reader would take it."""
    end = record_end(text, at, size, shape.delimiter, shape.quote)
    if end is None or (end == size and not final):
        part = _empty(shape, at)
        part.unterminated = at if final else None
        return part
    part = _empty(shape, min(end + 1, size))
    part.lines = text.count(b"\n", at, part.consumed)
    part.broken.append(Broken(np.array([at]), np.array([end]), "broken_quoting"))
    return part


def _empty(shape: Shape, at: int) -> Records:
    none = np.empty(0, np.int64)
    fields = np.empty((shape.columns, 0), np.int64)
    return Records(fields, fields, none, none, none, consumed=at)


def _joined(parts: list[Records], shape: Shape, begin: int) -> Records:
    if not parts:
        return _empty(shape, begin)
    if len(parts) == 1:
        return parts[0]
    whole = _empty(shape, parts[-1].consumed)
    whole.unterminated = parts[-1].unterminated
    rows = 0
    for part in parts:
        whole.escaped += [(r + rows, c) for r, c in part.escaped]
        whole.broken += part.broken
        part.line = part.line + whole.lines
        rows += len(part.begin)
        whole.lines += part.lines
    for name in ("starts", "ends", "begin", "finish", "line"):
        setattr(whole, name, np.concatenate([getattr(p, name) for p in parts], axis=-1))
    return whole

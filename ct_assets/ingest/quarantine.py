"""Quarantined rows of a block: their physical line, their text as delivered, and every rule they break.

What goes here: rows that are no rows (structure) and rows that break rules, in file order. What does not: which those are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.ingest.frontdoor import TextRows
from ct_assets.ingest.structure import CR, PAD, Positions
from ct_assets.ingest.text import view_array

SCHEMA = {"_line": pl.Int64, "_raw": pl.String, "_reasons": pl.List(pl.String)}
BY_PHYSICAL_LINE = ("broken_quoting", "field_count")
MAX_RAW_BYTES = 65_536  # a longer record is kept as a preview
PREVIEW_BYTES = 1_000


class QuarantineRows:
    """Collects what a block puts aside. A record broken in structure counts once for each physical line it spans."""

    def __init__(self, text: TextRows) -> None:
        """Starts with the block's broken records."""
        self._text = text
        self.structural: dict[str, int] = {}
        self._spans: list[tuple[Positions, Positions, Positions]] = []
        self._reasons: list[pl.Series] = []
        for broken in text.records.broken:
            self._add_broken(broken.begin, broken.finish, broken.reason)

    def add_rows(self, rows: npt.NDArray[np.int64], reasons: pl.Series) -> None:
        """Rows (by index in the block) that break rules, with the names of those rules (a list a row)."""
        if len(rows):
            records = self._text.records
            self._add(self._text.line[rows], records.begin[rows], records.finish[rows], reasons)

    def frame(self) -> pl.DataFrame:
        """``_line``, ``_raw``, ``_reasons`` in file order."""
        if not self._spans:
            return pl.DataFrame(schema=SCHEMA)
        line, begin, finish = (np.concatenate([span[i] for span in self._spans]) for i in range(3))
        reasons = pl.concat(self._reasons) if len(self._reasons) > 1 else self._reasons[0]
        if (line[1:] < line[:-1]).any():
            order = np.argsort(line, kind="stable")
            line, begin, finish, reasons = line[order], begin[order], finish[order], reasons.gather(order)
        text = self._text.block.text
        owned = view_array(text, begin, finish).cast("large_string")  # callers keep these: a view would keep the block
        raw = pl.Series("_raw", pl.from_arrow(owned))
        if raw.null_count():
            raw = raw.fill_null("")
        if text.find(0, 0, len(text) - PAD) >= 0:
            raw = raw.str.replace_all("\x00", "\u2400", literal=True)
        return pl.DataFrame([pl.Series("_line", line), raw, reasons.alias("_reasons")])

    def _add(self, line: Positions, begin: Positions, finish: Positions, reasons: pl.Series) -> None:
        data = np.frombuffer(self._text.block.text, np.uint8)
        finish = finish - ((data[finish - 1] == CR) & (finish > begin))
        long = finish - begin > MAX_RAW_BYTES
        if long.any():
            finish = np.where(long, _preview_end(data, begin, finish), finish)
        self._spans.append((line, begin, finish))
        self._reasons.append(reasons)

    def _add_broken(self, begin: Positions, finish: Positions, reason: str) -> None:
        text, block = self._text, self._text.block.text
        data = np.frombuffer(block, np.uint8)
        end = int(finish.max()) + 1
        feeds = np.flatnonzero(data[text.begin : end] == 10) + text.begin
        before = np.searchsorted(feeds, begin)
        if reason in BY_PHYSICAL_LINE:
            begin, finish, before = _by_line(feeds, begin, finish, before)
        self.structural[reason] = self.structural.get(reason, 0) + len(begin)
        self._add(before + text.first_line, begin, finish, _repeat([reason], len(begin)))


def _by_line(
    feeds: Positions, begin: Positions, finish: Positions, before: Positions
) -> tuple[Positions, Positions, Positions]:
    """Split records at the line feeds they hold."""
    inner = np.searchsorted(feeds, finish) - before
    if not inner.any():
        return begin, finish, before
    record = np.repeat(np.arange(len(begin)), inner + 1)
    nth = np.arange(len(record)) - np.repeat(np.cumsum(inner + 1) - inner - 1, inner + 1)
    line = before[record] + nth
    feed = np.append(feeds, 0)
    starts = np.where(nth == 0, begin[record], feed[np.maximum(line - 1, 0)] + 1)
    ends = np.where(nth == inner[record], finish[record], feed[np.minimum(line, len(feeds))])
    return starts, ends, line


def _preview_end(data: npt.NDArray[np.uint8], begin: Positions, finish: Positions) -> Positions:
    """Cut after ``PREVIEW_BYTES``, before a character rather than inside one."""
    cut = np.minimum(begin + PREVIEW_BYTES, finish)
    for _ in range(3):
        cut = cut - ((data[cut] & 0xC0) == 0x80)
    return cut


def _repeat(reasons: list[str], count: int) -> pl.Series:
    return pl.Series([reasons], dtype=pl.List(pl.String)).new_from_index(0, count)

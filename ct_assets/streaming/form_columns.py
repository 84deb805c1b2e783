"""Columns of a contract out of messages of known forms: one pass over a batch, no Python per message.

What goes here: which messages are looked at together, and the columns that they fill. What does not: forms themselves
(``forms.py``), what their values mean (``form_values.py``), messages of no common form (``scanner.py``, ``decode.py``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.streaming.definition import Acceptance
from ct_assets.streaming.fields import strings, typed
from ct_assets.streaming.form_values import FormValues, Known, in_place
from ct_assets.streaming.forms import Table
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.rules import dtype
from ct_assets.streaming.text import I64, Bytes, Mask

ROWS = 8_192  # of one table: it stays in the cache
LEAST = 6  # messages of one length, and of one form, below which looking at them together gains nothing
MOST_FORMS = 256
MOST_TRIES = 24  # new forms a batch
MAX_SIZE = 4_096


class Target:
    """The column of a batch that is being filled."""

    def __init__(self, column: Column, kind: pl.DataType, expected: list[str], rows: int) -> None:
        """``expected``: the words of an enum."""
        self.column, self.kind, self.expected = column, kind, expected
        self.absent = np.zeros(rows, np.bool_)
        self.values: npt.NDArray[Any] = np.zeros(rows, _STORED.get(column.type, np.int64))
        self.length = np.zeros(rows if column.type == "string" and not expected else 0, np.int64)

    def series(self, data: Bytes, rows: I64) -> pl.Series:
        """The values of ``rows`` as the contract types them."""
        whole = len(rows) == len(self.values)
        values, absent = (self.values, self.absent) if whole else (self.values[rows], self.absent[rows])
        null = absent if absent.any() else None
        if self.column.type != "string":
            return typed(values, self.kind, null).rename(self.column.name)
        if self.expected:
            found = pl.Series(self.expected, dtype=pl.String).gather(values)
        else:
            found = strings(data, values, self.length if whole else self.length[rows])
        if null is not None:
            found = pl.select(pl.when(pl.Series(~null)).then(found)).to_series()
        return found.rename(self.column.name)


_STORED = {"number": np.float64, "boolean": np.bool_}


class FormColumns:
    """Reads the messages of common forms by one schema; remembers forms from batch to batch."""

    def __init__(self, schema: DatasetSchema, acceptance: Acceptance, least: int = LEAST) -> None:
        """``least``: messages of one length, and of one form, that are worth looking at together."""
        self._values, self._least = FormValues(schema, acceptance), least
        self._types = {c.name: dtype(c, acceptance) for c in schema.delivered}
        self._forms: dict[int, list[Known]] = {}

    def frame(self, messages: Messages, open_: Mask) -> pl.DataFrame | None:
        """The open messages that have a form, in their order (typed columns and ``_i``); they are closed in ``open_``."""
        data = Bytes.over(messages.data)
        targets = {
            name: Target(c, self._types[name], self._values.words(name), len(messages))
            for name, c in self._values.columns.items()
        }
        tries = MOST_TRIES
        filled: list[I64] = []
        for size, rows in _by_length(messages, open_, (len(data.data), self._least)):
            for begin in range(0, len(rows), ROWS):
                done, tries = self._fill(messages, data, rows[begin : begin + ROWS], size, targets, tries)
                filled += done
        if not filled:
            return None
        chosen = np.sort(np.concatenate(filled))
        open_[chosen] = False
        series = [target.series(data, chosen) for target in targets.values()]
        return pl.DataFrame([*series, pl.Series("_i", chosen)])

    def _fill(  # noqa: PLR0913 - one table of one batch
        self, messages: Messages, data: Bytes, rows: I64, size: int, targets: dict[str, Target], tries: int
    ) -> tuple[list[I64], int]:
        """Read the rows of one length; those that were read, and how many new forms may still be tried."""
        table = Table(data.data, messages.start[rows], size)
        known = self._forms.setdefault(size, [])
        done: list[I64] = []
        at = 0
        while len(rows):
            if at == len(known):
                learnt = (
                    self._values.learn(messages.payload(int(rows[0])) or b"")
                    if tries and len(rows) >= self._least
                    else None
                )
                tries -= 1
                if learnt is None or sum(map(len, self._forms.values())) >= MOST_FORMS:
                    break
                known.append(learnt)
            holds = known[at].form.holds(table)
            hits = np.flatnonzero(holds)
            known[at].hits += len(hits)
            if len(hits):
                whole = len(hits) == len(rows)
                done.append(self._write(known[at], table if whole else table.take(hits), rows[hits], messages, targets))
                rest = np.flatnonzero(~holds)
                rows, table = rows[rest], table.take(rest)
            at += 1
        known.sort(key=lambda one: -one.hits)
        return done, tries

    def _write(self, known: Known, table: Table, rows: I64, messages: Messages, targets: dict[str, Target]) -> I64:
        """Fill the columns of ``rows``; those of them that every reader is certain of."""
        sure: Mask | None = None
        for name, target in targets.items():
            place, part = known.parts.get(name, (None, None))
            if place is None or part is None or (part.read is None and part.constant is None):
                target.absent[rows] = True
            elif part.read is None:
                target.values[rows] = part.constant
            elif part.read is in_place:
                target.values[rows] = messages.start[rows] + place.at
                target.length[rows] = place.width
            else:
                target.values[rows], good = part.read(table)
                sure = good if sure is None else sure if good is None else sure & good
        return rows if sure is None or sure.all() else rows[sure]


def _by_length(messages: Messages, open_: Mask, limits: tuple[int, int]) -> list[tuple[int, I64]]:
    """Open messages by their length; those at the very end of the buffer and rare lengths are left out."""
    length, (end, least) = messages.length, limits
    able = open_ & (length >= 16) & (length <= MAX_SIZE) & (messages.start + length + 8 <= end)
    counts = np.bincount(length[able], minlength=1)
    order = np.argsort(np.where(able, length, 0).astype(np.uint16), kind="stable")  # two bytes: a radix sort
    order = order[len(order) - int(counts.sum()) :]
    found, at = [], 0
    for size in np.flatnonzero(counts).tolist():
        rows = order[at : at + counts[size]]
        at += counts[size]
        if len(rows) >= least:
            found.append((size, rows))
    return found

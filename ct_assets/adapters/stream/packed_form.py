"""How Redis holds the events of one definition: the bytes of a row and of an event, and which sums a row carries.

What goes here: formats, and integers as limbs. What does not: folding events into them (``packed_rows``), Lua
(``redis_scripts``, ``redis_read_script``). Pure.

A row holds events of one (entity, partition, tile): up to 255 while it is open; then it is closed, and has sums (those of
the PostgreSQL table, ``layout``) and its events under a key of their own. Lua knows only doubles, so an integer beyond 2**53 would lose digits: it is kept as *limbs* of 24 bits (three for 64 bits, six for 128; the
last one has the sign), which are added limb by limb, exactly for 2**29 events, and put together in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ct_assets.adapters.stream.layout import Kept, Layout, Summary
from ct_assets.errors import UsageError
from ct_assets.streaming.definition import Aggregate

LIMB = 24  # bits of a limb
_NARROW, _WIDE = "I3I3i2", "I3I3I3I3I3i1"  # Lua's formats of 64 and 128 bits, little-endian
MAX_COLUMNS = 32  # bits that say which columns are null
FORM = 2  # of the bytes below; part of every key, so that another form is never misread
# What ends a row: its size, last and first event time, partition, tile, version (offset, replays; -1: says nothing), id, events.
# Before it lie the events of an open row (id 0), or the sums of a closed one, whose events have a key of their own.
ROW_FORMAT = "<I4ddi4dddI4I4"
ROW_FOOT = np.dtype(
    [
        ("size", "<u4"),
        ("last", "<f8"),
        ("first", "<f8"),
        ("part", "<i4"),
        ("tile", "<f8"),
        ("offset", "<f8"),
        ("replays", "<f8"),
        ("id", "<u4"),
        ("n", "<u4"),
    ]
)
FULL = (1 << 32) - 1  # the id of a row on its way to be closed: it has sums and events
# Behind the last row of an entity lie four bytes: the bytes of all its rows, which tell where the next one goes.
# What is sent: size, bytes of the entity, partition, 1 when a row of it is full; of its first row tile, bytes, last and first
# time, events; then the entity (filled up to a multiple of four) and its rows.
ITEM_FORMAT = "<I4I4i4I4dI4ddI4"
ITEM_HEAD = np.dtype(
    [
        ("size", "<u4"),
        ("key", "<u4"),
        ("part", "<i4"),
        ("full", "<u4"),
        ("tile", "<f8"),
        ("row", "<u4"),
        ("last", "<f8"),
        ("first", "<f8"),
        ("n", "<u4"),
    ]
)


@dataclass(frozen=True)
class Packing:
    """The packed form of a layout. ``summarised``: rows carry sums; else Python folds the events of the window."""

    layout: Layout

    @property
    def summarised(self) -> bool:
        """Whether Lua can finish from sums; the events then need neither offset nor text."""
        return self.layout.summarised

    @cached_property
    def valued(self) -> tuple[Kept, ...]:
        """The columns whose values are kept; of the others only whether they are null."""
        read = {a.column for a in self.layout.definition.aggregates if a.column and a.function != "count"}
        if len(self.layout.kept) > MAX_COLUMNS:
            name = self.layout.definition.name
            raise UsageError(
                f"{name} reads {len(self.layout.kept)} columns, at most {MAX_COLUMNS} fit a row in Redis",
                hint="split the definition in two",
            )
        return tuple(k for k in self.layout.kept if k.name in read)

    @cached_property
    def event(self) -> np.dtype:
        """The fixed part of an event; ``t`` its time, ``m`` its filters, ``z`` its nulls. Text follows it."""
        head: list[tuple[str, str]] = [("t", "<f8"), ("m", "<u4"), ("z", "<u4")]
        if not self.summarised:
            head = [("size", "<u4"), *head, ("o", "<i8")]
        for column in self.valued:
            kinds = {"number": "<f8", "date": "<f8", "boolean": "<f8", "text": "<u4", "wide": "V16"}
            head.append((f"c{column.position}", kinds.get(column.kind, "<i8")))
        return np.dtype(head)

    @cached_property
    def event_format(self) -> str:
        """Lua's format of an event of a summarised layout."""
        kinds = {"number": "d", "date": "d", "boolean": "d", "wide": _WIDE}
        return "<dI4I4" + "".join(kinds.get(c.kind, _NARROW) for c in self.valued)

    @cached_property
    def slots(self) -> dict[Summary, tuple[int, int]]:
        """Where the doubles of each summary lie among those of a row: (first, how many)."""
        found, at = {}, 0
        for summary in self.layout.summaries:
            width = summary_width(summary)
            found[summary] = (at, width)
            at += width
        return found

    @property
    def sums(self) -> int:
        """Doubles of a row's summaries."""
        return sum(width for _, width in self.slots.values())


def limbs_of(column: Kept) -> int:
    """Numbers that one value of a column is in Lua."""
    return {"number": 1, "date": 1, "boolean": 1, "wide": 6}.get(column.kind, 3)


def summary_width(summary: Summary) -> int:
    """Doubles of a summary: a count is one, sums are limbs, an extreme has one more that says whether it is there."""
    if summary.what in ("n", "k") or summary.column is None:
        return 1
    if summary.what == "q":
        return 6
    if summary.what == "s":
        return 3 if summary.column.small else 6
    return 1 + limbs_of(summary.column)


def answer_width(packing: Packing, aggregate: Aggregate) -> int:
    """Doubles that a read returns for an aggregate: its summaries, merged."""
    return sum(summary_width(s) for s in packing.layout.needed(aggregate))


def whole(limbs: Sequence[float]) -> int:
    """The integer that limbs stand for; 0 of none."""
    total = 0
    for limb in reversed(limbs):
        total = (total << LIMB) + int(limb)
    return total

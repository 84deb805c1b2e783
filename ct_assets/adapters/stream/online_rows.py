"""Accepted events folded into rows of an online table: vectorised, no Python per event or per row.

What goes here: masks, grouping and summaries for every store, the rows as COPY bytes. What does not: the table and its
upsert (``online``), the rows as Redis keeps them (``packed_rows``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ct_assets.adapters.postgres.copy import CopyColumn, copy_order, encode
from ct_assets.adapters.stream.array_copy import arrays
from ct_assets.adapters.stream.chunks import OFFSET, PARTITION
from ct_assets.adapters.stream.layout import ROW_EVENTS, Kept, Layout, Summary, Where
from ct_assets.streaming.windows import one_of

SEQUENCE_BITS = 20  # a closed row's seq is commit id << 20, plus its number within the commit


@dataclass(frozen=True)
class Rows:
    """Rows to upsert: how many, their COPY bytes, and the columns in the order of those bytes."""

    count: int
    events: int
    payload: memoryview
    columns: tuple[str, ...]


def table_columns(layout: Layout) -> list[CopyColumn]:
    """The columns of an online table, keys first."""
    entity = layout.definition.schema.column(layout.definition.entity)
    keys = [
        CopyColumn("entity", "bigint" if entity.type == "integer" else "text", True),
        CopyColumn("part", "integer", True),
    ]
    numbers = [CopyColumn(n, "bigint", True) for n in ("tile", "seq", "version")]
    bounds = [
        CopyColumn("n", "integer", True),
        CopyColumn("first_t", "bigint", True),
        CopyColumn("last_t", "bigint", True),
    ]
    summaries = [CopyColumn(s.name, s.postgres_type, s.required) for s in layout.summaries]
    return [*keys, *numbers, *bounds, *summaries, *array_columns(layout)]


def array_columns(layout: Layout) -> list[CopyColumn]:
    """The array columns: times, offsets where order matters, masks, kept columns."""
    offsets = [CopyColumn("o", "bigint[]", True)] if layout.ordered else []
    kept = [CopyColumn(f"c{k.position}", f"{k.items}[]", True) for k in layout.kept]
    return [CopyColumn("t", "bigint[]", True), *offsets, CopyColumn("m", "integer[]", True), *kept]


@dataclass(frozen=True)
class Grouped:
    """Events in order of their rows, whatever store keeps them: the number of each one's row, the events of each row."""

    events: pl.DataFrame
    row: np.ndarray
    counts: np.ndarray

    @property
    def is_full(self) -> np.ndarray:
        """Which rows are closed from birth."""
        return self.counts == ROW_EVENTS


def grouped(layout: Layout, events: pl.DataFrame) -> Grouped | None:
    """The rows that ``events`` (as committed) make; None when no filter keeps any of them."""
    kept = _kept_events(layout, events)
    return None if kept.is_empty() else Grouped(kept, *_row_of(kept))


def fold(layout: Layout, events: pl.DataFrame, commit_id: int) -> Rows | None:
    """The rows that ``events`` (as committed) add to the table; None when no filter keeps any of them."""
    found = grouped(layout, events)
    if found is None:
        return None
    frame = (
        found.events.with_columns(pl.Series("_row", found.row))
        .group_by("_row", maintain_order=True)
        .agg(
            pl.col("entity").first(),
            pl.col("part").first(),
            pl.col("tile").first(),
            pl.len().cast(pl.Int32).alias("n"),
            pl.col("t").first().alias("first_t"),
            pl.col("t").last().alias("last_t"),
            *[summed(s).alias(s.name) for s in layout.summaries],
        )
    )
    number = np.arange(len(frame), dtype=np.int64) + 1  # unique within the commit
    seq = np.where(found.is_full, (commit_id << SEQUENCE_BITS) + number % (1 << SEQUENCE_BITS), 0)
    columns = copy_order(table_columns(layout))
    frame = frame.with_columns(
        pl.Series("seq", seq),
        pl.lit(commit_id, pl.Int64).alias("version"),
        *[arrays(found.events[c.name], found.counts, c.postgres_type).alias(c.name) for c in array_columns(layout)],
    )
    return Rows(len(frame), len(found.events), encode(frame, columns), tuple(c.name for c in columns))


def _kept_events(layout: Layout, events: pl.DataFrame) -> pl.DataFrame:
    """The events that some filter keeps, in order of row, time and offset, under the table's names."""
    definition = layout.definition
    mask = pl.sum_horizontal([matches(w).cast(pl.Int32) * (1 << i) for i, w in enumerate(layout.filters)])
    frame = events.select(
        pl.col(definition.entity).alias("entity"),
        pl.col(PARTITION).cast(pl.Int32).alias("part"),
        pl.col(definition.acceptance.event_time).dt.epoch("us").alias("t"),
        pl.col(OFFSET).alias("o"),
        mask.cast(pl.Int32).alias("m"),
        *[_stored(k).alias(f"c{k.position}") for k in layout.kept],
    ).filter(pl.col("m") != 0)
    frame = frame.with_columns((pl.col("t") // layout.tile_us).alias("tile"))
    return frame.sort("entity", "part", "tile", "t", "o")


def matches(where: Where) -> pl.Expr:
    """Whether an event passes a filter; a null value never does."""
    if not where:
        return pl.lit(True)
    return pl.all_horizontal([one_of(pl.col(name), values).fill_null(False) for name, values in where])


def _stored(kept: Kept) -> pl.Expr:
    column = pl.col(kept.name)
    if kept.kind == "scaled":
        return column.to_physical().cast(pl.Int64)
    if kept.kind == "wide":
        return column.cast(pl.String)
    if kept.kind == "time":
        return column.dt.epoch("us")
    if kept.kind in ("date", "boolean"):
        return column.cast(pl.Int32)
    return column


def _row_of(kept: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The row number of each event, and the count of events of each row."""
    size = len(kept)
    starts_group = np.ones(size, bool)
    starts_group[1:] = False
    for name in ("entity", "part", "tile"):
        starts_group |= kept.select((pl.col(name) != pl.col(name).shift(1)).fill_null(True)).to_series().to_numpy()
    begin = np.flatnonzero(starts_group)
    place = np.arange(size, dtype=np.int64) - np.repeat(begin, np.diff(np.append(begin, size)))
    starts_row = place % ROW_EVENTS == 0
    row = np.cumsum(starts_row, dtype=np.int64) - 1
    return row, np.diff(np.append(np.flatnonzero(starts_row), size))


def summed(summary: Summary) -> pl.Expr:
    """A summary of the events of a group."""
    chosen = (pl.col("m") // (1 << summary.filter)) % 2 == 1
    if summary.column is None:
        return chosen.sum().cast(pl.Int32)
    value = pl.col(f"c{summary.column.position}")
    if summary.what == "k":
        return (chosen & value.is_not_null()).sum().cast(pl.Int32)
    if summary.what == "q":
        wide = value.cast(pl.Int128)
        return pl.when(chosen).then(wide * wide).otherwise(0).sum()
    if summary.column.kind == "wide":
        value = value.cast(pl.Decimal(38, summary.column.scale))
    if summary.what == "s":
        exact = value if summary.column.small or summary.column.kind == "wide" else value.cast(pl.Int128)
        return pl.when(chosen).then(exact).sum()
    picked = pl.when(chosen).then(value)
    return picked.min() if summary.what == "lo" else picked.max()

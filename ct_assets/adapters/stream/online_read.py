"""Reads of finished values: one entity or many in one round trip, with watermark, staleness and version.

What goes here: running a read and what follows from the partitions' progress. What does not: SQL (``online_query``), the
table and its writes (``online``), reading history (``training_frames``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.streaming.definition import Definition
from ct_assets.streaming.watermark import PartitionState, completeness

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable

_CURSOR = "_ct_read_cursor"  # where :func:`reader` keeps the cursor of its connection


def reader(url: str) -> psycopg.Connection:
    """A connection for reads by one thread at a time: plans are made once (planning costs more than a read of one
    entity), JIT never helps, and one cursor serves all reads (making one costs a fifth of a read)."""
    from psycopg import RawCursor

    from ct_assets.adapters.postgres.connect import connect

    conn = connect(url, autocommit=True)
    conn.execute("set plan_cache_mode = force_generic_plan")
    conn.execute("set jit = off")
    setattr(conn, _CURSOR, RawCursor(conn))
    return conn


@dataclass(frozen=True)
class OnlineValues:
    """What one read gave: a dict of the aggregates per entity, in the order asked.

    ``watermark_us`` (None: nothing known yet), ``staleness_us`` (None: never fed), ``is_stale`` (None: no objective),
    ``version``: {partition: (next offset, replays)} of the state that was read.
    """

    values: list[dict[str, Any]]
    watermark_us: int | None
    staleness_us: int | None
    is_stale: bool | None
    version: dict[int, tuple[int, int]]


def read(
    conn: psycopg.Connection, table: OnlineTable, entities: Sequence[Any], at_us: int, *, version: bool = True
) -> OnlineValues:
    """The values of ``entities`` at ``at_us`` (microseconds), in one round trip; an unknown entity reads as empty windows.

    An entity may come twice. For reads at the present; older moments reach back as far as rows are kept. Values and
    progress are of one snapshot. Without ``version`` the answer has none.
    """
    if not len(entities):
        return OnlineValues([], None, None, None, {})
    alone = len(entities) == 1
    rows = _fetched(conn, table.reads[not alone], entities[0] if alone else list(entities), at_us)
    definition = table.definition
    names = [a.name for a in definition.aggregates]
    partitions = rows[0][-1] or ()
    watermark, staleness, is_stale = _progress(definition, partitions, at_us)
    values = [dict(zip(names, row, strict=False)) for row in rows]  # the progress, last, falls away
    if is_stale and definition.on_stale == "null":
        values = [dict.fromkeys(names) for _ in rows]
    offsets = {p[0]: (p[1], p[2]) for p in partitions} if version else {}
    return OnlineValues(values, watermark, staleness, is_stale, offsets)


def _progress(
    definition: Definition, partitions: Sequence[Sequence[Any]], at_us: int
) -> tuple[int | None, int | None, bool | None]:
    """(watermark, staleness, is stale) as ``stream.progress`` has them, of one row a partition."""
    acceptance = definition.acceptance
    known = completeness(
        [
            PartitionState(p, top, bool(caught_up), append, looked)
            for p, _, _, top, append, caught_up, looked in partitions
        ],
        at_us,
        out_of_orderness_us=acceptance.out_of_orderness_us,
        idle_timeout_us=acceptance.idle_timeout_us,
    )
    fresh = [updated if caught_up else append for _, _, _, _, append, caught_up, updated in partitions]
    staleness = max(at_us - min(fresh), 0) if fresh and None not in fresh else None
    if definition.freshness_us is None:
        return known.at, staleness, None
    return known.at, staleness, staleness is None or staleness > definition.freshness_us


def _fetched(conn: psycopg.Connection, query: bytes, asked: Any, at_us: int) -> list[tuple[Any, ...]]:
    """Rows by a prepared statement; parameters are numbered because the moment is used often."""
    from psycopg import RawCursor

    kept = getattr(conn, _CURSOR, None)
    if kept is not None:
        return kept.execute(query, (asked, at_us), prepare=True, binary=True).fetchall()
    with RawCursor(conn) as cursor:
        return cursor.execute(query, (asked, at_us), prepare=True, binary=True).fetchall()

"""Online against offline, measured: sampled reads are kept, recomputed from the stored events, and compared.

What goes here: the two figures of docs/streaming.md ("Consistency"). What does not: the read (``online_read``), the
computation from events (``training_frames``), what a mismatch stops (the asset check).

*Determinism*: the same reading again. A kept read names the version it saw ({partition: [next offset, replays]}), so it is
recomputed from exactly those events at the same microsecond: every value must be equal, the target is 0 differences.
*As served against corrected*: the same moments from all events there are by now. What came late makes the difference; it
is the honest skew between what a model was served and what a corrected training set says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.training_frames import Request, removals, training_frame

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.online_read import OnlineValues

SHOWN = 20  # mismatches that a report lists
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Mismatch:
    """One value that was served and that its own events do not give. Values in their stored form (see :func:`stored`)."""

    entity: Any
    at_us: int
    aggregate: str
    served: Any
    recomputed: Any


@dataclass(frozen=True)
class Report:
    """The determinism figure: how many reads and values were recomputed, how many values differ, and the first of those.

    ``left_out``: kept reads whose windows reach events that retention has removed since.
    """

    definition_hash: str
    reads: int
    values: int
    mismatches: int
    first: tuple[Mismatch, ...] = ()
    left_out: int = 0


@dataclass(frozen=True)
class Skew:
    """As served against corrected. ``changed``: values that differ by now, per aggregate (0 where none does).

    ``frame``: one row a value, in order of its moment: at_us, entity (as text), aggregate, served, corrected (doubles;
    null for values that are no numbers, which count in ``changed`` all the same).
    """

    reads: int
    values: int
    changed: dict[str, int]
    frame: pl.DataFrame


@dataclass(frozen=True)
class _Kept:
    """A kept read."""

    id: int
    entity: Any
    at_us: int
    values: dict[str, Any]
    version: str
    is_stale: bool | None


def sample_reads(
    conn: psycopg.Connection, table: OnlineTable, entities: Sequence[Any], at_us: int, online_url: str | None = None
) -> int:
    """Read ``entities`` online at ``at_us`` (microseconds, the present) and keep what was answered; how many were kept."""
    from ct_assets.adapters.stream.online_reads import OnlineReads

    return keep_reads(conn, table, entities, at_us, OnlineReads(online_url).read(conn, table, entities, at_us))


def keep_reads(
    conn: psycopg.Connection, table: OnlineTable, entities: Sequence[Any], at_us: int, found: OnlineValues
) -> int:
    """Keep a read that was made for somebody (with its version); how many were kept."""
    offsets = json.dumps({str(p): list(v) for p, v in found.version.items()})
    rows = [
        (table.definition.hash, str(entity), at_us, json.dumps(_stored_all(values)), offsets, found.is_stale)
        for entity, values in zip(entities, found.values, strict=True)
    ]
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            "insert into stream.read_sample (definition_hash, entity, at, values, offsets, is_stale)"
            " values (%s, %s, %s, %s, %s, %s)",
            rows,
        )
    return len(rows)


def some_entities(conn: psycopg.Connection, table: OnlineTable, count: int) -> list[Any]:
    """At most ``count`` entities to sample: half of those with the newest events, half of any; the hottest is likely in."""
    newest = f"select entity from {table.quoted} group by entity order by max(last_t) desc limit %s"
    any_ones = f"select distinct entity from (select entity from {table.quoted} order by random() limit %s) e"
    found = [row[0] for row in conn.execute(newest.encode(), ((count + 1) // 2,))]
    found += [row[0] for row in conn.execute(any_ones.encode(), (count,))]
    return list(dict.fromkeys(found))[:count]


def recompute(conn: psycopg.Connection, storage: Storage | None, table: OnlineTable, since_us: int) -> Report:
    """Recompute every kept read at or after ``since_us`` from the events that it saw. Marks them as checked.

    A value that its view's policy made null because it was stale must be null. Memory: the reads, and the events of
    their windows; reads of one version are recomputed together.
    """
    kept, left_out = _kept(conn, table, since_us)
    first: list[Mismatch] = []
    marks: list[tuple[int, list[Mismatch]]] = []
    values = mismatches = 0
    for read, expected in _recomputed(conn, storage, table, kept):
        differing = [
            Mismatch(read.entity, read.at_us, name, served, expected[name])
            for name, served in read.values.items()
            if not equal(served, expected[name])
        ]
        values += len(read.values)
        mismatches += len(differing)
        first += differing[: SHOWN - len(first)]
        marks.append((read.id, differing))
    _mark(conn, marks)
    return Report(table.definition.hash, len(kept), values, mismatches, tuple(first), left_out)


def as_served(
    conn: psycopg.Connection,
    storage: Storage | None,
    table: OnlineTable,
    since_us: int,
    complete_to_us: int | None = None,
) -> Skew:
    """Kept reads against what all events known by now say of the same moments.

    ``complete_to_us``: leave out reads after it, whose events may not all be in (the completeness of the stream).
    """
    import polars as pl

    kept, _ = _kept(conn, table, since_us)
    kept = [k for k in kept if complete_to_us is None or k.at_us <= complete_to_us]
    changed = {a.name: 0 for a in table.definition.aggregates}
    rows: list[tuple[int, str, str, float | None, float | None]] = []
    if kept:
        frame = training_frame(
            conn, table, _labels(table, kept), Request("corrected", as_built=True, storage=storage, tells_losses=False)
        )
        for read, row in zip(kept, frame.iter_rows(named=True), strict=True):
            expected = _policed(table, read, _stored_all(row))
            for name, served in read.values.items():
                changed[name] += not equal(served, expected[name])
                rows.append((read.at_us, str(read.entity), name, _number(served), _number(expected[name])))
    schema = {
        "at_us": pl.Int64,
        "entity": pl.String,
        "aggregate": pl.String,
        "served": pl.Float64,
        "corrected": pl.Float64,
    }
    found = pl.DataFrame(rows, schema=schema, orient="row").sort("at_us", maintain_order=True)
    return Skew(len(kept), len(rows), changed, found)


def forget(conn: psycopg.Connection, before: datetime) -> int:
    """Remove kept reads that were made before a moment, but for those that did not agree; how many."""
    with conn.transaction():
        return conn.execute(
            "delete from stream.read_sample where read_at < %s and mismatch is null", (before,)
        ).rowcount


def stored(value: Any) -> Any:
    """A value as JSON keeps it without loss: decimals as text in their shortest form, times as microseconds."""
    if isinstance(value, Decimal):  # not normalize(): it rounds to the context's 28 digits
        text = f"{value:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value


def _stored_all(values: dict[str, Any]) -> dict[str, Any]:
    return {name: stored(value) for name, value in values.items()}


def equal(served: Any, recomputed: Any) -> bool:
    """Whether a value read from jsonb is the recomputed one, types too: jsonb writes large doubles as integers, so those are read as doubles again."""
    if isinstance(recomputed, float) and isinstance(served, int):
        served = float(served)
    return type(served) is type(recomputed) and served == recomputed


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None if value is None else float(value)
    try:
        return float(value)
    except ValueError:
        return None


def _kept(conn: psycopg.Connection, table: OnlineTable, since_us: int) -> tuple[list[_Kept], int]:
    """The kept reads that can be recomputed, and how many cannot: their windows reach events that retention has removed.

    A version that was made without those events can be recomputed without them, unless more went since.
    """
    removed, lacks = removals(conn, table)
    rows = conn.execute(
        """select read_sample_id, entity, at, values, offsets, is_stale,
                  %s::bigint is null or at - %s >= %s or (%s and read_at >= d.created_at)
           from stream.read_sample join stream.definition d on d.definition_id = %s
           where definition_hash = %s and at >= %s order by read_sample_id""",
        (
            removed,
            table.definition.max_window_us,
            removed,
            removed is not None and lacks is not None and removed <= lacks,
            table.definition_id,
            table.definition.hash,
            since_us,
        ),
    ).fetchall()
    is_integer = table.definition.schema.column(table.definition.entity).type == "integer"
    kept = [
        _Kept(id_, int(entity) if is_integer else entity, at, values, json.dumps(offsets, sort_keys=True), is_stale)
        for id_, entity, at, values, offsets, is_stale, can_be in rows
        if can_be
    ]
    return kept, len(rows) - len(kept)


def _recomputed(
    conn: psycopg.Connection, storage: Storage | None, table: OnlineTable, kept: list[_Kept]
) -> Iterator[tuple[_Kept, dict[str, Any]]]:
    """Each read with what the events of its version give."""
    by_version: dict[str, list[_Kept]] = {}
    for read in kept:
        by_version.setdefault(read.version, []).append(read)
    for text, reads in by_version.items():
        version = {int(p): (v[0], v[1]) for p, v in json.loads(text).items()}
        request = Request("corrected", version=version, as_built=True, storage=storage, tells_losses=False)
        frame = training_frame(conn, table, _labels(table, reads), request)
        for read, row in zip(reads, frame.iter_rows(named=True), strict=True):
            yield read, _policed(table, read, _stored_all(row))


def _policed(table: OnlineTable, read: _Kept, values: dict[str, Any]) -> dict[str, Any]:
    """What the policy for stale values makes of them."""
    if read.is_stale and table.definition.on_stale == "null":
        return dict.fromkeys(values)
    return values


def _labels(table: OnlineTable, reads: list[_Kept]) -> pl.DataFrame:
    import polars as pl

    is_integer = table.definition.schema.column(table.definition.entity).type == "integer"
    entities = pl.Series(table.definition.entity, [r.entity for r in reads], pl.Int64 if is_integer else pl.String)
    return pl.DataFrame([entities, pl.Series("at", [r.at_us for r in reads], pl.Int64)])


def _mark(conn: psycopg.Connection, marks: list[tuple[int, list[Mismatch]]]) -> None:
    found = [{m.aggregate: [m.served, m.recomputed] for m in differing} for _, differing in marks]
    with conn.transaction():
        conn.execute(
            """update stream.read_sample s set checked_at = clock_timestamp(), mismatch = u.mismatch::jsonb
               from unnest(%s::bigint[], %s::text[]) u (id, mismatch) where s.read_sample_id = u.id""",
            ([id_ for id_, _ in marks], [json.dumps(f) if f else None for f in found]),
        )

"""Hours of a stream: what was accepted in each, how late, up to when all is in; the values at an hour's end as a file.

What goes here: the questions and the file. What does not: when an hour is asked for and how Dagster is told
(``orchestration.stream_hours``), windows (``training_frames``).

An hour is a clock hour of event time, UTC, named by its first microsecond. Its *version* changes when, and only when, an
event came that its closing values can see: the log only grows, so counts by partition say it. Closing values see events too
that came later than ``allowed_lateness`` (dead letters for online values): that is their reconciliation.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.chunks import APPEND, OFFSET, PARTITION, EventQuery, event_frames
from ct_assets.adapters.stream.late import late_events
from ct_assets.adapters.stream.state import find_stream
from ct_assets.adapters.stream.training_frames import removals

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
Version = Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class Position:
    """How far a stream is. ``version``: {partition: (next offset, replays)}; times in microseconds, None: never fed.

    ``watermark``: everything before it is in, but for what comes late. ``fresh_as_of``: the newest moment at which all
    that the topic held had been read.
    """

    version: Version
    watermark: int | None
    fresh_as_of: int | None
    events: int
    late_accepted: int
    late_dead: int
    duplicates: int
    dead: int
    caught_up: bool
    stream_id: int

    @property
    def digest(self) -> str:
        """Changes whenever something was read; offsets of another topic mean something else."""
        return hashlib.sha256(repr((self.stream_id, sorted(self.version.items()))).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class HourSummary:
    """One hour. ``offsets``: {partition: (first, last)} of its events; ``late``: accepted behind their partition's
    watermark; ``too_late``: not accepted for that, and in the closing values all the same; ``delay_p50_s``, ``delay_p99_s``: from event time to append time (None: no append times)."""

    hour: int
    events: int
    entities: int
    late: int
    too_late: int
    offsets: Mapping[int, tuple[int, int]]
    delay_p50_s: float | None
    delay_p99_s: float | None
    version: str


def position(conn: psycopg.Connection, table: OnlineTable, at_us: int) -> Position:
    """How far the stream of ``table`` is at ``at_us``."""
    acceptance = table.definition.acceptance
    rows = conn.execute(
        """select partition, next_offset, replays, events, late_accepted, late_dead, duplicates, dead, caught_up
           from stream.partition where stream_id = %s order by partition""",
        (table.stream_id,),
    ).fetchall()
    found = conn.execute(
        "select watermark, fresh_as_of from stream.progress(%s, %s, %s, %s)",
        (table.stream_id, at_us, acceptance.out_of_orderness_us, acceptance.idle_timeout_us),
    ).fetchone()
    watermark, fresh = found or (None, None)
    events, late_accepted, late_dead, duplicates, dead = (sum(row[i] for row in rows) for i in range(3, 8))
    return Position(
        {row[0]: (row[1], row[2]) for row in rows},
        watermark,
        fresh,
        events,
        late_accepted,
        late_dead,
        duplicates,
        dead,
        caught_up=bool(rows) and all(row[8] for row in rows),
        stream_id=table.stream_id,
    )


def touched_hours(
    conn: psycopg.Connection, table: OnlineTable, after: Version, storage: Storage | None = None
) -> set[int]:
    """The hours whose closing values can see an event that came after ``after`` (empty: since the beginning)."""
    found: set[int] = set()
    query = EventQuery(after=after or None, columns=())
    for frame in chain(_frames(conn, table, query, storage), _too_late(conn, table, query, storage)):
        found.update((frame["hour"].unique() * HOUR_US).to_list())
    return {hour + ahead * HOUR_US for hour in found for ahead in range(_reach(table))}


def whole_hours(conn: psycopg.Connection, table: OnlineTable, hours: Iterable[int]) -> list[int]:
    """Those of the hours, in order, of which retention has removed nothing that their values and versions can see; nor what
    tells whether a late event is a repeat, a dedup horizon before."""
    removed, _ = removals(conn, table)
    before = HOUR_US * (_reach(table) - 1) + table.definition.acceptance.dedup_horizon_us
    return sorted(hour for hour in hours if removed is None or hour - before >= removed)


def summaries(
    conn: psycopg.Connection, table: OnlineTable, hours: Iterable[int], storage: Storage | None = None
) -> dict[int, HourSummary]:
    """The summaries of these hours, in order; left out are hours without any event in reach, and those that retention has
    reached: what was kept of them stays as it is.

    One pass over the events from the oldest hour's reach on. Memory: a row an (hour, entity), and times of those hours.
    """
    import polars as pl

    wanted = whole_hours(conn, table, hours)
    if not wanted:
        return {}
    reach = _reach(table) * HOUR_US
    query = EventQuery(since=wanted[0] + HOUR_US - reach, columns=(table.definition.entity,))
    parts, entities, late = [], [], _Late(table.definition.acceptance.out_of_orderness_us)
    for frame in _frames(conn, table, query, storage):
        kept = frame.with_columns(late=late.of(frame)).filter(pl.col("hour") <= wanted[-1] // HOUR_US)
        parts.append(kept.select("hour", PARTITION, OFFSET, "late", delay="delay"))
        entities.append(kept.select("hour", table.definition.entity).unique())
    behind: dict[int, list[tuple[int, int]]] = {}
    for frame in _too_late(conn, table, query, storage):
        kept = frame.filter(pl.col("hour") <= wanted[-1] // HOUR_US)
        for hour, partition, offset in kept.select("hour", PARTITION, OFFSET).sort(PARTITION, OFFSET).iter_rows():
            behind.setdefault(hour, []).append((partition, offset))
        entities.append(kept.select("hour", table.definition.entity).unique())
    if not entities:
        return {}
    rows = pl.concat(parts) if parts else None
    by_hour = {} if rows is None else {part["hour"][0]: part for part in rows.partition_by("hour")}
    people = dict(pl.concat(entities).unique().group_by("hour").len().iter_rows())
    counts = {} if rows is None else _counts(rows)
    found = {}
    for hour in wanted:
        at, within = hour // HOUR_US, range((hour + HOUR_US - reach) // HOUR_US, hour // HOUR_US + 1)
        seen, late_ones = (sorted((h, n[h]) for h in within if h in n) for n in (counts, behind))
        if seen or late_ones:
            said = f"{table.definition.hash}|{seen}" + (f"|{late_ones}" if late_ones else "")
            version = hashlib.sha256(said.encode()).hexdigest()[:16]
            found[hour] = _summary(hour, by_hour.get(at), (people.get(at, 0), len(behind.get(at, ()))), version)
    return found


def per_minute(
    conn: psycopg.Connection, table: OnlineTable, since: int, until: int, storage: Storage | None = None
) -> tuple[list[int], list[int], list[int]]:
    """(minute in microseconds, events accepted, of them late) for ``[since, until)``; minutes without events count 0."""
    import polars as pl

    late = _Late(table.definition.acceptance.out_of_orderness_us)
    parts = [
        frame.with_columns(late=late.of(frame)).filter(pl.col("time") < until).select("time", "late")
        for frame in _frames(conn, table, EventQuery(since=since, columns=()), storage)
    ]
    minutes = list(range(since // MINUTE_US * MINUTE_US, until, MINUTE_US))
    if not parts:
        return minutes, [0] * len(minutes), [0] * len(minutes)
    counted = pl.concat(parts).group_by(pl.col("time") // MINUTE_US * MINUTE_US).agg(pl.len(), pl.col("late").sum())
    by_minute = {minute: (events, behind) for minute, events, behind in counted.iter_rows()}
    pairs = [by_minute.get(minute, (0, 0)) for minute in minutes]
    return minutes, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def dead_by_reason(conn: psycopg.Connection, table: OnlineTable, since: int, until: int) -> dict[str, int]:
    """Dead letters that arrived in ``[since, until)``, by reason, most frequent first."""
    return dict(
        conn.execute(
            """select reason, count(*) from stream.dead_letter where stream_id = %s
               and coalesce(nullif(append_time, -1), (extract(epoch from created_at) * 1000000)::bigint) >= %s
               and coalesce(nullif(append_time, -1), (extract(epoch from created_at) * 1000000)::bigint) < %s
               group by reason order by 2 desc, 1""",
            (table.stream_id, since, until),
        ).fetchall()
    )


def closing_values(
    conn: psycopg.Connection, table: OnlineTable, hour: int, storage: Storage | None = None
) -> pl.DataFrame:
    """Every aggregate at the hour's end, as corrected by now, a row an entity that any window can see; by entity."""
    import polars as pl

    from ct_assets.adapters.stream.training_frames import Request, training_frame

    entity, end = table.definition.entity, hour + HOUR_US
    query = EventQuery(since=end - table.definition.max_window_us, until=end, columns=(entity,))
    accepted = event_frames(conn, find_stream(conn, table.stream_id), query, storage)
    parts = [frame.select(entity).unique() for frame in chain(accepted, _too_late(conn, table, query, storage))]
    kind = pl.Int64 if table.definition.schema.column(entity).type == "integer" else pl.String
    labels = pl.concat(parts).unique().sort(entity) if parts else pl.DataFrame(schema={entity: kind})
    request = Request("corrected", storage=storage, with_late=True, tells_losses=False)
    return training_frame(conn, table, labels.with_columns(at=pl.lit(end, pl.Int64)), request)


def write_snapshot(
    conn: psycopg.Connection, table: OnlineTable, summary: HourSummary, storage: Storage
) -> tuple[str, int]:
    """Keep the closing values of an hour as Parquet; (key behind the storage port, rows). Repeating it changes nothing."""
    frame = closing_values(conn, table, summary.hour, storage)
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd")
    name, hash_ = table.definition.name, table.definition.hash[:12]
    key = f"snapshots/{name}/{hash_}/{summary.hour // HOUR_US}/{summary.version}.parquet"
    storage.put(key, out.getvalue())
    return key, len(frame)


def _too_late(
    conn: psycopg.Connection, table: OnlineTable, query: EventQuery, storage: Storage | None
) -> Iterator[pl.DataFrame]:
    """What came later than is allowed, with ``hour``."""
    import polars as pl

    event_time = table.definition.acceptance.event_time
    query = replace(query, columns=(event_time, *(query.columns or ())))
    late = late_events(conn, find_stream(conn, table.stream_id), query, storage)
    if late is not None:
        yield late.with_columns(hour=pl.col(event_time).dt.epoch("us") // HOUR_US)


def _frames(conn: psycopg.Connection, table: OnlineTable, query: EventQuery, storage: Storage | None) -> Any:
    """Frames with ``time`` (microseconds), ``hour`` (number), ``top`` (what moves the watermark), ``delay`` (s or null)."""
    import polars as pl

    event_time = table.definition.acceptance.event_time
    time, appended = pl.col(event_time).dt.epoch("us"), pl.col(APPEND)
    has = appended >= 0
    query = replace(query, columns=(event_time, *(query.columns or ())))
    for frame in event_frames(conn, find_stream(conn, table.stream_id), query, storage):
        yield frame.with_columns(
            time=time,
            hour=time // HOUR_US,
            top=pl.when(has).then(pl.min_horizontal(time, appended)).otherwise(time),
            delay=pl.when(has).then((appended - time) / 1e6),
        )


def _reach(table: OnlineTable) -> int:
    """How many hours, its own included, an event can be seen at the end of."""
    return max(1, -(-table.definition.max_window_us // HOUR_US))


class _Late:
    """Which events came behind the watermark of their own partition; frames come in order of partition and offset."""

    def __init__(self, out_of_orderness_us: int) -> None:
        self._behind = out_of_orderness_us
        self._top: dict[int, int] = {}

    def of(self, frame: pl.DataFrame) -> pl.Series:
        """True for events that an earlier one of the partition had left behind."""
        import polars as pl

        if frame.is_empty():
            return pl.Series("late", [], pl.Boolean)
        partition = int(frame[PARTITION][0])
        before = self._top.get(partition, -(2**62))
        reached = frame["top"].cum_max().clip(lower_bound=before)
        self._top[partition] = int(reached[-1])
        return frame["time"] < reached.shift(1, fill_value=before) - self._behind


def _counts(rows: pl.DataFrame) -> dict[int, tuple[tuple[int, int], ...]]:
    """Events by (partition, count) of every hour."""
    found: dict[int, tuple[tuple[int, int], ...]] = {}
    for hour, partition, count in rows.group_by("hour", PARTITION).len().sort("hour", PARTITION).iter_rows():
        found[hour] = (*found.get(hour, ()), (partition, count))
    return found


def _summary(hour: int, rows: pl.DataFrame | None, counts: tuple[int, int], version: str) -> HourSummary:
    """``counts``: entities, and events that came too late."""
    import polars as pl

    entities, too_late = counts
    if rows is None:
        return HourSummary(hour, 0, entities, 0, too_late, {}, None, None, version)
    spans = rows.group_by(PARTITION).agg(pl.col(OFFSET).min().alias("first"), pl.col(OFFSET).max().alias("last"))
    offsets = {p: (first, last) for p, first, last in spans.sort(PARTITION).iter_rows()}
    middle, high = (rows["delay"].quantile(share, "nearest") for share in (0.5, 0.99))
    return HourSummary(hour, len(rows), entities, int(rows["late"].sum()), too_late, offsets, middle, high, version)

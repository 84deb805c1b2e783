"""What the bodies of a streaming pipeline's assets call, and which hours are due: a stream's state as Dagster's facts.

What goes here: metadata, data versions, checks, plots. What does not: reading the stream (``adapters.stream``), training
(``stream_training``), when it happens (``stream_sensor``, ``stream_runs``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from ct_assets.errors import UsageError
from ct_assets.orchestration.events import DayFact, told_versions
from ct_assets.orchestration.resources import Installation
from ct_assets.orchestration.stream_pipeline import HOUR_US, StreamPipeline, hour_key, hour_of

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.snapshots import HourSummary, Position

FRESH, DEAD = "data_is_fresh", "dead_letters_in_budget"
DEAD_SHARE = 0.01  # of the messages of the newest day; planted dirt is 0.6 %, a broken producer is everything
DAY_US = 24 * HOUR_US
SHOWN_HOURS = 24
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoStream(UsageError):
    """No worker has run the definition yet."""


def live_table(conn: psycopg.Connection, pipeline: StreamPipeline) -> OnlineTable:
    """The version of the definition that answers. Raises :class:`NoStream` while there is none."""
    from ct_assets.adapters.stream.versions import find_table

    try:
        return find_table(conn, pipeline.definition.name)
    except UsageError as error:
        file = pipeline.spec.source.stream
        raise NoStream(
            f"no worker has run {pipeline.definition.name!r} yet",
            hint=f"ct stream run --definition {file} --source kafka://HOST:PORT/TOPIC",
        ) from error


def now_us(installation: Installation) -> int:
    """The clock's moment."""
    return round(installation.clock.now().timestamp() * 1e6)


def text(moment: int | None) -> str:
    """A moment (microseconds) for people."""
    return "never" if moment is None else (_EPOCH + timedelta(microseconds=moment)).isoformat(timespec="milliseconds")


def where_it_is(installation: Installation, pipeline: StreamPipeline) -> Position:
    """How far the stream is now. Raises :class:`NoStream`."""
    from ct_assets.adapters.stream.snapshots import position

    with installation.stream() as conn:
        return position(conn, live_table(conn, pipeline), now_us(installation))


def observed(pipeline: StreamPipeline, found: Position) -> tuple[str, dict[str, Any]]:
    """Data version and metadata of the topic."""
    rows = [
        {"partition": p, "next offset": offset, "replays": replays} for p, (offset, replays) in found.version.items()
    ]
    return found.digest, {
        "watermark": text(found.watermark),
        "read to the end at": text(found.fresh_as_of),
        "caught up": found.caught_up,
        "events accepted": found.events,
        "accepted late": found.late_accepted,
        "repeats dropped": found.duplicates,
        "dead letters": found.dead,
        "offsets": _table(rows, ("partition", "next offset", "replays")),
    }


def due_hours(
    installation: Installation,
    instance: dg.DagsterInstance,
    pipeline: StreamPipeline,
    hours: Iterable[int] | None = None,
) -> tuple[dict[int, str], set[int]]:
    """(hours to build -> their version, hours that are not over yet), of ``hours`` (None: all that the stream touches).

    Due: completeness has passed its end, it is a partition, and Dagster knows no materialization of its version.
    """
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import snapshots

    storage = open_storage(installation.settings)
    with installation.stream() as conn:
        table = live_table(conn, pipeline)
        watermark = snapshots.position(conn, table, now_us(installation)).watermark
        asked = snapshots.touched_hours(conn, table, {}, storage) if hours is None else set(hours)
        over = {hour for hour in asked if watermark is not None and hour + HOUR_US <= watermark}
        known = {hour for hour in over if pipeline.hours.has_partition_key(hour_key(hour))}
        found = snapshots.summaries(conn, table, known, storage)
    told = told_versions(instance, pipeline.snapshot)
    return {h: s.version for h, s in found.items() if told.get(hour_key(h)) != s.version}, asked - over


def build_snapshots(installation: Installation, pipeline: StreamPipeline, hours: list[int], say: Any) -> list[DayFact]:
    """Keep the closing values of those hours that are complete and have something in reach; what they are, in order."""
    import numpy as np

    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import coverage, snapshots

    storage, facts = open_storage(installation.settings), []
    with installation.stream() as conn:
        table = live_table(conn, pipeline)
        at = snapshots.position(conn, table, now_us(installation))
        over = [hour for hour in hours if at.watermark is not None and hour + HOUR_US <= at.watermark]
        if len(over) < len(hours):
            say(f"{len(hours) - len(over)} hours are not complete: the watermark is at {text(at.watermark)}")
        gone = len(over) - len(snapshots.whole_hours(conn, table, over))
        if gone:
            say(f"{gone} hours are left out: retention has removed events that they need (CT_STREAM_RETENTION_DAYS)")
        for hour, summary in snapshots.summaries(conn, table, over, storage).items():
            key, rows = snapshots.write_snapshot(conn, table, summary, storage)
            dead = snapshots.dead_by_reason(conn, table, hour, hour + HOUR_US)
            lacking = coverage.in_reach_of_losses(conn, table, np.array([hour + HOUR_US]))
            facts.append(DayFact(hour_key(hour), summary.version, _metadata(summary, at, dead) | {
                "lacks messages given up unread": bool(lacking),
                "dagster/row_count": rows, "file": key, "definition": f"{table.definition.name} {table.definition.hash[:12]}",
            }))  # fmt: skip
    return facts


def _metadata(summary: HourSummary, at: Position, dead: dict[str, int]) -> dict[str, Any]:
    offsets = [{"partition": p, "first": first, "last": last} for p, (first, last) in summary.offsets.items()]
    found: dict[str, Any] = {
        "events": summary.events,
        "entities": summary.entities,
        "accepted late": summary.late,
        "too late to be accepted, counted here": summary.too_late,
        "dead letters": sum(dead.values()),
        "watermark when built": text(at.watermark),
        "complete": True,
        "offsets": _table(offsets, ("partition", "first", "last")),
    }
    if dead:
        rows = [{"reason": reason, "messages": count} for reason, count in dead.items()]
        found["dead letters by reason"] = _table(rows, ("reason", "messages"))
    if summary.delay_p50_s is not None:
        found |= {"delay p50 s": round(summary.delay_p50_s, 3), "delay p99 s": round(summary.delay_p99_s or 0.0, 3)}
    return found


def rate_plot(installation: Installation, pipeline: StreamPipeline, keys: list[str]) -> dict[str, Any]:
    """Events a minute and late ones, over the newest day up to the newest of ``keys``."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import snapshots
    from ct_assets.orchestration.stream_plots import rate_and_lateness

    end = max(hour_of(key) for key in keys) + HOUR_US
    since = max(end - SHOWN_HOURS * HOUR_US, min(hour_of(key) for key in keys))
    with installation.stream() as conn:
        table = live_table(conn, pipeline)
        found = snapshots.per_minute(conn, table, since, end, open_storage(installation.settings))
    return {"rate and lateness": rate_and_lateness(*found)}


def stream_state(installation: Installation, pipeline: StreamPipeline) -> Iterator[dg.AssetCheckResult]:
    """The two checks of the topic: how old the data is (data time), and the share of dead letters of the newest day."""
    from ct_assets.adapters.stream import snapshots

    try:
        with installation.stream() as conn:
            table = live_table(conn, pipeline)
            now = now_us(installation)
            at = snapshots.position(conn, table, now)
            dead = snapshots.dead_by_reason(conn, table, now - DAY_US, now + DAY_US)
            accepted = _accepted(conn, table, now - DAY_US)
    except NoStream as none:
        for name in (FRESH, DEAD):
            yield _result(pipeline, name, False, f"{none.message}: {none.hint}")
        return
    yield _fresh(pipeline, at, now)
    total = sum(dead.values())
    share = total / (total + accepted) if total + accepted else 0.0
    more: dict[str, Any] = {"share": share}
    if dead:
        more["by reason"] = _table([{"reason": r, "messages": n} for r, n in dead.items()], ("reason", "messages"))
    said = f"{total:,} of {total + accepted:,} messages of the newest day are dead letters; `ct dead-letter list`"
    yield _result(pipeline, DEAD, share <= DEAD_SHARE, said, more)


def _fresh(pipeline: StreamPipeline, at: Position, now: int) -> dg.AssetCheckResult:
    limit = pipeline.spec.freshness.data
    age = None if at.watermark is None else (now - at.watermark) / 1e6
    passed = age is not None and (limit is None or age <= limit.total_seconds())
    allowed = "no limit is set" if limit is None else f"at most {limit.total_seconds():,.0f} s are allowed"
    said = f"data through {text(at.watermark)}" + ("" if age is None else f", {age:,.0f} s ago; {allowed}")
    return _result(pipeline, FRESH, passed, said, {"watermark": text(at.watermark)})


def _result(
    pipeline: StreamPipeline, name: str, passed: bool, said: str, more: dict[str, Any] | None = None
) -> dg.AssetCheckResult:
    """Old data is an error where somebody is to be paged for it; the rest warns."""
    page = name == FRESH and pipeline.spec.freshness.on_breach == "page"
    return dg.AssetCheckResult(
        passed=passed,
        check_name=name,
        asset_key=pipeline.events,
        severity=dg.AssetCheckSeverity.ERROR if page else dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={**(more or {}), "owner": pipeline.spec.owner.oncall},
    )


def _accepted(conn: psycopg.Connection, table: OnlineTable, since: int) -> int:
    """Accepted events of chunks that reach into the time since; chunks are seconds long, which is near enough for a share."""
    row = conn.execute(
        "select coalesce(sum(rows), 0)::bigint from stream.chunk where stream_id = %s and max_event_time >= %s",
        (table.stream_id, since),
    ).fetchone()
    return row[0] if row else 0


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord(row) for row in rows], schema=dg.TableSchema([dg.TableColumn(name) for name in columns])
    )

"""What the ledger knows about each day of each asset, as Dagster metadata. Read-only.

What goes here: queries that turn ledger rows into :class:`~ct_assets.orchestration.events.DayFact`. What does not:
writing to the ledger (adapters), deciding which facts become events (`events.py`).

Metadata of one day stays small (a few numbers and texts): hundreds of days may be told in one run.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ct_assets.orchestration.events import DayFact

if TYPE_CHECKING:
    import psycopg

_LANDED = """
    select coalesce(day, (received_at at time zone 'UTC')::date) as business_day, delivery_id, name, sha256, bytes, state, received_at
    from ledger.delivery where pipeline = %s and (day is not null or %s) order by business_day, delivery_id"""
_CURRENT = """
    select p.day, p.revision_id, p.revision, d.name, p.sha256, p.contract_version, p.contract_digest, p.published_at, p.rows, p.diff,
           d.verdict -> 'reasons', p.rollups
    from ledger.publication p join ledger.delivery d using (delivery_id)
    where p.dataset = %s and p.state = 'published' and p.superseded_at is null order by p.day, p.part"""
_FEATURES = """
    select day, version_id, version, input_digest, rows, known_at, created_at from ledger.feature_version
    where view = %s and superseded_at is null order by day"""
# a supplier who is late (freshness.STALE_SUPPLIER) is no delivery that was refused
_OPEN = """
    select day, rule, message, occurrences, last_seen from ledger.incident
    where dataset = %s and state = 'open' and rule <> 'stale_supplier' order by day nulls first, last_seen"""


@dataclass(frozen=True)
class Published:
    """The current revision of one part of one day."""

    day: dt.date
    revision_id: int
    revision: int
    name: str
    sha256: str
    contract_version: str
    contract_digest: str
    published_at: dt.datetime
    rows: dict[str, int]
    diff: dict[str, Any] | None
    reasons: dict[str, int] | None
    rollups: dict[str, str]  # name -> digest of the SQL that rolled it up


def _within(facts: Iterable[DayFact], days: Iterable[dt.date] | None) -> list[DayFact]:
    if days is None:
        return list(facts)
    wanted = {day.isoformat() for day in days}
    return [fact for fact in facts if fact.day in wanted]


def _joined(parts: Iterable[object]) -> str:
    """A version from several: the part itself when there is one, else a digest."""
    texts = [str(part) for part in parts]
    return texts[0] if len(texts) == 1 else hashlib.sha256(",".join(texts).encode()).hexdigest()[:16]


def landed(
    conn: psycopg.Connection, pipeline: str, days: Iterable[dt.date] | None = None, *, dated: bool = True
) -> list[DayFact]:
    """What arrived, per day, whatever became of it. ``dated`` is False where files count for their day of arrival."""

    def facts() -> Iterator[DayFact]:
        rows = conn.execute(_LANDED.encode(), (pipeline, not dated)).fetchall()
        for day, group in groupby(rows, key=lambda row: row[0]):
            arrivals = list(group)
            newest = arrivals[-1]
            yield DayFact(
                day.isoformat(),
                _joined(row[3][:16] for row in arrivals),
                {
                    "file": newest[2],
                    "sha256": newest[3],
                    "bytes": sum(row[4] for row in arrivals),
                    "deliveries": len(arrivals),
                    "state": newest[5],
                    "received at": newest[6].isoformat(timespec="seconds"),
                },
            )

    return _within(facts(), days)


def published(conn: psycopg.Connection, dataset: str) -> list[Published]:
    """The current revision of every part of every published day, in order."""
    return [Published(*row) for row in conn.execute(_CURRENT.encode(), (dataset,)).fetchall()]


def published_days(conn: psycopg.Connection, dataset: str) -> list[str]:
    """The ISO days that readers see: what automation asks."""
    return sorted({row.day.isoformat() for row in published(conn, dataset)})


def clean_facts(rows: Iterable[Published], days: Iterable[dt.date] | None = None) -> list[DayFact]:
    """Facts of the cleaned lines (and, with the same versions, of what is rolled up from them)."""

    def facts() -> Iterator[DayFact]:
        for day, group in groupby(rows, key=lambda row: row.day):
            parts = list(group)
            metadata: dict[str, Any] = {
                "dagster/partition_row_count": sum(p.rows.get("good", 0) for p in parts),
                "rows read": sum(p.rows.get("read", 0) for p in parts),
                "rows quarantined": sum(p.rows.get("quarantined", 0) for p in parts),
                "duplicates collapsed": sum(p.rows.get("duplicates", 0) for p in parts),
                "revision": max(p.revision for p in parts),
                "file": ", ".join(p.name for p in parts)[:500],
                "contract version": parts[-1].contract_version,
                "published at": parts[-1].published_at.isoformat(timespec="seconds"),
            }
            if parts[-1].diff:
                metadata["changed against the previous revision"] = parts[-1].diff
            yield DayFact(day.isoformat(), _joined(f"r{p.revision_id}" for p in parts), metadata)

    return _within(facts(), days)


def rollup_facts(rows: Sequence[Published], rollup: str, days: Iterable[dt.date] | None = None) -> list[DayFact]:
    """A rollup is written in the transaction of its lines: same days; another version, too, when its SQL changed."""
    keep = ("revision", "file", "published at")
    by = {row.day.isoformat(): row.rollups.get(rollup, "") for row in rows}
    return [
        DayFact(fact.day, f"{fact.version}-{by[fact.day]}", {name: fact.metadata[name] for name in keep})
        for fact in clean_facts(rows, days)
    ]


def quarantine_facts(rows: Iterable[Published], days: Iterable[dt.date] | None = None) -> list[DayFact]:
    """Quarantined rows per day, by reason. A day without any is a fact too: nothing was quarantined."""

    def facts() -> Iterator[DayFact]:
        for day, group in groupby(rows, key=lambda row: row.day):
            parts = list(group)
            reasons: dict[str, int] = {}
            for part in parts:
                for rule, count in (part.reasons or {}).items():
                    reasons[rule] = reasons.get(rule, 0) + count
            total = sum(p.rows.get("quarantined", 0) for p in parts)
            yield DayFact(
                day.isoformat(),
                _joined(f"r{p.revision_id}" for p in parts),
                {"dagster/partition_row_count": total, "rules broken": reasons},
            )

    return _within(facts(), days)


def feature_facts(conn: psycopg.Connection, view: str, days: Iterable[dt.date] | None = None) -> list[DayFact]:
    """The current version of every day of a feature view."""
    rows = conn.execute(_FEATURES.encode(), (view,)).fetchall()
    return _within(
        (
            DayFact(
                day.isoformat(),
                f"v{version_id}",
                {
                    "dagster/partition_row_count": count,
                    "version": version,
                    "input digest": digest,
                    "known at": known.isoformat(timespec="seconds"),
                    "built at": created.isoformat(timespec="seconds"),
                },
            )
            for day, version_id, version, digest, count, known, created in rows
        ),
        days,
    )


def open_incidents(conn: psycopg.Connection, dataset: str) -> list[dict[str, Any]]:
    """What stopped deliveries and is not settled yet."""
    return [
        {"day": str(day or ""), "rule": rule, "message": message, "times": times, "last seen": str(seen)[:19]}
        for day, rule, message, times, seen in conn.execute(_OPEN.encode(), (dataset,)).fetchall()
    ]


def table_disagreements(conn: psycopg.Connection, dataset: str) -> list[dict[str, Any]]:
    """Days whose visible rows are not as many as the ledger says: somebody changed the table behind the ledger."""
    from psycopg import sql

    told: dict[int, tuple[dt.date, int]] = {
        p.revision_id: (p.day, p.rows.get("good", 0)) for p in published(conn, dataset)
    }
    if not told:
        return []
    query = sql.SQL("select _revision_id, count(*) from store.{} group by 1").format(sql.Identifier(dataset))
    seen = dict(conn.execute(query).fetchall())
    return [
        {"day": str(day), "ledger": rows, "table": seen.get(revision, 0)}
        for revision, (day, rows) in told.items()
        if seen.get(revision, 0) != rows
    ]

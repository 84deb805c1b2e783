"""Incidents as ledger rows: one open row per (contract, rule, partition or stream), counted when it happens again.

What goes here: opening, closing, listing. What does not: sending messages to people, remedies.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Incident:
    """What stopped a delivery or a stream. ``message`` teaches; it holds no value of a personal column.

    ``stream``: which one (:attr:`~ct_assets.adapters.stream.records.Stream.reading`), where it is not about a delivery.
    """

    pipeline: str
    dataset: str
    day: dt.date | None
    rule: str
    message: str
    contract: str
    delivery_id: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    stream: str | None = None

    @property
    def fingerprint(self) -> str:
        """Same contract, rule, and partition or stream: the same incident."""
        what = f"{self.contract}\0{self.rule}\0{self.day or ''}"
        return hashlib.sha256((f"{what}\0{self.stream}" if self.stream else what).encode()).hexdigest()[:32]


def report(conn: psycopg.Connection, incident: Incident) -> int:
    """Open the incident or count it once more; returns its id."""
    from psycopg.types.json import Jsonb

    row = conn.execute(
        "insert into ledger.incident as i (fingerprint, pipeline, dataset, day, rule, message, detail, delivery_id)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (fingerprint) where state = 'open' do update set"
        " occurrences = i.occurrences + 1, last_seen = clock_timestamp(), message = excluded.message,"
        " detail = excluded.detail, delivery_id = excluded.delivery_id returning incident_id",
        (
            incident.fingerprint,
            incident.pipeline,
            incident.dataset,
            incident.day,
            incident.rule,
            incident.message,
            Jsonb(incident.detail | ({"stream": incident.stream} if incident.stream else {})),
            incident.delivery_id,
        ),
    ).fetchone()
    assert row is not None
    return row[0]


def close(conn: psycopg.Connection, dataset: str, day: dt.date | None, delivery_id: int | None = None) -> int:
    """Close what was open for a partition, because a good delivery of it was published; returns how many.

    ``delivery_id``: only what that delivery opened, because it alone was found good (another may still be refused).
    """
    return conn.execute(
        "update ledger.incident set state = 'closed', closed_at = clock_timestamp()"
        " where dataset = %s and day is not distinct from %s and state = 'open'"
        " and (%s::bigint is null or delivery_id = %s)",
        (dataset, day, delivery_id, delivery_id),
    ).rowcount


def settle(conn: psycopg.Connection, dataset: str, rules: Sequence[str], stream: str, pipeline: str) -> int:
    """Close a stream's incidents of these rules, because their cause is over; returns how many were open.

    Also those of a stream that the definition named ``pipeline`` was read from before: with a changed contract, or moved to
    another topic, it goes on here. Those that name no stream were opened before incidents did.
    """
    return conn.execute(
        "update ledger.incident set state = 'closed', closed_at = clock_timestamp()"
        " where dataset = %s and rule = any(%s) and state = 'open'"
        " and (coalesce(detail->>'stream', %s) = %s or pipeline = %s)",
        (dataset, list(rules), stream, stream, pipeline),
    ).rowcount


def open_incidents(conn: psycopg.Connection, pipeline: str | None = None) -> list[dict[str, Any]]:
    """Open incidents, oldest first."""
    from psycopg.rows import dict_row

    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select incident_id, pipeline, dataset, day, rule, message, occurrences, first_seen, last_seen, delivery_id"
            " from ledger.incident where state = 'open' and (%s::text is null or pipeline = %s) order by incident_id",
            (pipeline, pipeline),
        ).fetchall()

"""The ledger's rows: deliveries, publications, plans. One function a statement, on a connection somebody else owns.

What goes here: SQL on ``ledger.*`` that more than one caller needs. What does not: transactions (the caller's),
incidents (``incidents``), models (``models``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import psycopg


class Judge(NamedTuple):
    """What gives a verdict: the same bytes under the same contract and code have the same one."""

    contract_digest: str | None
    code_version: str | None


@dataclass(frozen=True)
class Delivery:
    """One delivery: bytes for a day. ``state``: pending, published, held (waits for approval) or rejected.

    ``contract_digest`` and ``code_version``: by which its verdict was given, None before.
    """

    delivery_id: int
    pipeline: str
    name: str
    sha256: str
    bytes: int
    day: dt.date | None
    state: str
    received_at: dt.datetime
    verdict: dict[str, Any] | None = None
    contract_digest: str | None = None
    code_version: str | None = None

    @property
    def key(self) -> str:
        """Storage key of the raw bytes."""
        return raw_key(self.sha256)


@dataclass(frozen=True)
class Publication:
    """One revision of a day (and part) of a dataset."""

    revision_id: int
    pipeline: str
    dataset: str
    day: dt.date
    part: str
    revision: int
    state: str
    delivery_id: int
    sha256: str
    contract_digest: str
    contract_version: str
    code_version: str
    known_at: dt.datetime
    published_at: dt.datetime
    superseded_at: dt.datetime | None
    rows: dict[str, int]
    diff: dict[str, Any] | None
    approved_by: str | None


_DELIVERY = (
    "delivery_id, pipeline, name, sha256, bytes, day, state, received_at, verdict - 'code_version',"
    " contract_digest, verdict ->> 'code_version'"
)
_PUBLICATION = ", ".join(Publication.__dataclass_fields__)


def raw_key(sha256: str) -> str:
    """Where raw bytes of that digest lie in storage."""
    return f"raw/{sha256[:2]}/{sha256}"


def delivery(conn: psycopg.Connection, delivery_id: int, *, lock: bool = False) -> Delivery | None:
    """One delivery; ``lock`` holds its row until the transaction ends."""
    query = f"select {_DELIVERY} from ledger.delivery where delivery_id = %s{' for update' if lock else ''}"
    row = conn.execute(query.encode(), (delivery_id,)).fetchone()
    return Delivery(*row) if row else None


def deliveries(conn: psycopg.Connection, pipeline: str, state: str | None = None) -> list[Delivery]:
    """Deliveries of a pipeline in the order of arrival, of one state or all."""
    query = f"select {_DELIVERY} from ledger.delivery where pipeline = %s and (%s::text is null or state = %s)"
    rows = conn.execute(f"{query} order by delivery_id".encode(), (pipeline, state, state)).fetchall()
    return [Delivery(*row) for row in rows]


def deliveries_of_day(conn: psycopg.Connection, pipeline: str, day: dt.date) -> list[Delivery]:
    """Deliveries for one business day in the order of arrival, decided or not."""
    query = f"select {_DELIVERY} from ledger.delivery where pipeline = %s and day = %s order by delivery_id"
    return [Delivery(*row) for row in conn.execute(query.encode(), (pipeline, day)).fetchall()]


def delivered_days(conn: psycopg.Connection, pipeline: str) -> list[dt.date]:
    """Business days that something was delivered for, whatever became of it; the day of arrival of undated files."""
    rows = conn.execute(
        "select distinct coalesce(day, (received_at at time zone 'UTC')::date) from ledger.delivery"
        " where pipeline = %s order by 1",
        (pipeline,),
    )
    return [row[0] for row in rows]


def decide(conn: psycopg.Connection, delivery_id: int, state: str, judge: Judge, verdict: dict[str, Any]) -> None:
    """Record what became of a delivery and by which contract and code, at the database's time."""
    from psycopg.types.json import Jsonb

    by_code = Jsonb(verdict | {"code_version": judge.code_version})
    conn.execute(
        "update ledger.delivery set state = %s, contract_digest = %s, verdict = %s, decided_at = clock_timestamp(),"
        " fence = fence + 1 where delivery_id = %s",
        (state, judge.contract_digest, by_code, delivery_id),
    )


def current(conn: psycopg.Connection, dataset: str, day: dt.date, part: str = "") -> Publication | None:
    """The revision that readers see, if any."""
    return _one(
        conn,
        "dataset = %s and day = %s and part = %s and state = 'published' and superseded_at is null",
        (dataset, day, part),
    )


def publication(conn: psycopg.Connection, revision_id: int) -> Publication | None:
    """The publication of that id, whatever its state."""
    return _one(conn, "revision_id = %s", (revision_id,))


def publication_of(conn: psycopg.Connection, delivery_id: int) -> Publication | None:
    """The newest publication made from a delivery (F02: what a run reports again after a crash)."""
    return _one(conn, "delivery_id = %s", (delivery_id,))


def history(conn: psycopg.Connection, dataset: str, day: dt.date) -> list[Publication]:
    """All revisions of a day, oldest first."""
    query = f"select {_PUBLICATION} from ledger.publication where dataset = %s and day = %s order by part, revision"
    return [Publication(*row) for row in conn.execute(query.encode(), (dataset, day)).fetchall()]


def published_days(conn: psycopg.Connection, dataset: str) -> list[dt.date]:
    """Days that readers see, in order."""
    rows = conn.execute(
        "select distinct day from ledger.publication where dataset = %s and state = 'published' and superseded_at is null"
        " order by day",
        (dataset,),
    )
    return [row[0] for row in rows]


def next_revision(conn: psycopg.Connection, dataset: str, day: dt.date, part: str) -> int:
    """The number after the last one ever used for this day, held and withdrawn ones included."""
    row = conn.execute(
        "select coalesce(max(revision), 0) + 1 from ledger.publication where dataset = %s and day = %s and part = %s",
        (dataset, day, part),
    ).fetchone()
    assert row is not None
    return row[0]


def _one(conn: psycopg.Connection, where: str, values: tuple[Any, ...]) -> Publication | None:
    query = f"select {_PUBLICATION} from ledger.publication where {where} order by revision_id desc limit 1"
    row = conn.execute(query.encode(), values).fetchone()
    return Publication(*row) if row else None


# -- plans of partitions to rebuild (F41) ----------------------------------------------------------------------------


def plan(conn: psycopg.Connection, plan_id: str, pipeline: str, steps: Iterable[tuple[str, str]]) -> int:
    """Write down (step, partition) pairs to do; those planned already keep their state. Returns how many are new."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into ledger.run_plan (plan_id, pipeline, step, partition) values (%s, %s, %s, %s) on conflict do nothing",
            [(plan_id, pipeline, step, partition) for step, partition in steps],
        )
        return cursor.rowcount


def open_steps(conn: psycopg.Connection, plan_id: str) -> list[tuple[str, str, str]]:
    """(step, partition, state) of what is not done: only these are resumed."""
    return conn.execute(
        "select step, partition, state from ledger.run_plan where plan_id = %s and state <> 'done' order by step, partition",
        (plan_id,),
    ).fetchall()


def settle(conn: psycopg.Connection, plan_id: str, step: str, partition: str, failure: str | None = None) -> None:
    """Mark a planned step done, or failed with a message."""
    conn.execute(
        "update ledger.run_plan set state = %s, message = %s, attempts = attempts + 1, updated_at = clock_timestamp()"
        " where plan_id = %s and step = %s and partition = %s",
        ("done" if failure is None else "failed", failure, plan_id, step, partition),
    )

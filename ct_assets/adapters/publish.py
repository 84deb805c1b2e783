"""Write, audit, publish: one delivery becomes one revision of its day, in one transaction with its ledger row.

What goes here: the order of that transaction, approval, replay. What does not: rules about rows (``ingest``), DDL
(``tables``), the steps themselves (``rows``, ``revision``).

Readers see the old revision until the commit and the new one after it; a crash, a full disk or a lost connection at any
point in between leaves the old one and nothing else. Rows are staged in their final table under a revision id that no
view shows yet, so there is no second write and no staging table to clean up.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.adapters import incidents, ledger, tables
from ct_assets.adapters.attempt import Attempt, AuditFailed, Rejected, Unchanged
from ct_assets.adapters.crash import Crash, crash_at
from ct_assets.adapters.datasets import PublishedDataset
from ct_assets.adapters.ledger import Delivery, Publication
from ct_assets.adapters.postgres.connect import connect, with_retry
from ct_assets.adapters.postgres.migrate import prepared_url
from ct_assets.adapters.revision import compare, record, shown, summarise_index, supersede, unchanged
from ct_assets.adapters.rollups import build_again, roll_up
from ct_assets.adapters.rows import copy_rows
from ct_assets.adapters.storage import Storage, open_storage
from ct_assets.errors import CtError, UsageError
from ct_assets.settings import Settings

if TYPE_CHECKING:
    import psycopg

    from ct_assets.contracts.model import DatasetSchema
    from ct_assets.ingest.verdict import FileVerdict


@dataclass(frozen=True)
class Decision:
    """What became of a delivery. ``fresh`` is False when an earlier attempt had decided it already."""

    delivery: Delivery
    state: str  # published | held | rejected
    fresh: bool
    verdict: dict[str, Any]
    publication: Publication | None = None
    incident_id: int | None = None
    unchanged: bool = False  # judged again, and every row, quarantined row and rollup is as published


def publish_delivery(
    settings: Settings,
    dataset: PublishedDataset,
    delivery: Delivery,
    *,
    again: bool = False,
    crash: Crash | None = None,
) -> Decision:
    """Judge the delivery's bytes under ``dataset``'s contract and publish, hold or reject it. Idempotent.

    ``again`` judges a delivery that was decided before once more, unless contract and code are the same as then (replay
    after a fix). When the result is what readers see already, no revision is written: the ledger notes the judgement.
    A broken connection is retried a few times, each time from the start of the transaction.
    Raises :class:`tables.TableConflict`, :class:`AuditFailed`, ``StorageError``, ``DatabaseUnreachable``.
    """
    storage = open_storage(settings)
    act = crash or crash_at(settings.crash_at)

    def once() -> Decision:
        # asked for each time: an embedded server that was killed is started again
        with connect(prepared_url(settings), autocommit=True) as conn:
            tables.ensure_tables(conn, dataset)
            build_again(conn, dataset)  # rows go into a rollup's table by position: it must be made by the same SQL
            return _publish(Attempt(conn, dataset, delivery, act), storage, again)

    return with_retry(once)


def _publish(attempt: Attempt, storage: Storage, again: bool) -> Decision:
    try:
        with attempt.conn.transaction():
            known = _lock(attempt, again)
            if known is not None:
                return known
            attempt.crash("locked")
            decision = _write(attempt, storage)
        attempt.crash("committed")
    except Rejected as rejected:
        decision = _reject(attempt, rejected.verdict)
        attempt.crash("rejected")
    except Unchanged as same:
        decision = _keep(attempt, same)
    return decision


def _lock(attempt: Attempt, again: bool) -> Decision | None:
    """One publisher of a day at a time (F37). The loser finds the delivery decided and does nothing."""
    conn = attempt.conn
    conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", ("|".join(map(str, attempt.place)),))
    found = ledger.delivery(conn, attempt.delivery.delivery_id, lock=True)
    if found is None:
        raise AuditFailed(f"delivery {attempt.delivery.delivery_id} ({attempt.delivery.name}) is not in the ledger")
    attempt.delivery = found
    if found.state == "pending":
        return None
    publication = ledger.publication_of(conn, found.delivery_id)
    if again and _could_differ(attempt, publication):
        return None
    if again and publication is not None and publication.state == "published":
        incidents.close(conn, attempt.dataset.name, found.day, found.delivery_id)  # of a replay under another contract
    return Decision(found, found.state, False, found.verdict or {}, publication)


def _could_differ(attempt: Attempt, publication: Publication | None) -> bool:
    """Whether judging the same bytes again could give another result: another contract or other code."""
    if publication is None:
        return True
    delivery = attempt.delivery
    return (delivery.contract_digest, delivery.code_version or publication.code_version) != attempt.judge


def _write(attempt: Attempt, storage: Storage) -> Decision:
    row = attempt.conn.execute("select nextval('ledger.revision_id')").fetchone()
    assert row is not None
    attempt.revision_id = row[0]
    verdict = copy_rows(attempt, storage)
    if verdict.good:
        summarise_index(attempt, verdict.good)
    roll_up(attempt)
    attempt.crash("rolled_up")
    previous = ledger.current(attempt.conn, *attempt.place)
    diff = compare(attempt, previous) if previous is not None else None
    attempt.crash("compared")
    if previous is not None and diff is not None and unchanged(attempt, verdict, previous, diff):
        raise Unchanged(verdict, previous)
    publication = record(attempt, verdict, diff)
    if publication.state == "published":
        incidents.close(attempt.conn, attempt.dataset.name, attempt.delivery.day, _replaced(attempt, previous))
    attempt.crash("recorded")
    return Decision(attempt.delivery, publication.state, True, shown(verdict), publication)


def _replaced(attempt: Attempt, previous: Publication | None) -> int | None:
    """The delivery, when its own revision is replaced: that says nothing about another one that was refused."""
    own = previous is not None and previous.delivery_id == attempt.delivery.delivery_id
    return attempt.delivery.delivery_id if own else None


def _keep(attempt: Attempt, same: Unchanged) -> Decision:
    """What was staged is gone again; by what the delivery was judged is noted, and what it had opened is over."""
    conn, delivery, stays = attempt.conn, attempt.delivery, same.publication
    with conn.transaction():
        ledger.decide(conn, delivery.delivery_id, stays.state, attempt.judge, shown(same.verdict))
        incidents.close(conn, attempt.dataset.name, delivery.day, delivery.delivery_id)
    return Decision(delivery, stays.state, False, shown(same.verdict), stays, unchanged=True)


def _reject(attempt: Attempt, verdict: FileVerdict) -> Decision:
    """Nothing of a rejected delivery stays but its verdict and an incident."""
    rejection = verdict.rejected
    assert rejection is not None
    dataset = attempt.dataset
    incident = _incident(dataset.name, dataset.schema, attempt.delivery, (rejection.rule, rejection.message))
    incident.detail.update(line=rejection.line, reasons=dict(verdict.reasons))
    conn = attempt.conn
    with conn.transaction():
        found = ledger.delivery(conn, attempt.delivery.delivery_id, lock=True)
        if found is not None and found.state == "rejected" and found.verdict == shown(verdict):
            return Decision(found, "rejected", False, found.verdict or {})
        if found is not None and found.state == "pending":
            ledger.decide(conn, found.delivery_id, "rejected", attempt.judge, shown(verdict))
        incident_id = incidents.report(conn, incident)
    return Decision(attempt.delivery, "rejected", True, shown(verdict), incident_id=incident_id)


def reject_unread(
    conn: psycopg.Connection, dataset: str, schema: DatasetSchema, delivery: Delivery, message: str
) -> None:
    """Reject a delivery for its day alone (rule ``day_out_of_range``); its bytes are kept and not read."""
    from ct_assets.ingest.verdict import FileVerdict, Rejection

    verdict = FileVerdict(delivery.name, delivery.sha256, rejected=Rejection("day_out_of_range", 0, message))
    verdict.day = delivery.day
    with conn.transaction():
        found = ledger.delivery(conn, delivery.delivery_id, lock=True)
        if found is not None and found.state == "pending":
            ledger.decide(conn, delivery.delivery_id, "rejected", ledger.Judge(schema.digest, None), shown(verdict))
            incidents.report(conn, _incident(dataset, schema, delivery, ("day_out_of_range", message)))


def _incident(dataset: str, schema: DatasetSchema, delivery: Delivery, what: tuple[str, str]) -> incidents.Incident:
    rule, message = what
    return incidents.Incident(
        pipeline=delivery.pipeline,
        dataset=dataset,
        day=delivery.day,
        rule=rule,
        message=message,
        contract=schema.contract_id or dataset,
        delivery_id=delivery.delivery_id,
        detail={"file": delivery.name},
    )


class OutOfDate(CtError):
    """A held revision is older than what readers see: publishing it would put older data in front."""


def approve(settings: Settings, pipeline: str, revision_id: int, by: str) -> Publication:
    """Make a held revision of ``pipeline`` the current one of its day; known from now on.

    Approved once more while readers see it, it is returned as it is. Raises :class:`UsageError` when the revision does
    not wait, :class:`OutOfDate` when readers see a newer one of that day.
    """
    with connect(prepared_url(settings)) as conn, conn.transaction():
        found = _of_pipeline(conn, pipeline, revision_id)
        place = (found.dataset, found.day, found.part)
        conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", ("|".join(map(str, place)),))
        found, current = _of_pipeline(conn, pipeline, revision_id), ledger.current(conn, *place)
        if found.approved_by is not None and current is not None and current.revision_id == revision_id:
            return found
        _check_waits(found, current)
        supersede(conn, place)
        conn.execute(
            "update ledger.publication set state = 'published', approved_by = %s, published_at = t.at, known_at = t.at"
            " from (select clock_timestamp() as at) t where revision_id = %s",
            (by, revision_id),
        )
        conn.execute("update ledger.delivery set state = 'published' where delivery_id = %s", (found.delivery_id,))
        delivery = ledger.delivery(conn, found.delivery_id)
        assert delivery is not None
        incidents.close(conn, found.dataset, delivery.day)
        return _of_pipeline(conn, pipeline, revision_id)


def _of_pipeline(conn: psycopg.Connection, pipeline: str, revision_id: int) -> Publication:
    found = ledger.publication(conn, revision_id)
    if found is None or found.pipeline != pipeline:
        raise UsageError(
            f"no revision {revision_id} of pipeline {pipeline} is waiting for approval"
            + (f": it is of pipeline {found.pipeline}" if found else ""),
            hint="`ct status` lists those that are",
        )
    return found


def _check_waits(found: Publication, current: Publication | None) -> None:
    """Refuse a revision that was never held, and one that is older than what readers see."""
    name = f"revision {found.revision} of {found.dataset} {found.day}"
    if found.state != "held":
        how = f"approved by {found.approved_by}" if found.approved_by else "published without waiting"
        since = f", and replaced {found.superseded_at:%Y-%m-%d %H:%M}" if found.superseded_at else ""
        raise UsageError(
            f"{name} is not waiting for approval: it was {how}{since}", hint="`ct status` lists those that are"
        )
    if current is not None and current.revision > found.revision:
        raise OutOfDate(
            f"{name} is older than revision {current.revision}, which readers see since {current.published_at:%Y-%m-%d %H:%M}",
            hint=f"approving it would put older data in front: `ct deliver --pipeline {found.pipeline} --restore"
            f" {found.delivery_id}` does that knowingly; nothing was changed",
        )


def replay(
    settings: Settings, dataset: PublishedDataset, day: dt.date, *, crash: Crash | None = None
) -> list[Decision]:
    """Judge the stored bytes of a day again under the present contract: a new revision where that differs.

    What is judged again: the deliveries behind the current revisions, or, where the day has none, its last delivery
    (rejected then). Running it twice changes nothing the second time.
    """
    with connect(prepared_url(settings)) as conn:
        chosen = _behind(conn, dataset, day)
        known = [] if chosen else ledger.delivered_days(conn, dataset.pipeline)
    if not chosen:
        near = ", ".join(map(str, sorted(sorted(known, key=lambda one: abs(one - day))[:3])))
        hint = f"delivered days: {known[0]} to {known[-1]}, nearest {near}" if known else "nothing was delivered yet"
        raise UsageError(f"nothing was delivered to {dataset.pipeline} for {day}", hint=hint)
    return [publish_delivery(settings, dataset, delivery, again=True, crash=crash) for delivery in chosen]


def _behind(conn: psycopg.Connection, dataset: PublishedDataset, day: dt.date) -> list[Delivery]:
    visible = [p for p in ledger.history(conn, dataset.name, day) if p.state == "published" and p.superseded_at is None]
    found = [ledger.delivery(conn, publication.delivery_id) for publication in visible]
    if not found:
        found = ledger.deliveries_of_day(conn, dataset.pipeline, day)[-1:]
    return [delivery for delivery in found if delivery is not None]

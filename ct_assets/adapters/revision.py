"""A staged revision becomes part of the ledger: comparison with the one before, the publication's row.

What goes here: SQL over staged rows, and the row that makes them visible. What does not: staging (``rows``), rollups
(``rollups``), the order of steps (``publish``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ct_assets.adapters import ledger, tables
from ct_assets.adapters.attempt import Attempt
from ct_assets.adapters.datasets import PublishedDataset
from ct_assets.adapters.ledger import Publication

if TYPE_CHECKING:
    import psycopg

    from ct_assets.ingest.verdict import FileVerdict


def summarise_index(attempt: Attempt, rows: int) -> None:
    """Let the BRIN index know the pages just written, so that the steps below need not scan the whole table."""
    if rows <= 500_000:  # a larger revision is most of what a scan would read anyway
        attempt.conn.execute(
            "select brin_summarize_new_values(%s::regclass)", (f'store."{attempt.dataset.name}_revision"',)
        )
    attempt.conn.execute("set local enable_seqscan = off")  # fresh tables have no statistics to choose by


def compare(attempt: Attempt, previous: Publication) -> dict[str, Any]:
    """What this revision changes: rows added and removed (as multisets); with a primary key also rows changed."""
    from psycopg import sql

    names = [c.name for c in tables.contract_columns(attempt.dataset)]
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in names)
    query = sql.SQL("select {} from store.{} where _revision_id = {}")
    table = sql.Identifier(attempt.dataset.name)
    new = query.format(columns, table, sql.Literal(attempt.revision_id))
    old = query.format(columns, table, sql.Literal(previous.revision_id))
    key = _key_columns(attempt.dataset)
    changed = sql.SQL("0")
    if key:
        changed = sql.SQL("(select count(*) from (select {0} from added intersect select {0} from removed) k)").format(
            sql.SQL(", ").join(sql.Identifier(name) for name in key)
        )
    row = attempt.conn.execute(
        sql.SQL(
            "with added as materialized ({new} except all {old}), removed as materialized ({old} except all {new})"
            " select (select count(*) from added), (select count(*) from removed), {changed}"
        ).format(new=new, old=old, changed=changed)
    ).fetchone()
    assert row is not None
    added, removed, both = row
    return {
        "previous_revision": previous.revision,
        "added": added - both,
        "removed": removed - both,
        "changed": both,
        "rows_before": previous.rows.get("good", 0),
    }


def unchanged(attempt: Attempt, verdict: FileVerdict, previous: Publication, diff: dict[str, Any]) -> bool:
    """Whether the same delivery gave ``previous`` and nothing staged differs from it: counts, rows with their lines,
    quarantined rows with their reasons, rollups."""
    if previous.delivery_id != attempt.delivery.delivery_id or previous.rows != verdict.rows:
        return False
    tables_of_it = [(f"store.{name}", "_revision_id") for name in _stored(attempt.dataset)]
    tables_of_it.append(("ledger.quarantined", "revision_id"))
    counted = diff["added"], diff["removed"], diff["changed"]
    return not any(counted) and not any(_differs(attempt, previous, *one) for one in tables_of_it)


def _stored(dataset: PublishedDataset) -> list[str]:
    return [dataset.name, *(rollup.name for rollup in dataset.rollups)]


def _differs(attempt: Attempt, previous: Publication, table: str, column: str) -> bool:
    """Whether the rows of both revisions in a table differ as multisets; as JSON, because a rollup may have any type."""
    from psycopg import sql

    query = sql.SQL("select to_jsonb(s) - {} from {} s where {} = {}")
    where = sql.Literal(column), sql.Identifier(*table.split(".")), sql.Identifier(column)
    new, old = (query.format(*where, sql.Literal(one)) for one in (attempt.revision_id, previous.revision_id))
    both = sql.SQL("select exists (({new} except all {old}) union all ({old} except all {new}))")
    return attempt.conn.execute(both.format(new=new, old=old)).fetchone() == (True,)


def _key_columns(dataset: PublishedDataset) -> list[str]:
    named = {c.name: c.physical_name or c.name for c in dataset.schema.columns}
    return [named.get(name, name) for name in dataset.schema.primary_key]


def record(attempt: Attempt, verdict: FileVerdict, diff: dict[str, Any] | None) -> Publication:
    """Write the publication's row (readers see the revision when this commits) and decide the delivery."""
    from psycopg.types.json import Jsonb

    conn, dataset = attempt.conn, attempt.dataset
    revision = ledger.next_revision(conn, *attempt.place)
    held = diff is not None and dataset.late_correction == "approve"
    state = "held" if held else "published"
    if not held:
        supersede(conn, attempt.place)
    conn.execute(
        "insert into ledger.publication (revision_id, pipeline, dataset, day, part, revision, state, delivery_id, sha256,"
        " contract_digest, contract_version, code_version, rows, diff, rollups, published_at, known_at)"
        " select %(revision_id)s, %(pipeline)s, %(dataset)s, %(day)s, %(part)s, %(revision)s, %(state)s, %(delivery_id)s,"
        " %(sha256)s, %(contract_digest)s, %(contract_version)s, %(code_version)s, %(rows)s, %(diff)s, %(rollups)s, t.at,"
        # a first revision counts as known at the end of its business day, however late history is delivered
        " case when %(revision)s = 1 then least(t.at, (%(day)s::date + 1)::timestamp at time zone %(zone)s) else t.at end"
        " from (select clock_timestamp() as at) t",
        {
            "revision_id": attempt.revision_id,
            "pipeline": dataset.pipeline,
            "dataset": dataset.name,
            "day": attempt.day,
            "part": attempt.part,
            "revision": revision,
            "state": state,
            "delivery_id": attempt.delivery.delivery_id,
            "sha256": attempt.delivery.sha256,
            "contract_digest": dataset.schema.digest,
            "contract_version": dataset.schema.version,
            "code_version": dataset.code_version,
            "rows": Jsonb(verdict.rows),
            "diff": None if diff is None else Jsonb(diff),
            "rollups": Jsonb({rollup.name: rollup.digest for rollup in dataset.rollups}),
            "zone": dataset.zone,
        },
    )
    ledger.decide(conn, attempt.delivery.delivery_id, state, attempt.judge, shown(verdict))
    found = ledger.publication(conn, attempt.revision_id)
    assert found is not None
    return found


def supersede(conn: psycopg.Connection, place: tuple[Any, ...]) -> None:
    """End the visibility of the current revision of (dataset, day, part)."""
    conn.execute(
        "update ledger.publication set superseded_at = clock_timestamp()"
        " where dataset = %s and day = %s and part = %s and state = 'published' and superseded_at is null",
        place,
    )


def shown(verdict: FileVerdict) -> dict[str, Any]:
    """The verdict as the ledger keeps it."""
    return verdict.as_json() | {"warnings": list(verdict.warnings), "day": verdict.day and verdict.day.isoformat()}

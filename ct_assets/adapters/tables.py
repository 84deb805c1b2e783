"""Physical tables made from contracts, and the views through which readers see published rows only.

What goes here: DDL derived from a contract and its rules of growth. What does not: rows (``publish``), the ledger's own
tables (migrations).

``store.<dataset>`` keeps every revision; ``clean.<dataset>`` and ``quarantine.<dataset>`` show the current one of each
day. A contract may gain optional columns; every other change of shape is refused with what somebody would have to do
knowingly (``reshape`` for a type).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, LiteralString, cast

from ct_assets.adapters.datasets import PublishedDataset, Rollup
from ct_assets.adapters.postgres.copy import CopyColumn
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

SYSTEM = (CopyColumn("_revision_id", "bigint", True), CopyColumn("_line", "bigint", True))
DDL_LOCK = 7_236_002


class TableConflict(CtError):
    """The contract no longer fits the table that earlier revisions are in."""


def contract_columns(dataset: PublishedDataset) -> list[CopyColumn]:
    """The contract's columns as the table names and types them."""
    return [CopyColumn(c.physical_name or c.name, c.postgres_type, c.required) for c in dataset.schema.columns]


def ensure_tables(conn: psycopg.Connection, dataset: PublishedDataset) -> None:
    """Make or grow table and views of ``dataset``; raises :class:`TableConflict`. Quick when nothing changed."""
    with conn.transaction():
        if _fits(shape_of(conn, dataset.name), dataset) and _exists(conn, "quarantine", dataset.name):
            return
        conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
        existing = shape_of(conn, dataset.name)
        if not existing:
            _create(conn, dataset)
        else:
            grow(conn, dataset, existing)
        make_views(conn, dataset)


def ensure_rollup(conn: psycopg.Connection, rollup: Rollup, statement: Composed) -> None:
    """Make table and view of a rollup from the columns that its SELECT gives (``statement``: parameters filled in)."""
    if _exists(conn, "clean", rollup.name):
        return
    conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
    make_rollup_table(conn, rollup.name, statement)
    _rollup_view(conn, rollup)


def make_rollup_table(conn: psycopg.Connection, name: str, statement: Composed) -> None:
    """An empty table with the columns that ``statement`` gives, unless it is there."""
    from psycopg import sql

    table = sql.Identifier(name)
    columns = sql.SQL("select null::bigint as _revision_id, q.* from ({}) q with no data").format(statement)
    conn.execute(sql.SQL("create table if not exists store.{} as {}").format(table, columns))
    index = sql.Identifier(f"{name}_revision")
    conn.execute(sql.SQL("create index if not exists {} on store.{} (_revision_id)").format(index, table))


def replace_rollup(conn: psycopg.Connection, rollup: Rollup, fresh: str) -> None:
    """The table ``store.<fresh>`` becomes the rollup's. The view keeps its grants unless a column went or changed its type.

    Raises psycopg's ``DependentObjectsStillExist`` when the view must go and another one reads it.
    """
    from psycopg import sql

    name = sql.Identifier(rollup.name)
    conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
    if _exists(conn, "clean", rollup.name):
        old, new = shape_of(conn, rollup.name), shape_of(conn, fresh)
        if list(new.items())[: len(old)] == list(
            old.items()
        ):  # only columns at the end: PostgreSQL replaces a view by these
            _rollup_view(conn, rollup, fresh)
        else:
            conn.execute(sql.SQL("drop view clean.{}").format(name))
    conn.execute(sql.SQL("drop table if exists store.{}").format(name))
    conn.execute(sql.SQL("alter table store.{} rename to {}").format(sql.Identifier(fresh), name))
    indexes = [sql.Identifier(f"{table}_revision") for table in (fresh, rollup.name)]
    conn.execute(sql.SQL("alter index store.{} rename to {}").format(*indexes))
    if not _exists(conn, "clean", rollup.name):
        _rollup_view(conn, rollup)


def _rollup_view(conn: psycopg.Connection, rollup: Rollup, table: str | None = None) -> None:
    """``clean.<rollup>`` shows what is published now; ``table``: of another name than the rollup's."""
    from psycopg import sql

    found = table or rollup.name
    columns = sql.SQL(", ").join(
        sql.SQL("s.{}").format(sql.Identifier(c)) for c in shape_of(conn, found) if c != "_revision_id"
    )
    query = sql.SQL("create or replace view clean.{} as select {} from store.{} s join ledger.publication p on {}")
    conn.execute(query.format(sql.Identifier(rollup.name), columns, sql.Identifier(found), sql.SQL(_CURRENT)))


_CURRENT: LiteralString = "p.revision_id = s._revision_id and p.state = 'published' and p.superseded_at is null"


def _create(conn: psycopg.Connection, dataset: PublishedDataset) -> None:
    from psycopg import sql

    name = sql.Identifier(dataset.name)
    # _revision_id first: the scan of one revision then reads one field of the rows it skips
    columns = [*SYSTEM, *contract_columns(dataset)]
    listed = sql.SQL(", ").join(_declared(column) for column in columns)
    conn.execute(sql.SQL("create table store.{} ({})").format(name, listed))
    # a BRIN index costs nothing while copying; rows of a revision lie together, so it finds them as well as a B-tree
    conn.execute(
        sql.SQL(
            "create index {} on store.{} using brin (_revision_id) with (pages_per_range = 8, autosummarize = on)"
        ).format(sql.Identifier(f"{dataset.name}_revision"), name)
    )
    if dataset.schema.description:
        conn.execute(sql.SQL("comment on table store.{} is {}").format(name, sql.Literal(dataset.schema.description)))


def _declared(column: CopyColumn) -> Composed:
    from psycopg import sql

    return sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(cast("LiteralString", column.postgres_type)))


def grow(conn: psycopg.Connection, dataset: PublishedDataset, existing: dict[str, str]) -> None:
    """Add what the contract gained to the table, which has the columns ``existing``; raises :class:`TableConflict`."""
    from psycopg import sql

    conflicts = []
    for column in contract_columns(dataset):
        if column.name not in existing:
            if column.required:
                conflicts.append(
                    f"{column.name} is new and required, but earlier revisions have no value: declare it optional"
                )
            else:
                conn.execute(
                    sql.SQL("alter table store.{} add column {}").format(
                        sql.Identifier(dataset.name), _declared(column)
                    )
                )
        elif not same_type(existing[column.name], column):
            conflicts.append(
                f"{column.name} is {existing[column.name]} in the table and {column.postgres_type} in the contract: "
                f"`ct db reshape --pipeline {dataset.pipeline}` changes it (a plan first)"
            )
    names = {column.name for column in (*SYSTEM, *contract_columns(dataset))}
    conflicts += [
        f"{name} is in the table and no longer in the contract: keep it there, not required and with mayBeAbsent: true if files lack it now"
        for name in existing.keys() - names
    ]
    if conflicts:
        raise TableConflict(
            f"the contract of {dataset.name} no longer fits table store.{dataset.name}; nothing was changed",
            hint="\n  ".join(sorted(conflicts)),
        )


def make_views(conn: psycopg.Connection, dataset: PublishedDataset) -> None:
    """Columns that the view has already stay where they are: PostgreSQL lets a view only grow at its end."""
    from psycopg import sql

    name = sql.Identifier(dataset.name)
    system: dict[str, LiteralString] = {
        "_line": "s._line",
        "_day": "p.day",
        "_revision": "p.revision",
        "_revision_id": "s._revision_id",
    }
    known = list(shape_of(conn, dataset.name, "clean"))
    wanted = [c.name for c in contract_columns(dataset)] + list(system)
    order = known + [column for column in wanted if column not in known]
    listed = [
        sql.SQL("{} as {}").format(sql.SQL(system[c]), sql.Identifier(c))
        if c in system
        else sql.SQL("s.{}").format(sql.Identifier(c))
        for c in order
    ]
    conn.execute(
        sql.SQL("create or replace view clean.{} as select {} from store.{} s join ledger.publication p on {}").format(
            name, sql.SQL(", ").join(listed), name, sql.SQL(_CURRENT)
        )
    )
    conn.execute(
        sql.SQL(
            "create or replace view quarantine.{} as select p.day, q.line as _line, q.raw as _raw, q.reasons as _reasons,"
            " d.name as file, p.sha256, p.revision as _revision, p.revision_id as _revision_id from ledger.quarantined q"
            " join ledger.publication p on p.revision_id = q.revision_id and p.state = 'published'"
            " and p.superseded_at is null and p.dataset = {} join ledger.delivery d using (delivery_id)"
        ).format(name, sql.Literal(dataset.name))
    )


def shape_of(conn: psycopg.Connection, name: str, schema: str = "store") -> dict[str, str]:
    """Column -> type of a table or view, in order; empty when it does not exist."""
    rows = conn.execute(
        "select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a"
        " where a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and a.attnum > 0 and not a.attisdropped"
        " order by a.attnum",
        (schema, name),
    ).fetchall()
    return dict(rows)


def _exists(conn: psycopg.Connection, schema: str, name: str) -> bool:
    row = conn.execute(
        "select to_regclass(format('%%I.%%I', %s::text, %s::text)) is not null", (schema, name)
    ).fetchone()
    return bool(row and row[0])


def _fits(existing: dict[str, str], dataset: PublishedDataset) -> bool:
    columns: Sequence[CopyColumn] = (*SYSTEM, *contract_columns(dataset))
    return existing.keys() == {c.name for c in columns} and all(same_type(existing[c.name], c) for c in columns)


def same_type(found: str, column: CopyColumn) -> bool:
    """Whether PostgreSQL's name of a type is the one that the contract wants."""

    def short(text: str) -> tuple[str, str]:
        kind = CopyColumn("", text).kind
        return kind, text.partition("(")[2].replace(" ", "")

    return short(found) == short(column.postgres_type)

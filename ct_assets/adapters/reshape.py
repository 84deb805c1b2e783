"""A published table follows its contract to other types: the plan, and the deed in one transaction.

What goes here: changing types of columns that revisions are in. What does not: new columns (``tables``), the SQL of a
rollup (``rollups``), values (the same before and after, or nothing is done).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, cast

from ct_assets.adapters import rollups, tables
from ct_assets.adapters.datasets import PublishedDataset
from ct_assets.adapters.tables import TableConflict

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

    from ct_assets.adapters.postgres.copy import CopyColumn

_GRANTS = """
    select case when a.grantee = 0 then null else pg_get_userbyid(a.grantee) end, a.privilege_type
    from pg_class c, aclexplode(c.relacl) a
    where c.oid = to_regclass(format('clean.%%I', %s::text)) and a.grantee <> c.relowner"""


@dataclass(frozen=True)
class Change:
    """One column of the table and the type that the contract has; ``problem``: why it cannot be given that."""

    column: str
    found: str
    wanted: str
    problem: str | None = None


def plan(conn: psycopg.Connection, dataset: PublishedDataset) -> list[Change]:
    """Columns of another type than in the contract, in its order; nothing is changed. Reads every row of these."""
    there = tables.shape_of(conn, dataset.name)
    wanted = [c for c in tables.contract_columns(dataset) if c.name in there]
    return [
        Change(c.name, there[c.name], c.postgres_type, _problem(conn, dataset, c, there[c.name]))
        for c in wanted
        if not tables.same_type(there[c.name], c)
    ]


def reshape(
    conn: psycopg.Connection, dataset: PublishedDataset, say: Callable[[str], None] = lambda _: None
) -> list[Change]:
    """Give the columns their new types, and make views and rollups of them anew; what was changed.

    Readers wait meanwhile. Raises :class:`TableConflict` (a value would change, somebody's view is in the way, or the
    contract differs in more than types), ``RollupInUse``, ``RollupFailed``: nothing is changed then.
    """
    from psycopg import sql

    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (tables.DDL_LOCK,))
        table = sql.SQL("store.{}").format(sql.Identifier(dataset.name))
        found = plan(conn, dataset)
        if not found:
            return found
        conn.execute(sql.SQL("lock table {}").format(table))
        found = plan(conn, dataset)  # nobody writes any more
        _refuse(dataset, found)
        grants = conn.execute(_GRANTS.encode(), (dataset.name,)).fetchall()
        _drop_view(conn, dataset)
        for change in found:
            column, kind = sql.Identifier(change.column), sql.SQL(cast("LiteralString", change.wanted))
            query = sql.SQL("alter table {0} alter column {1} type {2} using {1}::{2}")
            conn.execute(query.format(table, column, kind))
        tables.grow(conn, dataset, tables.shape_of(conn, dataset.name))
        tables.make_views(conn, dataset)
        _grant(conn, dataset, grants)
        # the same SQL over another type may give another type: rows would be rounded into the old table
        conn.execute("update ledger.publication set rollups = '{}' where dataset = %s", (dataset.name,))
        rollups.build_again(conn, dataset, say)
    return found


def _problem(conn: psycopg.Connection, dataset: PublishedDataset, column: CopyColumn, found: str) -> str | None:
    """Whether some value would not be the same after the way there and back. No value is shown: it may be personal."""
    import psycopg
    from psycopg import sql

    if "timestamp" in found or "timestamp" in column.postgres_type:
        return "moments are not converted, as a time zone changes what they mean"
    name, old, new = sql.Identifier(column.name), _type(found), _type(column.postgres_type)
    query = sql.SQL("select count(*) from store.{0} where {1} is distinct from {1}::{3}::{2}")
    try:
        with conn.transaction():
            row = conn.execute(query.format(sql.Identifier(dataset.name), name, old, new)).fetchone()
    except psycopg.DataError:
        return f"some values are no {column.postgres_type}"
    except psycopg.errors.CannotCoerce:
        return f"PostgreSQL makes no {column.postgres_type} of {found}"
    return f"{row[0]} values would change" if row and row[0] else None


def _type(name: str) -> Composed:
    from psycopg import sql

    return sql.Composed(
        [sql.SQL(cast("LiteralString", name))]
    )  # a type of the catalogue or of ``Column.postgres_type``


def _refuse(dataset: PublishedDataset, found: list[Change]) -> None:
    problems = [f"{c.column}, {c.found} -> {c.wanted}: {c.problem}" for c in found if c.problem]
    if problems:
        raise TableConflict(
            f"store.{dataset.name} cannot take the types of the contract; nothing was changed: {'; '.join(problems)}",
            hint="declare the values under a new column name, optional, and keep the old one with mayBeAbsent: true",
        )


def _drop_view(conn: psycopg.Connection, dataset: PublishedDataset) -> None:
    import psycopg
    from psycopg import sql

    try:
        conn.execute(sql.SQL("drop view if exists clean.{}").format(sql.Identifier(dataset.name)))
    except psycopg.errors.DependentObjectsStillExist as error:
        raise TableConflict(
            f"something that somebody made reads clean.{dataset.name}: {error.diag.message_detail}; nothing was changed",
            hint="drop that first and make it anew afterwards",
        ) from None


def _grant(conn: psycopg.Connection, dataset: PublishedDataset, grants: Iterable[tuple[str | None, str]]) -> None:
    from psycopg import sql

    for role, privilege in grants:
        to = sql.SQL("public") if role is None else sql.Identifier(role)
        query = sql.SQL("grant {} on clean.{} to {}")
        conn.execute(query.format(sql.SQL(cast("LiteralString", privilege)), sql.Identifier(dataset.name), to))

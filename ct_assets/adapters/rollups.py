"""Rollups: SQL over a revision's lines, written with the revision, and built anew for every revision when the SQL changed.

What goes here: rolling up one revision, which rollups are behind their SQL, building them again. What does not: the
table of a new rollup (``tables``), when to look (orchestration).

A rollup is a function of the published lines, so building it again loses nothing. It is done for every revision, the
replaced ones too (readings as known at a past moment use them), into a table beside the old one that takes its place
in one transaction: readers see the old figures until then. Publishers of the dataset wait meanwhile.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString, cast

from ct_assets.adapters import tables
from ct_assets.adapters.attempt import Attempt
from ct_assets.adapters.datasets import PublishedDataset, Rollup
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

_PARAMETER = re.compile(r"(?<!:):(revision_id|day)\b")
TIMEOUT = "10min"  # of one revision
_BEHIND = """
    select day, revision_id from ledger.publication
    where dataset = %s and rollups ->> %s is distinct from %s order by revision_id"""
_EVERY = "select day, revision_id from ledger.publication where dataset = %s order by revision_id"


class RollupFailed(CtError):
    """PostgreSQL refuses the SQL of a rollup, or it fails on the rows of a revision."""


class RollupInUse(CtError):
    """Something that somebody made depends on a column that the new SQL no longer gives."""


def roll_up(attempt: Attempt) -> dict[str, int]:
    """Write the rollups of this revision; rows written per rollup.

    A rollup runs as a sub-select, where PostgreSQL refuses anything that writes, and under a time limit.
    """
    written = {}
    _share(attempt.conn, attempt.dataset.name)
    _limit(attempt.conn, TIMEOUT)
    for rollup in attempt.dataset.rollups:
        statement = _filled(rollup, attempt.revision_id, attempt.day)
        with _named(rollup, attempt.day):
            tables.ensure_rollup(attempt.conn, rollup, statement)
            written[rollup.name] = _insert(attempt.conn, rollup.name, attempt.revision_id, statement)
    _limit(attempt.conn, "0")
    return written


def described(conn: psycopg.Connection, rollup: Rollup, day: dt.date) -> list[str]:
    """Names of the columns that the rollup's SELECT gives; it reads no row."""
    from psycopg import sql

    cursor = conn.execute(sql.SQL("select * from ({}) q limit 0").format(_filled(rollup, 0, day)))
    return [column.name for column in cursor.description or ()]


def days_behind(conn: psycopg.Connection, dataset: PublishedDataset) -> dict[str, list[dt.date]]:
    """Rollup -> days with a revision that was rolled up by other SQL, or not at all; without those that are up to date."""
    found = {
        r.name: conn.execute(_BEHIND.encode(), (dataset.name, r.name, r.digest)).fetchall() for r in dataset.rollups
    }
    return {name: sorted({day for day, _ in rows}) for name, rows in found.items() if rows}


def build_again(
    conn: psycopg.Connection, dataset: PublishedDataset, say: Callable[[str], None] = lambda _: None
) -> list[dt.date]:
    """Build every rollup that is behind its SQL, all in one transaction; the days with other figures now. Idempotent.

    Raises :class:`RollupInUse` and :class:`RollupFailed`; nothing is changed then.
    """
    if not days_behind(conn, dataset):
        return []
    with conn.transaction():
        _lock(conn, dataset.name)
        behind = days_behind(conn, dataset)  # another process may have done it while this one waited
        every = conn.execute(_EVERY.encode(), (dataset.name,)).fetchall()
        for rollup in dataset.rollups:
            if rollup.name in behind:
                say(f"{rollup.name}: its SQL changed, rolling up {len(every)} revisions again")
                _replace(conn, rollup, every)
                conn.execute(
                    "update ledger.publication set rollups = rollups || jsonb_build_object(%s::text, %s::text) where dataset = %s",
                    (rollup.name, rollup.digest, dataset.name),
                )
    return sorted({day for days in behind.values() for day in days})


def _replace(conn: psycopg.Connection, rollup: Rollup, revisions: Iterable[tuple[dt.date, int]]) -> None:
    """A new table with the rollup of every revision takes the old one's place, and the view's."""
    fresh = f"ct_fresh_{rollup.digest}"
    _limit(conn, TIMEOUT)
    for number, (day, revision_id) in enumerate(revisions):
        statement = _filled(rollup, revision_id, day)
        with _named(rollup, day):
            if number == 0:
                tables.make_rollup_table(conn, fresh, statement)
            _insert(conn, fresh, revision_id, statement)
    _limit(conn, "0")
    import psycopg

    try:
        tables.replace_rollup(conn, rollup, fresh)
    except psycopg.errors.DependentObjectsStillExist as error:
        raise RollupInUse(
            f"clean.{rollup.name} loses or changes columns, and something depends on it: {error.diag.message_detail}",
            hint=f"drop that first and make it anew afterwards, or keep the columns in {rollup.name}.sql; nothing was changed",
        ) from None


@contextmanager
def _named(rollup: Rollup, day: dt.date) -> Iterator[None]:
    """An error of the SQL says whose it is; a lost connection or a timeout stays what it is, so that it is retried."""
    import psycopg

    try:
        yield
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.InternalError, psycopg.IntegrityError) as error:
        raise RollupFailed(
            f"rollup {rollup.name}, day {day}: {str(error).strip()}",
            hint=f"mend {rollup.name}.sql; `ct psql` tries a SELECT. Nothing was changed",
        ) from error


def _insert(conn: psycopg.Connection, table: str, revision_id: int, statement: Composed) -> int:
    from psycopg import sql

    return conn.execute(
        sql.SQL("insert into store.{} select {}::bigint, q.* from ({}) q").format(
            sql.Identifier(table), sql.Literal(revision_id), statement
        )
    ).rowcount


def _limit(conn: psycopg.Connection, timeout: str) -> None:
    from psycopg import sql

    conn.execute(sql.SQL("set local statement_timeout = {}").format(sql.Literal(timeout)))


def _share(conn: psycopg.Connection, dataset: str) -> None:
    """Publishers roll up side by side, but not while a rollup is built again."""
    conn.execute("select pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", (f"rollups|{dataset}",))


def _lock(conn: psycopg.Connection, dataset: str) -> None:
    conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"rollups|{dataset}",))


def _filled(rollup: Rollup, revision_id: int, day: dt.date) -> Composed:
    """The SQL with ``:revision_id`` and ``:day`` as literals (DDL takes no parameters)."""
    from psycopg import sql

    values = {"revision_id": revision_id, "day": day}
    body = cast("LiteralString", rollup.sql.rstrip().rstrip(";"))  # a file of the checkout, like code
    pieces, at = [], 0
    for match in _PARAMETER.finditer(body):
        pieces += [sql.SQL(body[at : match.start()]), sql.Literal(values[match[1]])]
        at = match.end()
    return sql.Composed([*pieces, sql.SQL(f"{body[at:]}\n")])  # the last line may be a comment

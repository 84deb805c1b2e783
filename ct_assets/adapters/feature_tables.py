"""Feature views as tables: one version a day, whole or not at all; which days are stale.

What goes here: the tables, writing days, reading them as known at an instant. What does not: computing features
(``features.daily``), when to build (orchestration).

A build is one transaction (F36): rows of the new versions, their rows in ``ledger.feature_version``, and the end of the
versions before. Readers of ``feature.<view>`` see a day's old rows until the commit. A version pins the digest of what it was
made from: revisions, the SQL that rolled them up, the view's definition and the code of ``ct_assets.features``. A day
is stale when that is another digest now, so an edited function rebuilds every day once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, LiteralString, cast

from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.datasets import features_code, identifier
from ct_assets.adapters.postgres.copy import SIGNATURE, TRAILER, CopyColumn, copy_order, encode
from ct_assets.adapters.training_data import SALES, SalesTables, Window, read_sales
from ct_assets.errors import CtError
from ct_assets.features.spec import PRODUCT_DAILY, FeatureView

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    from psycopg.sql import Composed

    from ct_assets.features.panel import Panel

_VERSION = CopyColumn("version_id", "bigint", True)
_DDL_LOCK = 7_236_004
_DAYS_AT_ONCE = 30  # rows of so many days are in memory at a time: about 90,000


class InputsMoved(CtError):
    """The published rows changed between reading and committing."""


@dataclass(frozen=True)
class FeatureSource:
    """Which view is built from which published tables; ``zone``: in which the business day ends; ``code``: digest of the
    functions (``code_version`` is only noted with a version)."""

    view: FeatureView = PRODUCT_DAILY
    tables: SalesTables = SALES
    zone: str = "UTC"
    code_version: str | None = None
    code: str = field(default_factory=features_code)


def stale_days(conn: psycopg.Connection, source: FeatureSource) -> list[dt.date]:
    """Published days whose features are missing or were made from other revisions, by another definition or other code;
    in order."""
    digests = input_digests(conn, source)
    rows = conn.execute(
        "select day, input_digest from ledger.feature_version where view = %s and superseded_at is null",
        (source.view.name,),
    ).fetchall()
    built = dict(rows)
    return [day for day, (digest, _) in digests.items() if built.get(day) != digest]


def input_digests(conn: psycopg.Connection, source: FeatureSource) -> dict[dt.date, tuple[str, dt.datetime]]:
    """Per published day: the digest of the view, the code, the revisions its look-back holds and the SQL that rolled them
    up; and when the last of them became known."""
    rows = conn.execute(
        """select day, part, revision_id, known_at, rollups ->> %s from ledger.publication
           where dataset = %s and state = 'published' and superseded_at is null order by day, part""",
        (source.tables.daily, source.tables.lines),
    ).fetchall()
    found: dict[dt.date, tuple[str, dt.datetime]] = {}
    begin = 0
    for day in sorted({row[0] for row in rows}):
        earliest = day - dt.timedelta(days=source.view.lookback_days)
        while rows[begin][0] < earliest:
            begin += 1
        state, known = hashlib.sha256(f"{source.view.digest}{source.code}".encode()), rows[begin][3]
        for row in rows[begin:]:
            if row[0] > day:
                break
            state.update(f"{row[0]} {row[1]} {row[2]} {row[4]}\n".encode())
            known = max(known, row[3])
        found[day] = (state.hexdigest(), known)
    return found


def build(
    conn: psycopg.Connection, url: str, source: FeatureSource, days: Iterable[dt.date], crash: Crash = no_crash
) -> dict[dt.date, int]:
    """Build and publish the features of ``days`` that are published and stale, in one transaction; rows per day built.

    ``url`` is that of the same database (the bulk read has a connection of its own). Idempotent: days that are up to
    date are left alone. Two builders: the second waits and finds nothing to do.
    """
    with conn.transaction():
        ensure_tables(conn, source)
        conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"features:{source.view.name}",))
        wanted = set(days)
        todo = [day for day in stale_days(conn, source) if day in wanted]
        if not todo:
            return {}
        digests = input_digests(conn, source)
        panel = _panel(url, source, todo)
        written: dict[dt.date, int] = {}
        for start in range(0, len(todo), _DAYS_AT_ONCE):
            part = todo[start : start + _DAYS_AT_ONCE]
            written |= _write(conn, source, panel, {day: digests[day] for day in part})
            crash("features_written")
        after = input_digests(conn, source)
        if any(after.get(day) != digests[day] for day in todo):
            raise InputsMoved(
                f"a revision was published while features of {source.view.name} were computed; nothing was changed",
                hint="run again: the days that changed are built then",
            )
        crash("features_complete")
    return written


def _panel(url: str, source: FeatureSource, days: Sequence[dt.date]) -> Panel:
    from ct_assets.features.panel import build_panel

    first = min(days) - dt.timedelta(days=source.view.lookback_days)
    sales = read_sales(url, Window(first, max(days), "corrected"), source.tables)
    return build_panel(sales.daily, sales.lines, open_days=days)


def _write(
    conn: psycopg.Connection, source: FeatureSource, panel: Panel, days: dict[dt.date, tuple[str, dt.datetime]]
) -> dict[dt.date, int]:
    import polars as pl
    from psycopg import sql

    from ct_assets.features.daily import feature_rows

    frame = feature_rows(panel, list(days), source.view)
    counts = {day: 0 for day in days} | dict(frame.group_by("day").len().iter_rows())
    versions = {day: _new_version(conn, source, day, days[day], counts[day]) for day in days}
    ids = pl.DataFrame(
        {"day": list(versions), _VERSION.name: list(versions.values())}, schema_overrides={"day": pl.Date}
    )
    frame = frame.join(ids, on="day", how="left")
    columns = copy_order(_columns(source.view))
    statement = sql.SQL("copy store.{} ({}) from stdin (format binary)").format(
        sql.Identifier(identifier(source.view.name)), sql.SQL(", ").join(sql.Identifier(c.name) for c in columns)
    )
    with conn.cursor() as cursor, cursor.copy(statement) as out:
        out.write(SIGNATURE)
        out.write(encode(frame, columns))
        out.write(TRAILER)
    return counts


def _new_version(
    conn: psycopg.Connection, source: FeatureSource, day: dt.date, made_from: tuple[str, dt.datetime], rows: int
) -> int:
    digest, known = made_from
    conn.execute(
        "update ledger.feature_version set superseded_at = clock_timestamp() where view = %s and day = %s and superseded_at is null",
        (source.view.name, day),
    )
    row = conn.execute(
        """insert into ledger.feature_version (view, day, version, known_at, input_digest, code_version, rows)
           select %(view)s, %(day)s, coalesce(max(version), 0) + 1, %(known)s, %(digest)s, %(code)s, %(rows)s
           from ledger.feature_version where view = %(view)s and day = %(day)s returning version_id""",
        {
            "view": source.view.name,
            "day": day,
            "known": known,
            "digest": digest,
            "code": source.code_version,
            "rows": rows,
        },
    ).fetchone()
    assert row is not None
    return row[0]


def ensure_tables(conn: psycopg.Connection, source: FeatureSource) -> None:
    """Make the table and the view ``feature.<name>`` when they are missing; add columns of new features.

    The view shows the current version of each day, ``event_timestamp`` (the end of the day: its values are known from
    then on) and ``created_timestamp`` (when this version became known).
    """
    from psycopg import sql

    view, name = source.view, sql.Identifier(identifier(source.view.name))
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (_DDL_LOCK,))
        have = conn.execute(
            "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
            (f"store.{view.name}",),
        ).fetchall()
        missing = [c for c in _columns(view) if (c.name,) not in have]
        if have and not missing:
            return
        if not have:
            listed = sql.SQL(", ").join(_declared(c) for c in missing)
            conn.execute(sql.SQL("create table store.{} ({})").format(name, listed))
            index = sql.Identifier(f"{view.name}_version")
            conn.execute(sql.SQL("create index {} on store.{} (version_id)").format(index, name))
        else:
            for column in missing:
                conn.execute(sql.SQL("alter table store.{} add column {}").format(name, _declared(column)))
        shown = sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(c)) for c in ("day", view.entity, *view.names))
        conn.execute(sql.SQL("drop view if exists feature.{}").format(name))
        conn.execute(
            sql.SQL(
                "create view feature.{} as select {}, (s.day + 1)::timestamp at time zone {} as event_timestamp,"
                " v.known_at as created_timestamp from store.{} s join ledger.feature_version v"
                " on v.version_id = s.version_id and v.superseded_at is null"
            ).format(name, shown, sql.Literal(source.zone), name)
        )


def read_features(
    url: str, days: Sequence[dt.date], view: FeatureView = PRODUCT_DAILY, known_as_of: dt.datetime | None = None
) -> pl.DataFrame:
    """Stored rows ``day, <entity>, <features>`` of ``days``, sorted; the versions known at ``known_as_of`` (None: now)."""
    import adbc_driver_postgresql.dbapi as adbc
    import polars as pl

    known = "superseded_at is null" if known_as_of is None else f"known_at <= '{known_as_of.isoformat()}'::timestamptz"
    listed = ", ".join(f"'{day.isoformat()}'" for day in days) or "null"
    names = ", ".join(f's."{identifier(name)}"' for name in ("day", view.entity, *view.names))
    query = f"""
        with chosen as materialized (
            select distinct on (day) version_id from ledger.feature_version
            where view = '{identifier(view.name)}' and {known} and day in ({listed}) order by day, version desc)
        select {names} from store.{identifier(view.name)} s join chosen c using (version_id)"""
    with adbc.connect(url) as conn, conn.cursor() as cursor:
        cursor.execute("set local enable_nestloop to off")  # as in training_data: no statistics yet
        cursor.execute(query)
        frame = pl.from_arrow(cursor.fetch_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.sort("day", view.entity)


def _columns(view: FeatureView) -> list[CopyColumn]:
    features = [CopyColumn(identifier(name), "real", True) for name in view.names]
    return [_VERSION, CopyColumn("day", "date", True), *features, CopyColumn(identifier(view.entity), "text", True)]


def _declared(column: CopyColumn) -> Composed:
    from psycopg import sql

    kind = cast("LiteralString", column.postgres_type)  # one of the three in _columns
    return sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(kind))

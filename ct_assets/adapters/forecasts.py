"""Published forecasts: versioned by model and as-of, replaced whole, read while a newer run fails.

What goes here: the tables of a prediction, publishing in one transaction, reading. What does not: making forecasts
(``training``), which model leads (``champion``).

``prediction.<name>`` has a row per entity and open day of the horizon, ``prediction.<name>_total`` a row per entity.
Consumers read the views: until the next forecast commits they show the last good one.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.datasets import identifier
from ct_assets.adapters.postgres.copy import SIGNATURE, TRAILER, CopyColumn, copy_order, encode
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    from psycopg.sql import Composed

_ID = CopyColumn("forecast_id", "bigint", True)
_VALUES = tuple(CopyColumn(name, "double precision", True) for name in ("mean", "p50", "p90"))
_DDL_LOCK = 7_236_003
_SHARE = "the day's share of the week's (by weekday): for planning, add days up; not a quantile of the single day"
COLUMNS = {
    "stock_code": "product",
    "day": "open day of the 7 days after as_of",
    "mean": "expected units, matched cancellations taken off",
    "p50": f"units, {_SHARE}. On the real days 76 % of days lie at or below it",
    "p90": f"units, {_SHARE}. On the real days 89 % of days lie at or below it",
    "model": "model that forecast",
    "model_version": "its version",
    "as_of": "last day that was known",
    "created_at": "when it was published (UTC)",
}
"""What the columns of ``prediction.<name>`` mean, for those who read the table."""


class ForecastRefused(CtError):
    """A forecast that must not be published: empty, not finite, negative, or its quantiles cross."""


@dataclass(frozen=True)
class Forecast:
    """What is published: ``daily`` (entity, day, mean, p50, p90) and ``totals`` (entity, open_days, mean, p50, p90).

    Units are those of the label. ``entity`` is the name of the entity column (``stock_code``).
    """

    prediction: str
    entity: str
    model: str
    model_version: int
    as_of: dt.date
    daily: pl.DataFrame
    totals: pl.DataFrame


def publish(conn: psycopg.Connection, forecast: Forecast, crash: Crash = no_crash) -> int:
    """Publish in the caller's transaction and return the forecast's id. Raises :class:`ForecastRefused`.

    The same model version and as-of again replaces itself, so a repeated run ends in the same state.
    """
    _refuse_bad(forecast.daily, forecast.prediction)
    _refuse_bad(forecast.totals, f"{forecast.prediction} (total)")
    ensure_tables(conn, forecast.prediction, forecast.entity)
    name = identifier(forecast.prediction)
    conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"forecast:{name}",))
    conn.execute(
        "update ledger.forecast set superseded_at = clock_timestamp() where prediction = %s and superseded_at is null",
        (name,),
    )
    crash("forecast_superseded")
    row = conn.execute(
        """insert into ledger.forecast (prediction, model, model_version, as_of, rows) values (%s, %s, %s, %s, %s)
           returning forecast_id""",
        (name, forecast.model, forecast.model_version, forecast.as_of, len(forecast.daily)),
    ).fetchone()
    assert row is not None
    _copy(conn, name, _daily_columns(forecast.entity), forecast.daily, row[0])
    _copy(conn, f"{name}_total", _total_columns(forecast.entity), forecast.totals, row[0])
    crash("forecast_written")
    return row[0]


def current(conn: psycopg.Connection, prediction: str) -> dict[str, Any] | None:
    """The published forecast's model, version, as-of and time, None while there is none."""
    row = conn.execute(
        """select forecast_id, model, model_version, as_of, rows, created_at from ledger.forecast
           where prediction = %s and superseded_at is null""",
        (prediction,),
    ).fetchone()
    names = ("forecast_id", "model", "model_version", "as_of", "rows", "created_at")
    return dict(zip(names, row, strict=True)) if row else None


def predictions(conn: psycopg.Connection) -> list[str]:
    """Names of all predictions that were ever published."""
    return [row[0] for row in conn.execute("select distinct prediction from ledger.forecast order by 1").fetchall()]


def read(
    conn: psycopg.Connection, prediction: str, entity: str | None = None, day: dt.date | None = None
) -> list[dict[str, Any]]:
    """Rows of the published forecast, ordered by entity and day; only those of ``entity`` and ``day`` when given."""
    from psycopg import sql
    from psycopg.rows import dict_row

    query = sql.SQL(
        "select * from prediction.{} where (%(entity)s::text is null or entity = %(entity)s)"
        " and (%(day)s::date is null or day = %(day)s) order by entity, day"
    ).format(sql.Identifier(f"{identifier(prediction)}_by_entity"))
    with conn.cursor(row_factory=dict_row) as cursor:
        return list(cursor.execute(query, {"entity": entity, "day": day}).fetchall())


def ensure_tables(conn: psycopg.Connection, prediction: str, entity: str) -> None:
    """Make tables and views of a prediction unless they are there."""
    from psycopg import sql

    name = identifier(prediction)
    there = conn.execute("select to_regclass(%s)", (f"prediction.{name}_by_entity",)).fetchone()
    if there and there[0] is not None:
        return
    conn.execute("select pg_advisory_xact_lock(%s)", (_DDL_LOCK,))
    conn.execute("create schema if not exists prediction")
    for table, columns in ((name, _daily_columns(entity)), (f"{name}_total", _total_columns(entity))):
        declared = sql.SQL(", ").join(
            sql.SQL("{} {} not null").format(sql.Identifier(c.name), sql.SQL(c.postgres_type))  # type: ignore[arg-type]
            for c in columns
        )
        conn.execute(sql.SQL("create table if not exists store.{} ({})").format(sql.Identifier(table), declared))
        conn.execute(
            sql.SQL("create index if not exists {} on store.{} (forecast_id, {})").format(
                sql.Identifier(f"{table}_forecast"), sql.Identifier(table), sql.Identifier(entity)
            )
        )
        conn.execute(_view(table, name, [c.name for c in columns if c is not _ID], {}))
    for column, text in COLUMNS.items():
        shown = sql.Identifier("prediction", name, entity if column == "stock_code" else column)
        conn.execute(sql.SQL("comment on column {} is {}").format(shown, sql.Literal(text)))
    by_entity = {entity: "entity"}
    listed = [c.name for c in _daily_columns(entity) if c is not _ID]
    conn.execute(_view(name, name, listed, by_entity, f"{name}_by_entity"))


def _view(table: str, prediction: str, columns: list[str], renamed: dict[str, str], view: str = "") -> Composed:
    from psycopg import sql

    shown = sql.SQL(", ").join(
        sql.SQL("s.{} as {}").format(sql.Identifier(c), sql.Identifier(renamed.get(c, c))) for c in columns
    )
    return sql.SQL(
        "create or replace view prediction.{} as select {}, f.model, f.model_version, f.as_of, f.created_at"
        " from store.{} s join ledger.forecast f using (forecast_id) where f.prediction = {} and f.superseded_at is null"
    ).format(sql.Identifier(view or table), shown, sql.Identifier(table), sql.Literal(prediction))


def _daily_columns(entity: str) -> list[CopyColumn]:
    return [_ID, CopyColumn(identifier(entity), "text", True), CopyColumn("day", "date", True), *_VALUES]


def column_types(entity: str) -> dict[str, str]:
    """The PostgreSQL type of each column that is not text."""
    found = {c.name: c.postgres_type for c in _daily_columns(entity)}
    return found | {"model_version": "integer", "as_of": "date", "created_at": "timestamptz"}


def _total_columns(entity: str) -> list[CopyColumn]:
    return [_ID, CopyColumn(identifier(entity), "text", True), CopyColumn("open_days", "integer", True), *_VALUES]


def _copy(
    conn: psycopg.Connection, table: str, columns: list[CopyColumn], rows: pl.DataFrame, forecast_id: int
) -> None:
    import polars as pl
    from psycopg import sql

    ordered = copy_order(columns)
    named = sql.SQL(", ").join(sql.Identifier(c.name) for c in ordered)
    statement = sql.SQL("copy store.{} ({}) from stdin (format binary)").format(sql.Identifier(table), named)
    frame = rows.with_columns(pl.lit(forecast_id, pl.Int64).alias(_ID.name))
    with conn.cursor() as cursor, cursor.copy(statement) as out:
        out.write(SIGNATURE)
        out.write(encode(frame, ordered))
        out.write(TRAILER)


def _refuse_bad(frame: pl.DataFrame, what: str) -> None:
    import polars as pl

    if frame.is_empty():
        raise ForecastRefused(f"{what}: no rows", hint="the last good forecast stays published")
    values = [pl.col(name) for name in ("mean", "p50", "p90")]
    bad = frame.filter(pl.any_horizontal([~v.is_finite() | (v < 0) | v.is_null() for v in values]))
    if len(bad):
        raise ForecastRefused(
            f"{what}: {len(bad)} rows are not finite numbers >= 0, first {bad.row(0)}",
            hint="the last good forecast stays published",
        )
    crossed = frame.filter(pl.col("p50") > pl.col("p90"))
    if len(crossed):
        raise ForecastRefused(f"{what}: P50 above P90 in {len(crossed)} rows, first {crossed.row(0)}")

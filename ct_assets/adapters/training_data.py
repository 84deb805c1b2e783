"""The published sales tables as frames, in one of two readings, from one snapshot of the database.

What goes here: which revisions a reading shows, and the fast bulk read (ADBC). What does not: features, labels.

Readings: ``as_known`` (default) shows, per day, the newest revision that was known at ``known_as_of``: what a run at
that moment would have seen, corrections published later left out. Replaced revisions come along, so that each fold of
an evaluation sees what was known at its own origin. ``corrected`` shows the current revisions only, to every fold.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ct_assets.adapters.datasets import identifier
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import polars as pl

    from ct_assets.features.revisions import Revisions, Tables

Reading = Literal["as_known", "corrected"]


@dataclass(frozen=True)
class SalesTables:
    """Names of the published tables that demand is learnt from."""

    lines: str = "sales_lines"
    daily: str = "daily_product_sales"


SALES = SalesTables()


@dataclass(frozen=True)
class Window:
    """What part of history: days (both ends included, None: open), and what was known when."""

    first: dt.date | None = None
    last: dt.date | None = None
    reading: Reading = "as_known"
    known_as_of: dt.datetime | None = None


@dataclass(frozen=True)
class Sales:
    """``daily``: day, stock_code, units, revenue (float64, pounds), orders, units_returned; ``lines``: the lines that
    netting needs (``features.netting.COLUMNS``); ``contract_digest``: of the newest revision read; ``revisions``: all
    that were known of the days that have several (None: no such day, or the corrected reading)."""

    daily: pl.DataFrame
    lines: pl.DataFrame
    contract_digest: str
    revisions: Revisions | None = None

    @property
    def tables(self) -> Tables:
        """For training: the tables with the revisions that folds may ask for."""
        from ct_assets.features.revisions import Tables

        return Tables(self.daily, self.lines, self.revisions)


class NoSales(CtError):
    """The tables do not exist or hold nothing for the window."""


# `current`: the revision that the reading shows; all: every revision known at its instant
_KNOWN = """
    select day, part, revision, revision_id as _revision_id, known_at, published_at, contract_digest,
           row_number() over (partition by day, part order by known_at desc, revision desc) = 1 as current,
           count(*) over (partition by day) > count(*) over (partition by day, revision) as several
    from ledger.publication
    where dataset = '{dataset}' and state = 'published' and {known} and day between '{first}' and '{last}'"""

# exact decimals are summed up by the rollup; features need no more than float64
_DAILY = """
    with chosen as materialized ({chosen})
    select c.day, s.stock_code, s.units, s.revenue::float8 as revenue, s.orders, s.units_returned, s._revision_id
    from store.{daily} s join chosen c using (_revision_id)"""

# only keys that have a cancellation can have a pair: the join reads a few per cent of the lines
_LINES = """
    with chosen as materialized ({chosen}),
    cancelled as materialized (
        select distinct s.customer_id, s.stock_code, -s.quantity as size
        from store.{lines} s join chosen c using (_revision_id)
        where s.invoice_no like 'C%' and s.is_product and s.customer_id is not null)
    select c.day, s._line, s.invoice_no, s.stock_code, s.quantity, s.invoice_date, s.customer_id, s._revision_id
    from store.{lines} s join chosen c using (_revision_id)
    join cancelled k on k.customer_id = s.customer_id and k.stock_code = s.stock_code and k.size = abs(s.quantity)
    where s.is_product"""


def read_sales(url: str, window: Window | None = None, tables: SalesTables | None = None) -> Sales:
    """Read both tables in one repeatable-read snapshot; raises :class:`NoSales` when there is nothing."""
    import adbc_driver_postgresql.dbapi as adbc

    window, tables = window or Window(), tables or SALES
    values = {"lines": identifier(tables.lines), "daily": identifier(tables.daily)}
    known = _known(window, values["lines"])
    chosen = f"select day, _revision_id from ({known}) q where current or several"
    with adbc.connect(url) as conn, conn.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        cursor.execute("set local timezone to 'UTC'")
        # right after a bulk load there are no statistics: the planner then nests loops over 150,000 lines (58 s, not 0.3)
        cursor.execute("set local enable_nestloop to off")
        if not _exist(cursor, *values.values()):
            raise NoSales(
                f"there is no published table {tables.daily} with {tables.lines}",
                hint="`ct deliver` and `ct run` first",
            )
        revisions = _frame(cursor, known)
        daily = _frame(cursor, _DAILY.format(chosen=chosen, **values)).sort("day", "stock_code")
        lines = _frame(cursor, _LINES.format(chosen=chosen, **values)).sort("day", "_line")
    return _sales(revisions, daily, lines, tables)


def _sales(revisions: pl.DataFrame, daily: pl.DataFrame, lines: pl.DataFrame, tables: SalesTables) -> Sales:
    """Split what was read into what the reading shows and the revisions of days that have several."""
    import polars as pl

    from ct_assets.features.revisions import REVISION, Revisions

    now = revisions.filter("current")[REVISION].implode()
    shown, paired = (frame.filter(pl.col(REVISION).is_in(now)).drop(REVISION) for frame in (daily, lines))
    if shown.is_empty():
        raise NoSales(f"no sales are published in {tables.daily} for this window", hint="`ct status` shows what is")
    digest = revisions.filter("current").sort("published_at")["contract_digest"][-1]
    several = revisions.filter("several").select("day", "part", "revision", "known_at", REVISION)
    if several.is_empty():
        return Sales(shown, paired, digest)
    days = several["day"].unique().implode()
    older = [frame.filter(pl.col("day").is_in(days)) for frame in (daily, lines)]
    first = revisions.group_by("day", "part").agg(pl.col("known_at").min())
    day_ends = dict(first.group_by("day").agg(pl.col("known_at").max()).iter_rows())
    return Sales(shown, paired, digest, Revisions(several, older[0], older[1], day_ends))


def _known(window: Window, dataset: str) -> str:
    """SQL of the revisions known. Every value is a date, a timestamp or a checked identifier: nothing to inject."""
    if window.reading == "corrected":
        known = "superseded_at is null"
    elif window.known_as_of is None:
        known = "true"
    else:
        known = f"known_at <= '{window.known_as_of.isoformat()}'::timestamptz"
    first, last = window.first or dt.date(1, 1, 1), window.last or dt.date(9999, 12, 31)
    return _KNOWN.format(dataset=dataset, known=known, first=first.isoformat(), last=last.isoformat())


def _exist(cursor: Any, *tables: str) -> bool:
    cursor.execute(" union all ".join(f"select to_regclass('store.{name}') is not null" for name in tables))
    return all(row[0] for row in cursor.fetchall())


def _frame(cursor: Any, query: str) -> pl.DataFrame:
    import polars as pl

    cursor.execute(query)
    frame = pl.from_arrow(cursor.fetch_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame

"""The published sales tables as frames, in one of two readings, from one snapshot of the database.

What goes here: which revisions a reading shows, and the fast bulk read (ADBC). What does not: features, labels.

Readings: ``as_known`` (default) shows, per day, the newest revision that was known at ``known_as_of``: what a run at
that moment would have seen, corrections published later left out. ``corrected`` shows the current revisions, however
late they came. Without ``known_as_of`` the two are the same.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ct_assets.adapters.datasets import identifier
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import polars as pl

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
    netting needs (``features.netting.COLUMNS``); ``contract_digest``: of the newest revision read."""

    daily: pl.DataFrame
    lines: pl.DataFrame
    contract_digest: str


class NoSales(CtError):
    """The tables do not exist or hold nothing for the window."""


_CHOSEN = """
    select distinct on (day, part) day, revision_id, contract_digest, published_at from ledger.publication
    where dataset = '{dataset}' and state = 'published' and {known}
      and day between '{first}' and '{last}' order by day, part, revision desc"""

# exact decimals are summed up by the rollup; features need no more than float64
_DAILY = """
    with chosen as materialized ({chosen})
    select c.day, s.stock_code, s.units, s.revenue::float8 as revenue, s.orders, s.units_returned
    from store.{daily} s join chosen c on c.revision_id = s._revision_id"""

# only keys that have a cancellation can have a pair: the join reads a few per cent of the lines
_LINES = """
    with chosen as materialized ({chosen}),
    cancelled as materialized (
        select distinct s.customer_id, s.stock_code, -s.quantity as size
        from store.{lines} s join chosen c on c.revision_id = s._revision_id
        where s.invoice_no like 'C%' and s.is_product and s.customer_id is not null)
    select c.day, s._line, s.invoice_no, s.stock_code, s.quantity, s.invoice_date, s.customer_id
    from store.{lines} s join chosen c on c.revision_id = s._revision_id
    join cancelled k on k.customer_id = s.customer_id and k.stock_code = s.stock_code and k.size = abs(s.quantity)
    where s.is_product"""


def read_sales(url: str, window: Window | None = None, tables: SalesTables | None = None) -> Sales:
    """Read both tables in one repeatable-read snapshot; raises :class:`NoSales` when there is nothing."""
    import adbc_driver_postgresql.dbapi as adbc

    window, tables = window or Window(), tables or SALES
    values = {"lines": identifier(tables.lines), "daily": identifier(tables.daily)}
    chosen = _chosen(window, values["lines"])
    with adbc.connect(url) as conn, conn.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        cursor.execute("set local timezone to 'UTC'")
        # freshly loaded tables have no statistics yet: the planner then joins row by row, 75 s instead of 0.3 s
        cursor.execute("set local enable_nestloop to off")
        # right after a bulk load there are no statistics: the planner then nests loops over 150,000 lines (58 s, not 0.3)
        cursor.execute("set local enable_nestloop to off")
        if not _exist(cursor, *values.values()):
            raise NoSales(
                f"there is no published table {tables.daily} with {tables.lines}",
                hint="`ct deliver` and `ct run` first",
            )
        daily = _frame(cursor, _DAILY.format(chosen=chosen, **values))
        lines = _frame(cursor, _LINES.format(chosen=chosen, **values))
        cursor.execute(f"select contract_digest from ({chosen}) q order by published_at desc limit 1")
        digest = cursor.fetchone()
    if daily.is_empty():
        raise NoSales(f"no sales are published in {tables.daily} for this window", hint="`ct status` shows what is")
    return Sales(daily.sort("day", "stock_code"), lines.sort("day", "_line"), digest[0] if digest else "")


def _chosen(window: Window, dataset: str) -> str:
    """SQL of the revisions in force. Every value is a date, a timestamp or a checked identifier: nothing to inject."""
    if window.reading == "corrected" or window.known_as_of is None:
        known = "superseded_at is null"
    else:
        known = f"known_at <= '{window.known_as_of.isoformat()}'::timestamptz"
    first, last = window.first or dt.date(1, 1, 1), window.last or dt.date(9999, 12, 31)
    return _CHOSEN.format(dataset=dataset, known=known, first=first.isoformat(), last=last.isoformat())


def _exist(cursor: Any, *tables: str) -> bool:
    cursor.execute(" union all ".join(f"select to_regclass('store.{name}') is not null" for name in tables))
    return all(row[0] for row in cursor.fetchall())


def _frame(cursor: Any, query: str) -> pl.DataFrame:
    import polars as pl

    cursor.execute(query)
    frame = pl.from_arrow(cursor.fetch_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame

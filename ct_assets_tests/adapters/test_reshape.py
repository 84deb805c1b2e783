"""A contract that changes under published revisions: other types, a column that is no longer delivered."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ct_assets.adapters import rollups, tables
from ct_assets.adapters.datasets import PublishedDataset, Rollup
from ct_assets.adapters.reshape import Change, plan, reshape
from ct_assets.settings import Settings
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.adapters.test_publish import bring

DAY = dt.date(2011, 1, 4)
NEXT = DAY + dt.timedelta(days=1)


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        yield conn


def changed(dataset: PublishedDataset, name: str, **changes: Any) -> PublishedDataset:
    """The dataset with another declaration of one column, under another contract digest."""
    columns = tuple(dataclasses.replace(c, **changes) if c.name == name else c for c in dataset.schema.columns)
    schema = dataclasses.replace(dataset.schema, columns=columns, digest="f" * 64)
    return dataclasses.replace(dataset, schema=schema)


@pytest.fixture
def published(settings: Settings, sales: PublishedDataset, tmp_path: Path) -> PublishedDataset:
    """Two revisions of a day of 30 and 33 lines, two units each, price 2.50; rolled up as units."""
    units = "select :day as day, sum(quantity) as units from store.sales_lines where _revision_id = :revision_id"
    dataset = dataclasses.replace(sales, rollups=(Rollup("per_day", units),))
    bring(settings, dataset, write_day(tmp_path / "a", DAY))
    bring(settings, dataset, write_day(tmp_path / "b", DAY, good=33))
    return dataset


def test_a_wider_type_for_every_revision(
    settings: Settings, conn: psycopg.Connection, published: PublishedDataset, tmp_path: Path
) -> None:
    """The values stay, the view keeps its grants, a rollup has the type that its SQL gives now; the next day fits."""
    quantity = {"type": "decimal", "precision": 12, "scale": 3}
    wider = changed(published, "Quantity", **quantity)
    with pytest.raises(tables.TableConflict, match="ct db reshape --pipeline sales"):
        bring(settings, wider, write_day(tmp_path / "c", NEXT))
    assert plan(conn, wider) == [Change("quantity", "bigint", "numeric(12,3)")]
    conn.execute("create role reshape_reader")
    try:
        conn.execute("grant select on clean.sales_lines to reshape_reader")
        before = conn.execute("select _revision_id, _line, quantity from store.sales_lines order by 1, 2").fetchall()
        assert reshape(conn, wider) == [Change("quantity", "bigint", "numeric(12,3)")]
        after = conn.execute("select _revision_id, _line, quantity from store.sales_lines order by 1, 2").fetchall()
        assert after == before
        assert len(after) == 63
        allowed = conn.execute("select has_table_privilege('reshape_reader', 'clean.sales_lines', 'select')").fetchone()
        assert allowed == (True,)
    finally:
        conn.execute("drop owned by reshape_reader")
        conn.execute("drop role reshape_reader")
    assert (plan(conn, wider), reshape(conn, wider)) == ([], [])
    assert rollups.days_behind(conn, wider) == {}
    odd = write_day(tmp_path / "c", NEXT, good=20)
    odd.write_text(odd.read_text().replace(",2,2011", ",2.125,2011", 1))
    bring(settings, wider, odd)
    assert conn.execute("select day, units from clean.per_day order by day").fetchall() == [
        (DAY, Decimal(66)),
        (NEXT, Decimal("40.125")),
    ]


@pytest.mark.parametrize(
    ("column", "changes", "says"),
    [
        ("UnitPrice", {"scale": 1, "precision": 12}, None),
        ("UnitPrice", {"scale": 0, "precision": 12}, "numeric(12,0): 33 values would change"),
        ("StockCode", {"type": "integer"}, None),
        ("Country", {"type": "integer"}, "text -> bigint: some values are no bigint"),
        ("InvoiceDate", {"time_zone": None}, "a time zone changes what they mean"),
        ("InvoiceDate", {"type": "boolean"}, "moments are not converted"),
        ("is_product", {"type": "date"}, "PostgreSQL makes no date of boolean"),
    ],
)
def test_no_value_changes(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path,
    column: str, changes: dict[str, Any], says: str | None,
) -> None:  # fmt: skip
    """A narrower type is taken where every value fits, and refused whole where one does not."""
    plain = dataclasses.replace(sales, rollups=())
    bring(settings, plain, write_day(tmp_path, DAY, good=33))
    other = changed(plain, column, **changes)
    query = "select * from store.sales_lines order by _line"
    before = conn.execute(query).fetchall()
    if says is None:
        assert len(reshape(conn, other)) == 1
        assert [len(row) for row in conn.execute(query)] == [len(row) for row in before]
        return
    assert says.rpartition(": ")[2] in str(plan(conn, other)[0].problem)
    with pytest.raises(tables.TableConflict) as refused:
        reshape(conn, other)
    assert says in str(refused.value)
    assert conn.execute(query).fetchall() == before


def test_a_view_that_somebody_made_is_named(conn: psycopg.Connection, published: PublishedDataset) -> None:
    conn.execute("create view public.planners as select quantity from clean.sales_lines")
    with pytest.raises(tables.TableConflict, match="planners"):
        reshape(conn, changed(published, "Quantity", type="number"))
    assert conn.execute("select sum(quantity)::int from public.planners").fetchone() == (66,)


def test_a_column_that_is_no_longer_delivered(
    settings: Settings, conn: psycopg.Connection, sales: PublishedDataset, tmp_path: Path
) -> None:
    """Old days keep its values, new days have NULL, and the table stays as it is."""
    bring(settings, sales, write_day(tmp_path / "a", DAY))
    path = write_day(tmp_path / "b", NEXT, bad=0)
    path.write_text("\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines()) + "\n")
    optional = changed(sales, "Country", required=False)
    rules = tuple(rule for rule in sales.schema.rules if rule.name != "Country.required")
    optional = dataclasses.replace(optional, schema=dataclasses.replace(optional.schema, rules=rules))
    assert bring(settings, optional, path).state == "rejected"
    assert bring(settings, changed(optional, "Country", may_be_absent=True), path).state == "published"
    query = "select _day, count(*), count(country), min(country) from clean.sales_lines group by 1 order by 1"
    assert conn.execute(query).fetchall() == [(DAY, 30, 30, "United Kingdom"), (NEXT, 30, 0, None)]

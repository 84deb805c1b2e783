"""A rollup whose SQL changed is built again for every revision: values, readers meanwhile, grants, and what refuses it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters import rollups
from ct_assets.adapters.datasets import PublishedDataset, Rollup
from ct_assets.settings import Settings
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.adapters.test_publish import bring

FIRST, SECOND = dt.date(2011, 1, 4), dt.date(2011, 1, 5)
LINES = "select :day as day, count(*) as lines{} from store.sales_lines where _revision_id = :revision_id"


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        yield conn


def having(sales: PublishedDataset, sql: str | None) -> PublishedDataset:
    """The dataset with the rollup ``per_day``, or without any."""
    return dataclasses.replace(sales, rollups=(Rollup("per_day", sql),) if sql else ())


def shown(conn: psycopg.Connection) -> list[tuple[object, ...]]:
    return conn.execute("select * from clean.per_day order by day").fetchall()


@pytest.fixture
def published(settings: Settings, sales: PublishedDataset, tmp_path: Path) -> PublishedDataset:
    """Two days, the first with a second revision; rolled up as the number of lines."""
    dataset = having(sales, LINES.format(""))
    for day, good, suffix in ((FIRST, 30, ""), (SECOND, 20, ""), (FIRST, 33, "-v2")):
        bring(settings, dataset, write_day(tmp_path, day, good=good, suffix=suffix))
    return dataset


def test_nothing_is_behind_after_publishing(conn: psycopg.Connection, published: PublishedDataset) -> None:
    assert shown(conn) == [(FIRST, 33), (SECOND, 20)]
    assert rollups.days_behind(conn, published) == {}
    assert rollups.build_again(conn, published) == []


def test_other_sql_is_built_for_every_revision_and_replaced_ones(
    conn: psycopg.Connection, published: PublishedDataset
) -> None:
    changed = having(published, LINES.format(", sum(quantity) as units"))
    assert rollups.days_behind(conn, changed) == {"per_day": [FIRST, SECOND]}
    said: list[str] = []
    assert rollups.build_again(conn, changed, said.append) == [FIRST, SECOND]
    assert said == ["per_day: its SQL changed, rolling up 3 revisions again"]
    assert shown(conn) == [(FIRST, 33, 66), (SECOND, 20, 40)], "each line has two units"
    every = conn.execute(
        "select p.day, p.revision, s.units from store.per_day s join ledger.publication p on p.revision_id = s._revision_id order by 1, 2"
    ).fetchall()
    assert every == [(FIRST, 1, 60), (FIRST, 2, 66), (SECOND, 1, 40)]
    assert rollups.days_behind(conn, changed) == {}
    assert rollups.build_again(conn, changed) == []


def test_a_rollup_added_later_has_the_old_days(
    settings: Settings, conn: psycopg.Connection, sales: PublishedDataset, tmp_path: Path
) -> None:
    bring(settings, having(sales, None), write_day(tmp_path, FIRST))
    added = having(sales, LINES.format(""))
    assert rollups.build_again(conn, added) == [FIRST]
    bring(settings, added, write_day(tmp_path, SECOND, good=20))
    assert shown(conn) == [(FIRST, 30), (SECOND, 20)]


def test_grants_stay_when_columns_come_and_a_reader_of_a_lost_column_is_named(
    conn: psycopg.Connection, published: PublishedDataset
) -> None:
    conn.execute("create role rollup_reader")
    try:
        conn.execute("grant select on clean.per_day to rollup_reader")
        conn.execute("create view public.planners as select lines from clean.per_day")
        rollups.build_again(conn, having(published, LINES.format(", min(quantity) as least")))
        assert conn.execute("select has_table_privilege('rollup_reader', 'clean.per_day', 'select')").fetchone() == (
            True,
        )
        assert conn.execute("select sum(lines)::int from public.planners").fetchone() == (53,)
        without = having(
            published, "select :day as day from store.sales_lines where _revision_id = :revision_id limit 1"
        )
        with pytest.raises(rollups.RollupInUse, match="planners"):
            rollups.build_again(conn, without)
        assert [row[:2] for row in shown(conn)] == [(FIRST, 33), (SECOND, 20)], "nothing was changed"
        conn.execute("drop view public.planners")
        assert rollups.build_again(conn, without) == [FIRST, SECOND]
        assert shown(conn) == [(FIRST,), (SECOND,)]
    finally:
        conn.execute("drop owned by rollup_reader")
        conn.execute("drop role rollup_reader")


def test_columns_in_another_order_never_swap_values(
    settings: Settings, conn: psycopg.Connection, published: PublishedDataset, tmp_path: Path
) -> None:
    """Two columns of one type would change places without a word if rows went into the old table."""
    both = "select :day as day, {} from store.sales_lines where _revision_id = :revision_id"
    first = having(published, both.format("count(*) as lines, sum(quantity)::bigint as units"))
    assert rollups.build_again(conn, first) == [FIRST, SECOND]
    swapped = having(published, both.format("sum(quantity)::bigint as units, count(*) as lines"))
    third = FIRST + dt.timedelta(days=2)
    bring(settings, swapped, write_day(tmp_path, third, good=25))
    found = conn.execute("select day, lines, units from clean.per_day order by day").fetchall()
    assert found == [(FIRST, 33, 66), (SECOND, 20, 40), (third, 25, 50)]


def test_sql_that_fails_changes_nothing(conn: psycopg.Connection, published: PublishedDataset) -> None:
    before = conn.execute("select revision_id, rollups from ledger.publication order by 1").fetchall()
    broken = having(
        published,
        "select :day as day, 1 / (count(*) - 20) as lines from store.sales_lines where _revision_id = :revision_id",
    )
    with pytest.raises(rollups.RollupFailed, match=f"rollup per_day, day {SECOND}: division by zero"):
        rollups.build_again(conn, broken)
    assert shown(conn) == [(FIRST, 33), (SECOND, 20)]
    assert conn.execute("select revision_id, rollups from ledger.publication order by 1").fetchall() == before
    assert conn.execute("select count(*) from pg_tables where tablename like 'ct_fresh_%'").fetchone() == (0,)


def test_a_publisher_waits_while_a_rollup_is_built_again(
    settings: Settings, conn: psycopg.Connection, published: PublishedDataset, tmp_path: Path, pg_url: str
) -> None:
    """Otherwise its rows would go into the table that is about to be dropped."""
    from concurrent.futures import ThreadPoolExecutor

    third = FIRST + dt.timedelta(days=2)
    path = write_day(tmp_path, third, good=25)
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())"
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(pg_url) as builder:
            rollups.build_again(builder, having(published, LINES.format(", 7 as lucky")))
            publishing = pool.submit(bring, settings, having(published, LINES.format(", 7 as lucky")), path)
            while conn.execute(waiting).fetchone() == (0,):
                assert not publishing.done()
        publishing.result(60)
    assert shown(conn) == [(FIRST, 33, 7), (SECOND, 20, 7), (third, 25, 7)]

"""Feature tables and the two readings of the sales, on a real PostgreSQL, against the published views."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest

from ct_assets.adapters.datasets import code_digest, features_code
from ct_assets.adapters.feature_tables import FeatureSource, build, ensure_tables, read_features, stale_days
from ct_assets.adapters.training_data import NoSales, SalesTables, Window, read_sales
from ct_assets.features import daily
from ct_assets.features.daily import daily_features
from ct_assets.features.netting import matched_cancellations
from ct_assets.features.spec import LOOKBACK_DAYS, PRODUCT_DAILY, Feature
from ct_assets.settings import Settings, load
from ct_assets_tests.adapters.published_days import bring, corrected, day_of, sample

SOURCE = FeatureSource(zone="Europe/London")


@dataclasses.dataclass(frozen=True)
class Shop:
    """A database with published days."""

    settings: Settings
    url: str
    files: list[Path]
    folder: Path

    @property
    def days(self) -> list[dt.date]:
        return [day_of(path) for path in self.files]


@pytest.fixture
def shop(tmp_path: Path, pg_url: str) -> Shop:
    settings = load({"CT_HOME": str(tmp_path / "home"), "CT_DATABASE_URL": pg_url, "CT_CODE_VERSION": "test-1"})
    files = sample(tmp_path / "sample", days=20)
    bring(settings, files)
    return Shop(settings, pg_url, files, tmp_path)


@pytest.fixture
def conn(shop: Shop) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shop.url, autocommit=True) as conn:
        yield conn


def test_what_is_read_is_what_the_views_show(shop: Shop, conn: psycopg.Connection) -> None:
    sales = read_sales(shop.url)
    want = conn.execute(
        "select day, stock_code, units, revenue::float8, orders, units_returned from clean.daily_product_sales order by day, stock_code"
    ).fetchall()
    assert sales.daily.rows() == want
    lines = pl.DataFrame(
        conn.execute(
            "select _day, _line, invoice_no, stock_code, quantity, invoice_date, customer_id from clean.sales_lines where is_product"
        ).fetchall(),
        schema=sales.lines.columns,
        orient="row",
        infer_schema_length=None,
    )
    all_pairs = matched_cancellations(lines).sort(pl.all())
    assert len(all_pairs) > 0
    assert matched_cancellations(sales.lines).sort(pl.all()).equals(all_pairs)
    assert len(sales.lines) < len(lines) / 2
    assert sales.contract_digest == conn.execute("select max(contract_digest) from ledger.publication").fetchone()[0]  # type: ignore[index]


def test_a_window_is_closed_at_both_ends(shop: Shop) -> None:
    first, last = shop.days[3], shop.days[6]
    assert sorted(read_sales(shop.url, Window(first, last)).daily["day"].unique()) == shop.days[3:7]
    with pytest.raises(NoSales, match="no sales are published"):
        read_sales(shop.url, Window(last=first - dt.timedelta(days=99)))
    with pytest.raises(NoSales, match="no published table"):
        read_sales(shop.url, tables=SalesTables("nothing", "nowhere"))


def test_as_known_leaves_out_what_was_corrected_later(shop: Shop, conn: psycopg.Connection) -> None:
    day = shop.days[5]
    before = read_sales(shop.url).daily
    at = conn.execute("select clock_timestamp()").fetchone()
    assert at is not None
    bring(shop.settings, [corrected(shop.files[5], shop.folder / "again")])
    then = read_sales(shop.url, Window(known_as_of=at[0])).daily
    now = read_sales(shop.url).daily
    assert then.equals(before)
    assert now.filter(pl.col("day") != day).equals(before.filter(pl.col("day") != day))
    assert now.filter(pl.col("day") == day)["units"].sum() > 2 * before.filter(pl.col("day") == day)["units"].sum()
    assert read_sales(shop.url, Window(reading="corrected", known_as_of=at[0])).daily.equals(now)


def test_history_counts_as_known_at_the_end_of_its_business_day(shop: Shop) -> None:
    night = dt.datetime.combine(shop.days[7], dt.time(23, 59, 59), dt.UTC) + dt.timedelta(hours=2)
    known = read_sales(shop.url, Window(known_as_of=night)).daily
    assert known["day"].max() == shop.days[7]
    assert known.equals(read_sales(shop.url, Window(last=shop.days[7])).daily)


def test_a_build_stores_what_the_pure_function_computes(shop: Shop, conn: psycopg.Connection) -> None:
    assert stale_days(conn, SOURCE) == shop.days
    counts = build(conn, shop.url, SOURCE, shop.days)
    sales = read_sales(shop.url)
    want = daily_features(sales.daily, sales.lines, shop.days)
    assert read_features(shop.url, shop.days).equals(want)
    assert counts == dict(want.group_by("day").len().iter_rows())
    assert stale_days(conn, SOURCE) == []
    assert build(conn, shop.url, SOURCE, shop.days) == {}
    ends = conn.execute(
        "select distinct day, event_timestamp at time zone 'Europe/London' from feature.product_daily order by 1"
    ).fetchall()
    assert ends == [(day, dt.datetime.combine(day + dt.timedelta(days=1), dt.time())) for day in shop.days]


def test_a_correction_makes_exactly_the_days_of_its_reach_stale(shop: Shop, conn: psycopg.Connection) -> None:
    build(conn, shop.url, SOURCE, shop.days)
    before = read_features(shop.url, shop.days)
    bring(shop.settings, [corrected(shop.files[8], shop.folder / "again")])
    assert stale_days(conn, SOURCE) == [d for d in shop.days if 0 <= (d - shop.days[8]).days <= LOOKBACK_DAYS]
    assert read_features(shop.url, shop.days).equals(before)  # until it is built
    built = build(conn, shop.url, SOURCE, shop.days)
    assert sorted(built) == shop.days[8:]
    after = read_features(shop.url, shop.days)
    same = pl.col("day") < shop.days[8]
    assert after.filter(same).equals(before.filter(same))
    assert not after.filter(~same).equals(before.filter(~same))


def test_a_narrow_look_back_ends_the_reach(shop: Shop, conn: psycopg.Connection) -> None:
    narrow = dataclasses.replace(SOURCE, view=dataclasses.replace(PRODUCT_DAILY, name="narrow", lookback_days=3))
    build(conn, shop.url, narrow, shop.days)
    bring(shop.settings, [corrected(shop.files[8], shop.folder / "again")])
    assert stale_days(conn, narrow) == [d for d in shop.days if 0 <= (d - shop.days[8]).days <= 3]


def test_old_versions_can_still_be_read_as_known(shop: Shop, conn: psycopg.Connection) -> None:
    build(conn, shop.url, SOURCE, shop.days)
    before = read_features(shop.url, shop.days)
    at = conn.execute("select clock_timestamp()").fetchone()
    assert at is not None
    bring(shop.settings, [corrected(shop.files[8], shop.folder / "again")])
    build(conn, shop.url, SOURCE, shop.days)
    assert read_features(shop.url, shop.days, known_as_of=at[0]).equals(before)
    versions = conn.execute("select day, max(version) from ledger.feature_version group by day order by day").fetchall()
    assert versions == [(day, 2 if day >= shop.days[8] else 1) for day in shop.days]


def test_only_days_that_were_asked_for_are_built(shop: Shop, conn: psycopg.Connection) -> None:
    asked = [shop.days[2], shop.days[4], shop.days[0] - dt.timedelta(days=5)]
    assert sorted(build(conn, shop.url, SOURCE, asked)) == [shop.days[2], shop.days[4]]
    assert stale_days(conn, SOURCE) == [d for d in shop.days if d not in asked]


def test_another_definition_makes_every_day_stale_and_adds_its_column(shop: Shop, conn: psycopg.Connection) -> None:
    build(conn, shop.url, SOURCE, shop.days)
    wider = dataclasses.replace(
        PRODUCT_DAILY,
        features=(*PRODUCT_DAILY.features, Feature("units_max_7", "units_max", 7, "largest day of a week")),
    )
    grown = dataclasses.replace(SOURCE, view=wider)
    assert stale_days(conn, grown) == shop.days
    build(conn, shop.url, grown, shop.days)
    row = conn.execute("select count(*), count(units_max_7) from feature.product_daily").fetchone()
    assert row is not None
    assert row[0] == row[1] > 0
    ensure_tables(conn, grown)


def test_an_edited_function_makes_every_day_stale_once(shop: Shop, conn: psycopg.Connection) -> None:
    package = shop.folder / "features"
    shutil.copytree(Path(daily.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_digest(package) == SOURCE.code == features_code()
    build(conn, shop.url, SOURCE, shop.days)
    functions = package / "functions.py"
    text = functions.read_text(encoding="utf-8")
    edited = text.replace(".max(axis=1)", ".max(axis=1) * 2", 1)
    assert edited != text
    functions.write_text(edited, encoding="utf-8")
    source = dataclasses.replace(SOURCE, code=code_digest(package))
    assert stale_days(conn, source) == shop.days
    assert sorted(build(conn, shop.url, source, shop.days)) == shop.days
    assert stale_days(conn, source) == []

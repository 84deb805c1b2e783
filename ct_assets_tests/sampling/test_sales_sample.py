"""The sample's truth against a second reading of its bytes, and the demand and dirt that it promises."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ct_assets.sampling.demand import SampleOptions, easter, expected, is_open, plan_products
from ct_assets.sampling.sales import open_days_within, write_sales
from ct_assets_tests.sampling import oracle

COUNTED = ("read", "good", "quarantined", "duplicates", "reasons", "warnings", "daily")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sample")
    write_sales(folder, SampleOptions(days=90, seed=11))
    return folder, json.loads((folder / "truth.json").read_text(encoding="utf-8"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    return [row for path in sorted(folder.glob("*.csv")) for row in oracle.read(path.read_bytes())]


def test_truth_equals_a_second_reading_of_every_file(sample: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = sample
    assert sorted(truth["files"]) == sorted(path.name for path in folder.glob("*.csv"))
    for name, planted in truth["files"].items():
        found = oracle.judge((folder / name).read_bytes(), dt.date.fromisoformat(name[:10]))
        assert found == {key: planted[key] for key in COUNTED}, name
    for key in COUNTED[:4]:
        assert truth["totals"][key] == sum(file[key] for file in truth["files"].values())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000), products=st.integers(1, 40), start=st.dates(dt.date(2009, 12, 1), dt.date(2030, 1, 1))
)
def test_truth_holds_for_any_seed_size_and_start(
    tmp_path_factory: pytest.TempPathFactory, seed: int, products: int, start: dt.date
) -> None:
    folder = tmp_path_factory.mktemp("any")
    truth = write_sales(folder, SampleOptions(days=14, seed=seed, products=products, start=start))
    for name, planted in truth["files"].items():
        found = oracle.judge((folder / name).read_bytes(), dt.date.fromisoformat(name[:10]))
        assert found == {key: planted[key] for key in COUNTED}, name
        assert planted["quarantined"] <= 0.1 * planted["read"]


def test_the_same_options_give_the_same_bytes_and_a_longer_sample_begins_with_the_shorter(tmp_path: Path) -> None:
    write_sales(tmp_path / "a", SampleOptions(days=20, seed=3, products=30))
    write_sales(tmp_path / "b", SampleOptions(days=20, seed=3, products=30))
    write_sales(tmp_path / "longer", SampleOptions(days=45, seed=3, products=30))
    write_sales(tmp_path / "other", SampleOptions(days=20, seed=4, products=30))
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) > 15
    for name in names:
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes()
        assert data != (tmp_path / "other" / name).read_bytes()
        if name != "truth.json":
            assert data == (tmp_path / "longer" / name).read_bytes()


def test_every_kind_of_dirt_of_the_real_files_is_there(sample: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = sample
    rows = rows_of(folder)
    guests = sum(row["CustomerID"] == "" for row in rows) / len(rows)
    untrimmed = sum(row["Description"] != row["Description"].strip() for row in rows) / len(rows)
    kinds = {
        "cancellation": any(row["InvoiceNo"].startswith("C") for row in rows),
        "adjustment": any(row["InvoiceNo"].startswith("A") for row in rows),
        "lower-case code": any(row["StockCode"] != row["StockCode"].upper() for row in rows),
        "no product": any(row["StockCode"].upper() in oracle.NOT_PRODUCTS for row in rows),
        "voucher": any(row["StockCode"].startswith("gift_") for row in rows),
        "beyond ASCII": any(not row["Description"].isascii() for row in rows),
        "quote": any('"' in row["Description"] for row in rows),
        "comma": any("," in row["Description"] for row in rows),
        "line end": any("\n" in row["Description"] for row in rows),
    }
    assert all(kinds.values()), kinds
    assert all(row["CustomerID"] == "" or row["CustomerID"].endswith(".0") for row in rows)
    assert 0.18 < guests < 0.32
    assert 0.1 < untrimmed < 0.35
    assert set(truth["totals"]["reasons"]) == {
        "zero_quantity", "negative_quantity_without_cancellation", "positive_quantity_on_cancellation", "negative_price", "wrong_day",
    }  # fmt: skip
    assert set(truth["totals"]["warnings"]) == {"zero_price", "description_absent"}
    assert truth["totals"]["duplicates"] > 50


def test_outliers_are_cancelled_minutes_later_by_the_same_customer(sample: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = sample
    notes = [(name, note) for name, file in truth["files"].items() for note in file["notes"]]
    assert len(notes) >= 3
    for name, note in notes:
        rows = oracle.read((folder / name).read_bytes())
        order = next(row for row in rows if row["InvoiceNo"] == note["invoice"])
        undo = next(row for row in rows if row["Quantity"] == str(-note["quantity"]))
        wait = dt.datetime.fromisoformat(undo["InvoiceDate"]) - dt.datetime.fromisoformat(order["InvoiceDate"])
        assert int(order["Quantity"]) == note["quantity"] >= 4_000
        assert undo["InvoiceNo"].startswith("C")
        assert undo["CustomerID"] == order["CustomerID"]
        assert dt.timedelta(minutes=5) <= wait <= dt.timedelta(minutes=18)


def test_most_cancellations_match_an_earlier_sale(sample: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = sample
    sold: set[tuple[str, str, int]] = set()
    matched = unmatched = 0
    for path in sorted(folder.glob("*.csv")):
        for row in oracle.read(path.read_bytes()):
            code, quantity = row["StockCode"].strip().upper(), int(row["Quantity"])
            if not row["InvoiceNo"].startswith("C"):
                sold.add((row["CustomerID"], code, quantity))
            elif quantity < 0 and (row["CustomerID"], code, -quantity) in sold:
                matched += 1
            elif quantity < 0:
                unmatched += 1
    assert matched > 100
    assert 0 < unmatched < 0.2 * matched


def test_no_dirt_means_only_good_distinct_lines(tmp_path: Path) -> None:
    truth = write_sales(tmp_path, SampleOptions(days=30, seed=2, dirt=False))
    totals = truth["totals"]
    assert totals["good"] == totals["read"] > 3_000
    assert totals["reasons"] == totals["warnings"] == {}
    assert oracle.judge((tmp_path / "2011-03-01.csv").read_bytes(), dt.date(2011, 3, 1))["duplicates"] == 0


def test_closed_days_have_no_file_and_no_expected_demand(sample: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = sample
    start = dt.date(2011, 3, 1)
    easter_2011 = {dt.date(2011, 4, day) for day in (22, 23, 24, 25)}
    for number in range(90):
        day = start + dt.timedelta(days=number)
        closed = day.weekday() == 5 or day in easter_2011
        assert (folder / f"{day}.csv").exists() is not closed, day
        assert (day.isoformat() in truth["expected"]) is not closed, day
    assert max(truth["expected"]) == "2011-06-26"  # four weeks beyond the last file


@pytest.mark.parametrize(
    ("year", "sunday"),
    [
        (2009, "04-12"),
        (2010, "04-04"),
        (2011, "04-24"),
        (2024, "03-31"),
        (2025, "04-20"),
        (2038, "04-25"),
        (2008, "03-23"),
    ],
)
def test_easter_is_the_almanacs(year: int, sunday: str) -> None:
    assert easter(year) == dt.date.fromisoformat(f"{year}-{sunday}")


def test_the_shop_is_closed_over_christmas_and_new_year() -> None:
    closed = [
        day
        for n in range(20)
        if not is_open(day := dt.date(2010, 12, 20) + dt.timedelta(days=n)) and day.weekday() != 5
    ]
    assert closed == [dt.date(2010, 12, d) for d in (24, 26, 27, 28, 29, 30, 31)] + [
        dt.date(2011, 1, d) for d in (2, 3)
    ]


def test_what_is_sold_averages_to_what_was_expected() -> None:
    """Over many products and days the draw must not drift from the planted mean: the forecasts are judged by it."""
    options = SampleOptions(days=60, seed=5, products=200, dirt=False)
    products = plan_products(options, 88)
    expected_units = sold = variance = 0.0
    for day in open_days_within(options):
        means = expected(products, options, (day.day - options.start).days)
        expected_units += sum(means.values())
        variance += sum(mean + mean * mean / 2 for mean in means.values())  # wider than any kind's own variance
        sold += sum(line.quantity for line in day.lines)
    assert abs(sold - expected_units) < 4 * math.sqrt(variance)


def test_planted_effects_show_in_the_expected_demand() -> None:
    options = SampleOptions(days=90, seed=5, products=100)
    products = plan_products(options, 90)
    promoted = next(p for p in products if p.promotions and p.kind == "regular")
    friday = promoted.promotions[0]
    steps = {day for day, _ in promoted.price_changes}
    assert not steps & {friday, friday + 1}
    assert promoted.price(friday) == pytest.approx(0.75 * promoted.price(friday - 1), abs=1)
    # Customers answer a day later, with elasticity -2.4: twice as many units.
    assert promoted.mean(friday + 1, 0) == pytest.approx(0.75**-2.4 * promoted.mean(friday, 0), rel=0.03)
    for product in products:
        assert product.mean(20, 3) >= product.mean(20, 6)  # Thursday sells more than Sunday
        if product.kind == "new":
            assert product.mean(product.first_day - 1, 0) == 0 < product.mean(product.first_day, 0)
        if product.last_day is not None:
            assert product.mean(product.last_day, 0) > 0 == product.mean(product.last_day + 1, 0)
    assert {p.kind for p in products} == {"regular", "intermittent", "new", "discontinued"}


@pytest.mark.parametrize("bad", [{"days": 0}, {"products": 0}, {"products": 1_001}, {"seed": -1}])
def test_impossible_options_are_refused_by_name(bad: dict[str, int]) -> None:
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        SampleOptions(**bad)  # type: ignore[arg-type]

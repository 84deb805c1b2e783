"""Features of a day against a brute-force oracle, and the two promises of time: nothing later, nothing older."""

from __future__ import annotations

import datetime as dt
import statistics

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.features.daily import daily_features
from ct_assets.features.functions import FUNCTIONS
from ct_assets.features.spec import LOOKBACK_DAYS, PRODUCT_DAILY, VIEWS
from ct_assets_tests.features.shop import START, Line, made, net_units, tables


def oracle(lines: list[Line], day: dt.date) -> dict[str, dict[str, float]]:
    """Every feature of every active product of ``day``, in plain Python."""
    known = [line for line in lines if line.day <= day]
    net = net_units(known, day)
    opens = sorted({line.day for line in known})
    found = {}
    for code in sorted({line.code for line in known}):
        counted = [d for d in opens if (day - d).days < 112][-56:]
        if not any(net.get((d, code), 0) > 0 for d in counted):
            continue
        found[code] = _product(known, net, opens, code, day)
    return found


def _product(known: list[Line], net: dict, opens: list[dt.date], code: str, day: dt.date) -> dict[str, float]:
    def window(days: int) -> list[dt.date]:
        return [d for d in opens if (day - d).days < days]

    def units(days: int) -> list[float]:
        return [float(net.get((d, code), 0)) for d in window(days)]

    def gross(days: int) -> list[Line]:
        return [x for x in known if x.code == code and x.quantity > 0 and (day - x.day).days < days]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    sold = [d for d in window(112) if net.get((d, code), 0) > 0]

    def seen(days: int) -> float:
        since = [d for d in window(days) if d >= min(sold) or (day - d).days < 7]
        return sum(units(days)) / len(since)

    last = [x for x in gross(112) if x.day == max(y.day for y in gross(112))]
    price_last = sum(x.quantity * x.price for x in last) / sum(x.quantity for x in last)
    mean_price = None
    if gross(56):
        mean_price = sum(x.quantity * x.price for x in gross(56)) / sum(x.quantity for x in gross(56))
    ordered = sorted(units(56))
    cap = max(ordered[-min(3, len(ordered))], 1)
    shop = {
        days: sum(v for (d, _), v in net.items() if (day - d).days < days) / len(window(days)) for days in (28, 112)
    }
    in_code = [x for x in known if x.code == code]
    return {
        "units_lag_1": net.get((day, code), 0),
        "units_lag_7": net.get((day - dt.timedelta(6), code), 0),
        **{f"units_mean_{n}": mean(units(n)) for n in (7, 14, 28, 56, 112)},
        **{f"units_seen_{n}": seen(n) for n in (28, 56)},
        **{f"sold_share_{n}": mean([float(v > 0) for v in units(n)]) for n in (28, 112)},
        "units_median_28": statistics.median(units(28)),
        "units_max_28": max(units(28)),
        "units_std_28": statistics.pstdev(units(28)),
        "units_capped_mean_56": mean([min(v, cap) for v in units(56)]),
        **{
            f"orders_mean_{n}": sum(x.quantity > 0 and (day - x.day).days < n for x in in_code) / len(window(n))
            for n in (7, 28)
        },
        "returned_mean_28": sum(-x.quantity for x in in_code if x.quantity < 0 and (day - x.day).days < 28)
        / len(window(28)),
        "price_last": price_last,
        "price_ratio_56": price_last / mean_price if mean_price else 1.0,
        "days_since_sale": (day - max(sold)).days,
        "age_days": (day - min(sold)).days,
        "weekday": day.weekday(),
        "month": day.month,
        "shop_trend_28": shop[28] / shop[112],
    }


@given(seed=st.integers(0, 10**6), days=st.integers(20, 150))
@settings(max_examples=25, deadline=None)
def test_every_feature_is_what_plain_python_says(seed: int, days: int) -> None:
    lines = made(seed, days)
    asked = [lines[-1].day, lines[len(lines) // 2].day]
    got = daily_features(*tables(lines), asked)
    for day in set(asked):
        want = oracle(lines, day)
        rows = got.filter(pl.col("day") == day)
        assert rows["stock_code"].to_list() == list(want)
        for row in rows.iter_rows(named=True):
            for name, value in want[row["stock_code"]].items():
                assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-5), (day, row["stock_code"], name)


def test_every_feature_of_the_specification_is_in_the_oracle_and_has_a_function() -> None:
    lines = made(1, 60)
    names = set(next(iter(oracle(lines, lines[-1].day).values())))
    assert names == set(PRODUCT_DAILY.names)
    assert {f.function for f in PRODUCT_DAILY.features} == set(FUNCTIONS)
    assert VIEWS["product_daily"] is PRODUCT_DAILY
    assert max(f.window for f in PRODUCT_DAILY.features) == LOOKBACK_DAYS + 1


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_nothing_that_comes_later_changes_a_day(seed: int) -> None:
    lines = made(seed, 90)
    day = lines[len(lines) // 2].day
    past = [line for line in lines if line.day <= day]
    changed = past + [Line(x.day, x.code, x.quantity * 7, x.price * 3, x.customer) for x in lines if x.day > day]
    before = daily_features(*tables(past), [day])
    assert daily_features(*tables(lines), [day]).equals(before)
    assert daily_features(*tables(changed), [day]).equals(before)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_nothing_before_the_look_back_changes_a_day(seed: int) -> None:
    lines = made(seed, 170)
    day = lines[-1].day
    window = [line for line in lines if (day - line.day).days <= LOOKBACK_DAYS]
    assert daily_features(*tables(window), [day]).equals(daily_features(*tables(lines), [day]))


def test_a_correction_changes_the_days_of_the_look_back_and_no_other() -> None:
    lines = made(5, 260)
    corrected_day = START + dt.timedelta(days=100)
    spoiled = [
        Line(
            x.day,
            x.code,
            x.quantity * 2 if x.day == corrected_day and x.quantity > 0 else x.quantity,
            x.price,
            x.customer,
        )
        for x in lines
    ]
    days = sorted({line.day for line in lines})
    before, after = (daily_features(*tables(version), days) for version in (lines, spoiled))
    differing = {
        day for day in days if not before.filter(pl.col("day") == day).equals(after.filter(pl.col("day") == day))
    }
    reach = {day for day in days if 0 <= (day - corrected_day).days <= LOOKBACK_DAYS}
    assert differing == reach


def test_a_cancellation_is_taken_off_its_sale_from_the_day_it_is_known() -> None:
    day = [START + dt.timedelta(days=n) for n in range(3)]
    lines = [Line(day[0], "A", 100, 1.0, "c"), Line(day[0], "B", 1, 1.0, "c"), Line(day[1], "B", 1, 1.0, "c")]
    lines += [Line(day[2], "A", -100, 1.0, "c"), Line(day[2], "B", 1, 1.0, "c")]
    got = daily_features(*tables(lines), day).filter(pl.col("stock_code") == "A")
    assert got["day"].to_list() == day[:2]  # on the third day the only sale is taken back: not active
    assert got["units_mean_7"].to_list() == [100.0, 50.0]
    assert got["returned_mean_28"].to_list() == [0.0, 0.0]


def test_types_and_order_are_stated() -> None:
    got = daily_features(*tables(made(2, 40)), [START + dt.timedelta(days=30), START])
    assert list(got.schema.items())[:2] == [("day", pl.Date), ("stock_code", pl.String)]
    assert set(got.select(PRODUCT_DAILY.names).dtypes) == {pl.Float32}
    assert got["day"].is_sorted()
    assert np.isfinite(got.select(PRODUCT_DAILY.names).to_numpy()).all()
    assert daily_features(*tables(made(2, 40)), [START - dt.timedelta(days=9)]).is_empty()

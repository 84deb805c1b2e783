"""Labels, who is in the set, maturity and fold origins; each against plain Python."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.features.daily import daily_features
from ct_assets.features.panel import build_panel
from ct_assets.features.spec import PRODUCT_DAILY
from ct_assets.features.training_set import (
    complete_until,
    data_digest,
    expected_open_days,
    labelled_rows,
    training_frame,
    weekly_origins,
)
from ct_assets_tests.features.shop import CLOSED_WEEKDAY, START, Line, made, net_units, tables


def week(lines: list[Line], origin: dt.date, code: str, known_on: dt.date) -> int:
    net = net_units(lines, known_on)
    return sum(net.get((origin + dt.timedelta(days=n), code), 0) for n in range(1, 8))


@given(seed=st.integers(0, 10**6), days=st.integers(45, 110))
@settings(max_examples=20, deadline=None)
def test_labels_are_the_net_units_of_the_seven_days_after(seed: int, days: int) -> None:
    lines = made(seed, days)
    frame = training_frame(*tables(lines))
    opens = {line.day for line in lines}
    last = max(opens)
    for origin, code, units, count, rate in frame.select(
        "origin", "stock_code", "label_units", "label_open_days", "label_per_open_day"
    ).iter_rows():
        assert units == week(lines, origin, code, last)
        assert count == sum(origin + dt.timedelta(days=n) in opens for n in range(1, 8))
        assert rate == units / count


def test_features_of_a_row_are_those_of_the_published_partition() -> None:
    lines = made(3, 90)
    frame = training_frame(*tables(lines))
    origin = frame["origin"].max()
    published = daily_features(*tables(lines), [origin])
    mine = frame.filter(pl.col("origin") == origin).select("stock_code", *PRODUCT_DAILY.names)
    assert mine.equals(published.select("stock_code", *PRODUCT_DAILY.names))


def test_no_row_of_an_active_product_is_missing_and_none_is_doubled() -> None:
    lines = made(4, 90)
    frame = training_frame(*tables(lines))
    opens = sorted({line.day for line in lines})
    for origin in frame["origin"].unique():
        known = [d for d in opens if d <= origin][-56:]
        net = net_units([x for x in lines if x.day <= origin], origin)
        want = sorted({code for (day, code), units in net.items() if day in known and units > 0})
        assert frame.filter(pl.col("origin") == origin)["stock_code"].to_list() == want


def test_the_cut_off_hides_everything_after_it() -> None:
    lines = made(6, 100)
    cutoff = START + dt.timedelta(days=70)
    known = [line for line in lines if line.day <= cutoff]
    frame = training_frame(*tables(lines), cutoff=cutoff)
    assert frame.equals(training_frame(*tables(known)))
    assert frame["origin"].max() <= cutoff - dt.timedelta(days=6)


def test_a_cancellation_known_too_late_leaves_the_label_gross() -> None:
    days = [START + dt.timedelta(days=n) for n in range(60)]
    lines = [Line(day, "A", 1, 1.0, None) for day in days]
    lines.append(Line(days[35], "A", 50, 1.0, "c"))
    lines.append(Line(days[55], "A", -50, 1.0, "c"))
    lines.sort(key=lambda line: line.day)
    panel = build_panel(*tables(lines))
    assert labelled_rows(panel, [32], known_on=54)["label_units"].to_list() == [57.0]
    assert labelled_rows(panel, [32], known_on=55)["label_units"].to_list() == [7.0]


def test_a_wholly_closed_week_is_no_label_and_a_day_without_sale_counts_nothing() -> None:
    days = [START + dt.timedelta(days=n) for n in (*range(40), *range(48, 70))]  # closed for eight days
    lines = [Line(day, "A", 2, 1.0, None) for day in days] + [Line(days[30], "B", 5, 1.0, None)]
    lines.sort(key=lambda line: line.day)
    frame = training_frame(*tables(lines))
    closed = START + dt.timedelta(days=39)
    assert closed not in frame["origin"].to_list()
    assert frame.filter(pl.col("origin") == closed - dt.timedelta(days=1), pl.col("stock_code") == "A")[
        "label_open_days"
    ].to_list() == [1]
    quiet = frame.filter(pl.col("origin") == START + dt.timedelta(days=31), pl.col("stock_code") == "B")
    assert quiet.select("label_units", "label_open_days").row(0) == (0.0, 7)


def test_an_unmatured_origin_is_refused_with_the_day_that_is_missing() -> None:
    lines = made(1, 60)
    origin = lines[-1].day - dt.timedelta(days=2)
    with pytest.raises(ValueError, match=str(origin + dt.timedelta(days=7))):
        training_frame(*tables(lines), origins=[origin])


def test_a_closed_weekday_after_the_last_delivery_is_not_waited_for() -> None:
    lines = [line for line in made(1, 90) if line.day.weekday() != CLOSED_WEEKDAY]
    friday = max(line.day for line in lines if line.day.weekday() == 4)
    panel = build_panel(*tables([line for line in lines if line.day <= friday]))
    assert panel.day(complete_until(panel)) == friday + dt.timedelta(days=1)  # Saturday
    thursday = friday - dt.timedelta(days=1)
    panel = build_panel(*tables([line for line in lines if line.day <= thursday]))
    assert panel.day(complete_until(panel)) == thursday
    short = build_panel(*tables([line for line in lines if line.day <= START + dt.timedelta(days=4)]))
    assert complete_until(short) == 4


def test_fold_origins_are_matured_fridays_on_one_grid() -> None:
    lines = made(2, 120)
    grids = []
    for days in (100, 101, 103):
        panel = build_panel(*tables([x for x in lines if x.day < START + dt.timedelta(days=days)]))
        origins = weekly_origins(panel, 4)
        assert len(origins) == 4
        assert all(panel.day(at).weekday() == 4 for at in origins)
        assert all(at + 7 <= complete_until(panel) for at in origins)
        assert complete_until(panel) - origins[-1] < 14
        grids.append({panel.day(at) for at in origins})
    assert len(set.union(*grids)) <= 5  # adding days adds folds, it does not move them


def test_open_days_ahead_follow_the_weekdays_of_the_last_weeks() -> None:
    lines = made(8, 60)
    panel = build_panel(*tables(lines))
    at = panel.index(START + dt.timedelta(days=55))
    ahead = [(panel.day(at) + dt.timedelta(days=n)).weekday() for n in range(1, 8)]
    assert expected_open_days(panel, at).tolist() == [weekday != CLOSED_WEEKDAY for weekday in ahead]


def test_the_digest_knows_rows_and_not_their_order_or_what_comes_later() -> None:
    lines = made(9, 60)
    daily, detail = tables(lines)
    until = START + dt.timedelta(days=40)
    digest = data_digest(daily, detail, until)
    assert data_digest(daily.sample(fraction=1, shuffle=True, seed=1), detail.reverse(), until) == digest
    assert data_digest(daily.filter(pl.col("day") <= until), detail, until) == digest
    one_more = daily.with_columns(units=pl.col("units") + (pl.int_range(pl.len()) == 3).cast(pl.Int64))
    assert data_digest(one_more, detail, until) != digest


def test_an_empty_table_says_so() -> None:
    daily, detail = tables(made(1, 10))
    with pytest.raises(ValueError, match="no daily product sales"):
        build_panel(daily.clear(), detail)
    panel = build_panel(daily, detail)
    assert labelled_rows(panel, np.array([], dtype=int), known_on=3).is_empty()

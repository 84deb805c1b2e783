"""Measures and baselines against scikit-learn, plain Python and values worked out by hand."""

from __future__ import annotations

import datetime as dt
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.features.panel import build_panel
from ct_assets.training import measures
from ct_assets.training.baselines import baselines, tsb
from ct_assets_tests.features.shop import START, made, net_units, tables

positive = st.lists(st.tuples(st.integers(0, 1000), st.floats(0.02, 1000)), min_size=1, max_size=40)


@given(positive)
@settings(deadline=None)
def test_deviance_is_scikit_learns(rows: list[tuple[int, float]]) -> None:
    from sklearn.metrics import mean_poisson_deviance

    truth, forecast = np.array(rows, dtype=float).T
    assert measures.poisson_deviance(truth, forecast) == pytest.approx(mean_poisson_deviance(truth, forecast), abs=1e-9)


def test_a_forecast_of_nothing_costs_much_and_not_infinitely() -> None:
    got = measures.poisson_deviance(np.array([4.0]), np.array([0.0]))
    assert got == pytest.approx(2 * (4 * math.log(4 / 0.01) - 4 + 0.01))


def test_wape_bias_and_coverage_by_hand() -> None:
    truth, forecast = np.array([10.0, 0.0, 5.0]), np.array([8.0, 1.0, 9.0])
    assert measures.wape(truth, forecast) == pytest.approx(7 / 15)
    assert measures.bias(truth, forecast) == pytest.approx(3 / 15)
    assert measures.coverage(truth, forecast) == pytest.approx(2 / 3)


def test_no_rows_and_no_demand_are_not_a_number() -> None:
    none = np.array([])
    assert all(
        math.isnan(f(none, none)) for f in (measures.poisson_deviance, measures.wape, measures.bias, measures.coverage)
    )
    assert math.isnan(measures.wape(np.zeros(3), np.ones(3)))
    assert math.isnan(measures.coverage(np.ones(2), np.array([1.0, np.nan])))


def test_slices_split_the_volume_and_set_new_products_apart() -> None:
    volume = np.array([50.0, 1.0, 30.0, 15.0, 4.0])
    age = np.array([100, 100, 100, 100, 27])
    assert measures.slices(volume, age).tolist() == ["high", "low", "middle", "middle", "new"]
    assert measures.slices(np.array([]), np.array([])).tolist() == []


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_baselines_are_what_plain_python_says(seed: int) -> None:
    lines = made(seed, 80)
    panel = build_panel(*tables(lines))
    at = 60
    day = START + dt.timedelta(days=at)
    rows = panel.active(at)
    got = baselines(panel, at, rows)
    net = net_units([x for x in lines if x.day <= day], day)
    opens = sorted({x.day for x in lines if x.day <= day})
    for position, code in enumerate(panel.codes[rows]):
        series = [net.get((d, code), 0) for d in opens]
        last_week = [net.get((day - dt.timedelta(days=n), code), 0) for n in range(7)]
        open_last_week = sum(day - dt.timedelta(days=n) in opens for n in range(7))
        assert got["mean_28"][position] == pytest.approx(sum(series[-28:]) / 28)
        assert got["median_28"][position] == statistics.median(series[-28:])
        assert got["last_week"][position] == pytest.approx(sum(last_week) / open_last_week)
        assert got["zero"][position] == 0
        assert got["croston_tsb"][position] == pytest.approx(_tsb(series))


def _tsb(series: list[int]) -> float:
    sold = [v for v in series if v > 0]
    probability, size = len(sold) / len(series), sum(sold) / len(sold)
    for value in series:
        probability += 0.1 * ((value > 0) - probability)
        if value > 0:
            size += 0.1 * (value - size)
    return probability * size


def test_a_product_that_never_sold_is_forecast_to_sell_nothing() -> None:
    assert tsb(np.zeros((2, 30))).tolist() == [0.0, 0.0]

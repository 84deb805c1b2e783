"""Bounds on what is published: a poisoned forecast is held, an honest strong week passes."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ct_assets.features.panel import Matches, Panel
from ct_assets.training.candidate import WeekAhead
from ct_assets.training.plausibility import Bounds, ImplausibleForecast, refuse_implausible

PRODUCTS, WEEKS = 400, 12
FIRST = dt.date(2011, 1, 3)
NONE = np.array([], np.int64)


def panel(weeks: int = WEEKS, last_day: float = 1.0) -> Panel:
    """Every product sells 10 on each of six open days a week; ``last_day`` multiplies the newest day."""
    is_open = np.tile([True] * 6 + [False], weeks)
    units = np.where(is_open, 10.0, 0.0) * np.ones((PRODUCTS, 1))
    units[:, np.flatnonzero(is_open)[-1]] *= last_day
    matches = Matches(NONE, NONE, NONE, NONE.astype(float))
    return Panel(np.array([f"P{n}" for n in range(PRODUCTS)]), FIRST, is_open, {"units": units}, matches)


def week(found: Panel, per_day: float = 10.0, odd: int = 0, odd_factor: float = 1.0) -> WeekAhead:
    """``per_day`` units for every product on six days; the first ``odd`` products ``odd_factor`` times that."""
    as_of = found.day(found.days - 1)
    factor = np.where(np.arange(PRODUCTS) < odd, odd_factor, 1.0)
    codes = pl.DataFrame({"stock_code": found.codes, "mean": per_day * factor})
    days = pl.DataFrame({"day": [as_of + dt.timedelta(days=n) for n in range(1, 7)]})
    return WeekAhead(as_of, codes.join(days, how="cross"), codes.with_columns(mean=pl.col("mean") * 6))


@pytest.mark.parametrize("factor", [0.26, 0.6, 1.0, 1.7, 3.9])
def test_honest_weeks_pass(factor: float) -> None:
    assert refuse_implausible(week(panel(), 10 * factor), panel(), Bounds()) is None


@pytest.mark.parametrize(("factor", "shown"), [(0.2, "800"), (4.1, "16,400")])
def test_a_total_beyond_the_bounds_is_held_with_value_and_bound(factor: float, shown: str) -> None:
    with pytest.raises(ImplausibleForecast) as held:
        refuse_implausible(week(panel(), 10 * factor), panel(), Bounds())
    assert f"is {shown} units per open day; the median of the last weeks is 4,000" in held.value.message
    assert "--release-forecast" in (held.value.hint or "")


def test_one_poisoned_day_does_not_move_the_bounds() -> None:
    poisoned = panel(last_day=100.0)
    with pytest.raises(ImplausibleForecast, match="median of the last weeks is 4,000"):
        refuse_implausible(week(poisoned, 50.0), poisoned, Bounds())


def test_a_few_products_may_be_odd_but_not_many() -> None:
    refuse_implausible(week(panel(), odd=4, odd_factor=6.0), panel(), Bounds())
    with pytest.raises(ImplausibleForecast, match="has 5 of 400 products beyond 5 times their second largest week"):
        refuse_implausible(week(panel(), odd=5, odd_factor=6.0), panel(), Bounds())
    refuse_implausible(week(panel(), odd=5, odd_factor=6.0), panel(), Bounds(product=7.0))


def test_a_short_history_bounds_nothing() -> None:
    refuse_implausible(week(panel(weeks=3), 500.0), panel(weeks=3), Bounds())
    with pytest.raises(ImplausibleForecast):
        refuse_implausible(week(panel(weeks=4), 500.0), panel(weeks=4), Bounds())

"""The functions behind the features: each takes a day's view of the panel and a window, and gives one value a product.

What goes here: one function a kind of feature. What does not: names, windows, descriptions (``spec``).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ct_assets.features.panel import Panel
from ct_assets.features.spec import WINDOW_DAYS


@dataclass(frozen=True)
class DayView:
    """The last ``WINDOW_DAYS`` days up to day ``at``, as known at its end, for the products at ``rows``.

    Arrays have shape (products, days); the last column is the day itself.
    """

    panel: Panel
    at: int
    rows: np.ndarray

    @cached_property
    def part(self) -> slice:
        """The days in view."""
        return self.panel.window(self.at, WINDOW_DAYS)

    @cached_property
    def is_open(self) -> np.ndarray:
        """Which days in view are open."""
        return self.panel.is_open[self.part]

    @cached_property
    def net_all(self) -> np.ndarray:
        """Net units of all products."""
        return self.panel.net(self.part, self.at)

    @cached_property
    def net(self) -> np.ndarray:
        """Net units of the products in view."""
        return self.net_all[self.rows]

    @cached_property
    def gross(self) -> np.ndarray:
        """Units before any netting: what prices are weighted with."""
        return self.panel.measures["units"][self.rows, self.part]

    @cached_property
    def revenue(self) -> np.ndarray:
        """Revenue of the products in view, pounds."""
        return self.panel.measures["revenue"][self.rows, self.part]

    @property
    def day(self) -> dt.date:
        """The day itself."""
        return self.panel.day(self.at)

    def open_count(self, window: int) -> int:
        """Open days among the last ``window`` days, at least 1."""
        return max(1, int(self.is_open[-window:].sum()))

    def net_open(self, window: int) -> np.ndarray:
        """Net units on the open days of the last ``window`` days (one column of zeros when none is open)."""
        part = self.net[:, -window:][:, self.is_open[-window:]]
        return part if part.shape[1] else np.zeros((len(self.rows), 1))

    def per_open_day(self, values: np.ndarray, window: int) -> np.ndarray:
        """Sum over the last ``window`` columns divided by the open days among them."""
        return values[:, -window:].sum(axis=1) / self.open_count(window)

    def everywhere(self, value: float) -> np.ndarray:
        """The same value for every product."""
        return np.full(len(self.rows), value, dtype=np.float64)


def units_lag(view: DayView, window: int) -> np.ndarray:
    """Net units ``window - 1`` days before the day (0 where the panel does not reach back)."""
    return view.net[:, -window] if view.net.shape[1] >= window else view.everywhere(0)


def units_mean(view: DayView, window: int) -> np.ndarray:
    """Net units per open day."""
    return view.per_open_day(view.net, window)


def units_mean_since_first(view: DayView, window: int) -> np.ndarray:
    """Net units per open day since the first net sale, at most ``window`` days back and at least a week.

    What a new product sells: over the whole window its mean is too low by the days before it was there. A week at
    least, because the first day of a product is by definition a day with a sale.
    """
    days = view.net.shape[1]
    sold = view.net > 0
    first = np.where(sold.any(axis=1), np.argmax(sold, axis=1), days)
    begin = np.clip(first, max(0, days - window), max(0, days - 7))
    open_since = np.cumsum(view.is_open[::-1])[::-1]
    return view.net[:, -window:].sum(axis=1) / np.maximum(open_since[begin], 1)


def sold_share(view: DayView, window: int) -> np.ndarray:
    """Share of open days with net units above zero."""
    return view.per_open_day(view.net > 0, window)


def units_median(view: DayView, window: int) -> np.ndarray:
    """Median over open days."""
    return np.median(view.net_open(window), axis=1)


def units_max(view: DayView, window: int) -> np.ndarray:
    """Maximum over open days."""
    return view.net_open(window).max(axis=1)


def units_std(view: DayView, window: int) -> np.ndarray:
    """Population standard deviation over open days."""
    return view.net_open(window).std(axis=1)


def units_capped_mean(view: DayView, window: int) -> np.ndarray:
    """Mean over open days after capping at the third largest day (at 1 where that is less): tames single bulk orders."""
    values = view.net_open(window)
    rank = min(3, values.shape[1])
    cap = np.maximum(np.partition(values, -rank, axis=1)[:, -rank, None], 1)
    return np.minimum(values, cap).mean(axis=1)


def orders_mean(view: DayView, window: int) -> np.ndarray:
    """Orders per open day."""
    return view.per_open_day(view.panel.measures["orders"][view.rows, view.part], window)


def returned_mean(view: DayView, window: int) -> np.ndarray:
    """Returned units per open day, matched to a sale or not."""
    return view.per_open_day(view.panel.measures["units_returned"][view.rows, view.part], window)


def price_last(view: DayView, window: int) -> np.ndarray:
    """Revenue over units on the last day with a sale; 0 where there is none in the window."""
    sold = view.gross[:, -window:] > 0
    at = sold.shape[1] - 1 - np.argmax(sold[:, ::-1], axis=1)
    rows = np.arange(len(sold))
    units, revenue = view.gross[:, -window:][rows, at], view.revenue[:, -window:][rows, at]
    return np.divide(revenue, units, out=np.zeros(len(rows)), where=units > 0)


def price_ratio(view: DayView, window: int) -> np.ndarray:
    """Last price over the mean price of the window; 1 where either is unknown or zero."""
    units, revenue = view.gross[:, -window:].sum(axis=1), view.revenue[:, -window:].sum(axis=1)
    last = price_last(view, WINDOW_DAYS)
    known = (units > 0) & (revenue > 0) & (last > 0)
    return np.divide(last * units, revenue, out=np.ones(len(units)), where=known)


def days_since_sale(view: DayView, window: int) -> np.ndarray:
    """Days since the last net sale: 0 on the day of one, ``window`` when there is none."""
    sold = view.net[:, -window:] > 0
    return np.where(sold.any(axis=1), np.argmax(sold[:, ::-1], axis=1), window).astype(np.float64)


def age_days(view: DayView, window: int) -> np.ndarray:
    """Days since the first net sale in the window; 0 when there is none."""
    sold = view.net[:, -window:] > 0
    return np.where(sold.any(axis=1), sold.shape[1] - 1 - np.argmax(sold, axis=1), 0).astype(np.float64)


def weekday(view: DayView, window: int) -> np.ndarray:
    """0 Monday to 6 Sunday."""
    return view.everywhere(view.day.weekday())


def month(view: DayView, window: int) -> np.ndarray:
    """1 to 12."""
    return view.everywhere(view.day.month)


def shop_trend(view: DayView, window: int) -> np.ndarray:
    """Net units of the whole shop per open day, last ``window`` days over the whole look-back; 1 without sales."""
    recent = view.net_all[:, -window:].sum() / view.open_count(window)
    whole = view.net_all.sum() / view.open_count(WINDOW_DAYS)
    return view.everywhere(recent / whole if whole > 0 else 1.0)


FUNCTIONS = {
    function.__name__: function
    for function in (
        units_lag, units_mean, units_mean_since_first, sold_share, units_median, units_max, units_std, units_capped_mean, orders_mean,
        returned_mean, price_last, price_ratio, days_since_sale, age_days, weekday, month, shop_trend,
    )
}  # fmt: skip

"""The dense panel: products x calendar days, and what a product's days looked like as known on a given day.

What goes here: the arrays that features, labels and baselines are read from. What does not: features themselves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ct_assets.features.netting import matched_cancellations
from ct_assets.features.spec import ACTIVE_OPEN_DAYS, WINDOW_DAYS

MEASURES = ("units", "revenue", "orders", "units_returned")


@dataclass(frozen=True)
class Matches:
    """Matched cancellations as arrays of one length: product index, day indices, units."""

    product: np.ndarray
    sale: np.ndarray
    cancel: np.ndarray
    units: np.ndarray


@dataclass(frozen=True)
class Panel:
    """``measures[name]`` is float64 of shape (products, days); ``is_open`` has one bool a day; day 0 is ``first_day``."""

    codes: np.ndarray
    first_day: dt.date
    is_open: np.ndarray
    measures: dict[str, np.ndarray]
    matches: Matches
    kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # rows computed before, by origin

    @property
    def days(self) -> int:
        """How many calendar days the panel holds."""
        return len(self.is_open)

    def index(self, day: dt.date) -> int:
        """The position of ``day``; may lie outside the panel."""
        return (day - self.first_day).days

    def day(self, index: int) -> dt.date:
        """The day at a position."""
        return self.first_day + dt.timedelta(days=int(index))

    @cached_property
    def open_days(self) -> np.ndarray:
        """Positions of the open days."""
        return np.flatnonzero(self.is_open)

    def window(self, at: int, days: int) -> slice:
        """The ``days`` calendar days that end with ``at``, cut off where the panel begins."""
        return slice(max(0, at - days + 1), at + 1)

    def net(self, part: slice, known_at: int) -> np.ndarray:
        """Units of ``part`` less the cancellations known by the end of day ``known_at``; shape (products, days)."""
        net = self.measures["units"][:, part].copy()
        start, stop, _ = part.indices(self.days)
        m = self.matches
        known = (m.cancel <= known_at) & (m.sale >= start) & (m.sale < stop)
        np.subtract.at(net, (m.product[known], m.sale[known] - start), m.units[known])
        return net

    def active(self, at: int) -> np.ndarray:
        """Positions of the products that had a net sale on one of the last 56 open days, as known on day ``at``.

        A new product enters with its first sale; a discontinued one leaves when 56 open days have passed without.
        """
        part = self.window(at, WINDOW_DAYS)
        counted = np.flatnonzero(self.is_open[part])[-ACTIVE_OPEN_DAYS:]
        return np.flatnonzero((self.net(part, at)[:, counted] > 0).any(axis=1))


def build_panel(daily: pl.DataFrame, lines: pl.DataFrame, open_days: Iterable[dt.date] = ()) -> Panel:
    """The panel over all days of ``daily``.

    ``daily``: ``day, stock_code, units, revenue, orders, units_returned``, one row a product and day.
    ``lines``: columns of :data:`netting.COLUMNS`, products only; needed for the cancellations and their sales.
    ``open_days``: days with a delivery; those of ``daily`` always count.
    """
    if daily.is_empty():
        raise ValueError("no daily product sales: there is nothing to make features of")
    days = set(daily["day"].unique()) | set(open_days)
    first, last = min(days), max(days)
    codes = np.array(sorted(daily["stock_code"].unique()), dtype=object)
    shape = (len(codes), (last - first).days + 1)
    rows, columns = _positions(daily["stock_code"], codes), _offsets(daily["day"], first)
    measures = {}
    for name in MEASURES:
        measures[name] = np.zeros(shape)
        measures[name][rows, columns] = daily[name].cast(pl.Float64).to_numpy()
    is_open = np.zeros(shape[1], dtype=bool)
    is_open[[(day - first).days for day in days]] = True
    pairs = matched_cancellations(lines).filter(pl.col("stock_code").is_in(list(codes)), pl.col("sale_day") >= first)
    matches = Matches(
        _positions(pairs["stock_code"], codes),
        _offsets(pairs["sale_day"], first),
        _offsets(pairs["cancel_day"], first),
        pairs["units"].cast(pl.Float64).to_numpy(),
    )
    return Panel(codes, first, is_open, measures, matches)


def _positions(values: pl.Series, codes: np.ndarray) -> np.ndarray:
    table = pl.DataFrame({"code": pl.Series(list(codes), dtype=pl.String), "at": np.arange(len(codes))})
    return values.to_frame("code").join(table, on="code", how="left", maintain_order="left")["at"].to_numpy()


def _offsets(days: pl.Series, first: dt.date) -> np.ndarray:
    return (days - first).dt.total_days().to_numpy() if len(days) else np.zeros(0, dtype=np.int64)

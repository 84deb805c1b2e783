"""Whether a forecast may be published at all: its size against what was sold lately.

What goes here: the rule and its numbers. What does not: quality against truth (``gates``), publishing.

The champion forecasts also on days whose candidate was refused, perhaps from poisoned features. Two bounds catch what no
planner would believe. Both compare with *medians or second largest values*, so that one poisoned day cannot move them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ct_assets.errors import CtError

if TYPE_CHECKING:
    from ct_assets.features.panel import Panel
    from ct_assets.training.candidate import WeekAhead

WEEKS, LEAST_WEEKS = 8, 4
HALF_YEAR = 26
SHARE, LEAST_PRODUCTS = 0.01, 3


class ImplausibleForecast(CtError):
    """A forecast beyond the bounds: it is not published, the last good one stays."""


@dataclass(frozen=True)
class Bounds:
    """``total``: all products' units per open day, as a multiple of the median of the last 8 weeks' (4 at least are
    needed). ``product``: a product's week, as a multiple of the second largest week of its last 26 (10 units at least);
    at most 1 % of the products (and 3) may lie beyond.

    Measured on 224 real days of Online Retail: the next week's true total was 0.61 to 1.67 of that median.
    """

    total: tuple[float, float] = (0.25, 4.0)
    product: float = 5.0


def refuse_implausible(week: WeekAhead, panel: Panel, bounds: Bounds) -> None:
    """Raise :class:`ImplausibleForecast` with the value, the bound and what to do; pass when history is too short."""
    if week.daily.is_empty():
        return  # refused when it is published: no rows
    weekly = _weekly(panel)
    rates = [units.sum() / days for units, days in weekly[:WEEKS] if days]
    if len(rates) >= LEAST_WEEKS:
        _check_total(week, float(np.median(rates)), bounds.total)
    if len(weekly) >= LEAST_WEEKS:
        _check_products(week, panel, weekly[:HALF_YEAR], bounds.product)


def _weekly(panel: Panel) -> list[tuple[np.ndarray, int]]:
    """(units of each product, open days) of whole weeks, the newest first."""
    end = panel.days
    found = []
    for stop in range(end, 6, -7):
        part = slice(stop - 7, stop)
        found.append((panel.net(part, end - 1).sum(axis=1), int(panel.is_open[part].sum())))
    return found


def _check_total(week: WeekAhead, usual: float, within: tuple[float, float]) -> None:
    rate = float(week.daily["mean"].sum()) / week.daily["day"].n_unique()
    low, high = (usual * factor for factor in within)
    if not low <= rate <= high:
        raise ImplausibleForecast(
            f"the forecast after {week.as_of} is {rate:,.0f} units per open day; the median of the last weeks is"
            f" {usual:,.0f}, and {within[0]:g} to {within[1]:g} times that is published",
            hint="look at the newest days (`ct status`); nothing was published, readers keep the last good forecast."
            " If it is right: ct run --pipeline NAME --release-forecast YOUR_NAME",
        )


def _check_products(week: WeekAhead, panel: Panel, weekly: list[tuple[np.ndarray, int]], factor: float) -> None:
    largest = np.sort(np.stack([units for units, _ in weekly]), axis=0)[-2]
    limits = dict(zip(panel.codes.tolist(), (np.maximum(largest, 10.0) * factor).tolist(), strict=True))
    beyond = [
        (code, mean) for code, mean in week.totals.select("stock_code", "mean").iter_rows() if mean > limits[code]
    ]
    if len(beyond) >= LEAST_PRODUCTS and len(beyond) > SHARE * len(week.totals):
        code, mean = max(beyond, key=lambda found: found[1] / limits[found[0]])
        raise ImplausibleForecast(
            f"the forecast after {week.as_of} has {len(beyond)} of {len(week.totals)} products beyond {factor:g} times"
            f" their second largest week; {code}: {mean:,.0f} units, at most {limits[code]:,.0f}",
            hint="look at the newest days (`ct status`); nothing was published, readers keep the last good forecast."
            " If it is right: ct run --pipeline NAME --release-forecast YOUR_NAME",
        )

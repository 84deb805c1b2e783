"""Forecasts that a planner would make without a model.

What goes here: baselines read off the panel as known at the origin. What does not: anything that is fitted.
All give units per open day, shape (products,).
"""

from __future__ import annotations

import numpy as np

from ct_assets.features.panel import Panel
from ct_assets.features.spec import WINDOW_DAYS

OPEN_DAYS = 28


def baselines(panel: Panel, at: int, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every baseline for the products ``rows`` as known at the end of day ``at``; windows are of open days."""
    part = panel.window(at, WINDOW_DAYS)
    net = panel.net(part, at)[rows]
    is_open = panel.is_open[part]
    series = net[:, is_open]
    return {
        "zero": np.zeros(len(rows)),
        "last_week": _last_week(net, is_open),
        "mean_28": series[:, -OPEN_DAYS:].mean(axis=1),
        "median_28": np.median(series[:, -OPEN_DAYS:], axis=1),
        "croston_tsb": tsb(series),
    }


def _last_week(net: np.ndarray, is_open: np.ndarray) -> np.ndarray:
    """Same weekday last week, over the week: the last seven calendar days per open day among them."""
    return net[:, -7:].sum(axis=1) / max(1, int(is_open[-7:].sum()))


def tsb(series: np.ndarray, alpha: float = 0.1, beta: float = 0.1) -> np.ndarray:
    """Croston's method in the form of Teunter, Syntetos and Babai (2011): probability of demand times its size.

    ``series``: (products, open days), oldest first. The probability is smoothed with ``beta`` every day, the size
    with ``alpha`` on days of demand; both begin with the mean of the series, which needs no warm-up.
    """
    sold = series > 0
    probability = sold.mean(axis=1)
    count = sold.sum(axis=1)
    size = np.divide(np.where(sold, series, 0).sum(axis=1), count, out=np.zeros(len(series)), where=count > 0)
    for day in range(series.shape[1]):
        hit = sold[:, day]
        probability = probability + beta * (hit - probability)
        size = np.where(hit, size + alpha * (series[:, day] - size), size)
    return probability * size

"""Panels and evaluations for tests of training, with a signal that a model can learn and a planner cannot.

What goes here: made-up input. What does not: expectations.
"""

from __future__ import annotations

import datetime as dt
import functools

import numpy as np
import polars as pl

from ct_assets.features.panel import Panel, build_panel
from ct_assets.training.evaluation import BASELINES, Evaluation, Fold
from ct_assets_tests.features.shop import LINES

START = dt.date(2011, 1, 3)


@functools.cache
def panel(days: int = 100, products: int = 60) -> Panel:
    """Poisson demand of products of different level that rises and falls in waves; Saturdays closed."""
    return build_panel(*tables(days, products))


@functools.cache
def tables(days: int = 100, products: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Daily sales and (no) lines."""
    rng = np.random.default_rng(3)
    level = np.exp(rng.normal(2.5, 0.8, products))
    # waves of 35 days: where a product is in its wave shows in the last week over the last month, so a model can tell
    # what comes next; every mean of the past is late
    phase = rng.uniform(0, 2 * np.pi, products)
    wave = 1 + 0.8 * np.sin(2 * np.pi * np.arange(days)[:, None] / 35 + phase)
    units = rng.poisson(level * wave)
    rows = [
        (START + dt.timedelta(days=day), f"P{product:03d}", int(units[day, product]))
        for day in range(days)
        if (START + dt.timedelta(days=day)).weekday() != 5
        for product in range(products)
        if units[day, product]
    ]
    daily = pl.DataFrame(rows, schema={"day": pl.Date, "stock_code": pl.String, "units": pl.Int64}, orient="row")
    daily = daily.with_columns(
        revenue=pl.col("units") * 2.0, orders=pl.lit(1, pl.Int64), units_returned=pl.lit(0, pl.Int64)
    )
    return daily, pl.DataFrame(schema=LINES)


def evaluation(
    error: float = 0.1, *, seed: int = 0, products: int = 200, digest: str = "own", folds: int = 4
) -> Evaluation:
    """Folds whose mean is off by a factor of about ``exp(error)``; the truth is the same for every ``seed`` and ``error``."""
    rng, noise = np.random.default_rng(1), np.random.default_rng(seed + 2)
    made = []
    for number in range(folds):
        level = np.exp(rng.normal(2, 1, products))
        truth = rng.poisson(level).astype(float)
        mean = level * np.exp(noise.normal(0, error, products))
        rows = {
            "stock_code": [f"P{i}" for i in range(products)],
            "slice": np.where(level > 10, "high", "low").tolist(),
            "truth": truth,
            "mean": mean,
            "p50": mean,
            "p90": mean + 1.6 * np.sqrt(mean),
            **{name: level * (0 if name == "zero" else 1.7) for name in BASELINES},
        }
        made.append(Fold(START + dt.timedelta(days=7 * number), pl.DataFrame(rows)))
    return Evaluation(digest, tuple(made))

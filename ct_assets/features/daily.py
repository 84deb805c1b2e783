"""Partitions of a feature view: the rows of given days, computed from the published daily product sales.

What goes here: panel -> rows of features. What does not: which days need computing (the orchestration knows), tables.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from ct_assets.features.functions import FUNCTIONS, DayView
from ct_assets.features.panel import Panel, build_panel
from ct_assets.features.spec import PRODUCT_DAILY, FeatureView


def features_at(
    panel: Panel, at: int, rows: np.ndarray | None = None, view: FeatureView = PRODUCT_DAILY
) -> tuple[np.ndarray, np.ndarray]:
    """Products (positions) and their features, float32 of shape (products, features), as of the end of day ``at``.

    ``rows``: the products to compute; by default those active on that day.
    """
    rows = panel.active(at) if rows is None else rows
    day = DayView(panel, at, rows)
    values = np.empty((len(rows), len(view.features)), dtype=np.float32)
    for column, feature in enumerate(view.features):
        values[:, column] = FUNCTIONS[feature.function](day, feature.window)
    return rows, values


def feature_rows(panel: Panel, days: Sequence[dt.date], view: FeatureView = PRODUCT_DAILY) -> pl.DataFrame:
    """Rows ``day, stock_code, <features>`` of the given days, sorted; a day outside the panel has no rows."""
    frames = []
    for day in sorted(days):
        if 0 <= panel.index(day) < panel.days:
            rows, values = features_at(panel, panel.index(day), view=view)
            frames.append(_frame(day, panel.codes[rows], values, view))
    if not frames:
        return _frame(dt.date.min, np.array([], dtype=object), np.empty((0, len(view.features)), np.float32), view)
    return pl.concat(frames)


def daily_features(
    daily: pl.DataFrame, lines: pl.DataFrame, days: Sequence[dt.date], open_days: Iterable[dt.date] = ()
) -> pl.DataFrame:
    """The partitions ``days`` of ``product_daily`` from the published tables (see :func:`build_panel` for columns).

    Only rows from ``LOOKBACK_DAYS`` before the first of ``days`` to the last of them have an influence.
    """
    return feature_rows(build_panel(daily, lines, open_days), days)


def _frame(day: dt.date, codes: np.ndarray, values: np.ndarray, view: FeatureView) -> pl.DataFrame:
    columns = {name: values[:, at] for at, name in enumerate(view.names)}
    return pl.DataFrame(
        {
            "day": pl.Series([day], dtype=pl.Date).new_from_index(0, len(codes)),
            view.entity: pl.Series(list(codes), dtype=pl.String),
            **columns,
        }
    )

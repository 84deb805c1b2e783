"""Training sets: origins x active products, features as of the origin, the demand of the following week as label.

What goes here: labels, maturity, which origins, the digest of what a fold saw. What does not: models, tables.

Rules, in full:

- A row is (origin day, product). Features are known at the end of the origin day; the label counts the days after it.
- Label: net units of the next 7 CALENDAR days (``label_units``), the open days among them (``label_open_days``), and
  the first over the second (``label_per_open_day``). A day without sale counts 0; a closed day is no label, so an
  origin followed by a wholly closed week has none.
- Rows: every product that sold on one of the last 56 open days. A new product enters with its first sale; a
  discontinued one stays, with zeros, until 56 open days have passed. No label row is dropped for want of features.
- Cancellations that match an earlier sale (``netting``) are taken off the day of the sale, as far as they were known
  on ``known_on``.
- Outliers stay in the set. A recipe may cap labels it learns from and must say so; measures see them uncapped.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from collections.abc import Sequence

import numpy as np
import polars as pl

from ct_assets.features.daily import features_at
from ct_assets.features.netting import matched_cancellations
from ct_assets.features.panel import Panel, build_panel
from ct_assets.features.spec import PRODUCT_DAILY

HORIZON_DAYS = 7
MIN_HISTORY_DAYS = 28
CLOSED_FOR_DAYS = 56
FOLD_WEEKDAY = 4  # Friday: folds lie on one weekly grid whatever the cut-off, so that their results can be kept


def training_frame(
    daily: pl.DataFrame,
    lines: pl.DataFrame,
    *,
    cutoff: dt.date | None = None,
    origins: Sequence[dt.date] | None = None,
) -> pl.DataFrame:
    """The training set as a Polars frame (``.to_pandas()`` for pandas), sorted by origin and product.

    ``daily`` and ``lines``: the published tables in the reading you want (``adapters.training_data.read_sales`` reads
    "as known" at an instant, or "corrected"). ``cutoff``: nothing after this day is looked at (default: the last
    day). ``origins``: default: every open day with 28 days of history whose label has matured by the cut-off.
    Columns: ``origin, stock_code``, the features of ``PRODUCT_DAILY``, ``label_units, label_open_days,
    label_per_open_day``. Raises ValueError for an origin whose label has not matured.
    """
    if cutoff is not None:
        daily, lines = daily.filter(pl.col("day") <= cutoff), lines.filter(pl.col("day") <= cutoff)
    panel = build_panel(daily, lines)
    until = complete_until(panel)
    if origins is None:
        chosen = trainable_origins(panel, until)
    else:
        chosen = np.array([panel.index(day) for day in origins], dtype=np.int64)
        early = [panel.day(at) for at in chosen if at + HORIZON_DAYS > until]
        if early:
            raise ValueError(
                f"labels of {early[0]} need days to {early[0] + dt.timedelta(HORIZON_DAYS)}; data is complete to {panel.day(until)}"
            )
    return labelled_rows(panel, chosen, known_on=until)


def labelled_rows(panel: Panel, origins: Sequence[int] | np.ndarray, known_on: int) -> pl.DataFrame:
    """Features and labels of the origins (positions); cancellations known by the end of day ``known_on`` are netted."""
    frames = [_labelled(panel, int(at), known_on) for at in sorted(origins)]
    frames = [frame for frame in frames if frame is not None]
    return (
        pl.concat(frames)
        if frames
        else feature_frame(panel, 0, np.array([], np.int64)).with_columns(
            label_units=pl.lit(0.0), label_open_days=pl.lit(0, pl.Int32), label_per_open_day=pl.lit(0.0)
        )
    )


def feature_frame(panel: Panel, at: int, rows: np.ndarray | None = None) -> pl.DataFrame:
    """``origin, stock_code`` and the features as of the end of day ``at`` for its active products (or ``rows``)."""
    rows, values = features_at(panel, at, rows)
    return pl.DataFrame(
        {
            "origin": pl.Series([panel.day(at)], dtype=pl.Date).new_from_index(0, len(rows)),
            "stock_code": pl.Series(list(panel.codes[rows]), dtype=pl.String),
            **{name: values[:, column] for column, name in enumerate(PRODUCT_DAILY.names)},
        }
    )


def labels(panel: Panel, at: int, rows: np.ndarray, known_on: int) -> tuple[np.ndarray, int]:
    """Net units of the 7 calendar days after ``at`` for the products ``rows``, and the open days among them."""
    part = slice(at + 1, min(at + 1 + HORIZON_DAYS, panel.days))
    return panel.net(part, known_on)[rows].sum(axis=1), int(panel.is_open[part].sum())


def _labelled(panel: Panel, at: int, known_on: int) -> pl.DataFrame | None:
    if at not in panel.kept:  # every fold learns from most of the same origins; only what is known of labels differs
        rows = panel.active(at)
        panel.kept[at] = rows, feature_frame(panel, at, rows)
    rows, frame = panel.kept[at]
    units, open_days = labels(panel, at, rows, known_on)
    if open_days == 0:
        return None
    return frame.with_columns(
        label_units=pl.Series(units),
        label_open_days=pl.lit(open_days, pl.Int32),
        label_per_open_day=pl.Series(units / open_days),
    )


def complete_until(panel: Panel) -> int:
    """The day up to which nothing more is expected: the last delivered day, and closed weekdays that follow it.

    A weekday counts as closed when it had no delivery in the last 56 days (a shop that never opens on Saturdays).
    May lie past the panel's end by up to six days.
    """
    last = int(panel.open_days[-1])
    recent = panel.open_days[panel.open_days > last - CLOSED_FOR_DAYS]
    if last - int(panel.open_days[0]) < CLOSED_FOR_DAYS // 2:
        return last  # too little history to call a weekday closed
    seen = set((recent % 7).tolist())
    while (last + 1) % 7 not in seen:
        last += 1
    return last


def trainable_origins(panel: Panel, until: int) -> np.ndarray:
    """Open days with 28 days of history whose label lies within the days up to ``until``."""
    days = panel.open_days
    return days[(days >= MIN_HISTORY_DAYS) & (days + HORIZON_DAYS <= until)]


def weekly_origins(panel: Panel, count: int) -> list[int]:
    """The last ``count`` fold origins, oldest first: the last open day up to each Friday, with matured labels.

    Fewer when history is short: a fold needs at least one trainable origin before it.
    """
    until = complete_until(panel)
    offset = (FOLD_WEEKDAY - panel.first_day.weekday()) % 7
    found: list[int] = []
    for friday in range(until - (until - offset) % 7, 0, -7):
        week = panel.open_days[(panel.open_days <= friday) & (panel.open_days > friday - 7)]
        if len(week) == 0 or week[-1] + HORIZON_DAYS > until:
            continue
        if len(trainable_origins(panel, int(week[-1]))) == 0 or len(found) == count:
            break
        found.append(int(week[-1]))
    return found[::-1]


def expected_open_days(panel: Panel, at: int) -> np.ndarray:
    """Which of the 7 days after ``at`` will be open: weekdays that were open in most of the last four weeks."""
    recent = panel.is_open[panel.window(at, 28)]
    share = [recent[::-1][6 - ahead :: 7].mean() if len(recent) > 6 - ahead else 0.0 for ahead in range(7)]
    return np.array(share) >= 0.5


def data_digest(daily: pl.DataFrame, lines: pl.DataFrame, until: dt.date) -> str:
    """SHA-256 of what a model can learn from the days up to ``until``, whatever order the rows came in.

    Of the lines only the matches known by then count: a reader hands over the lines of keys that have a cancellation
    *anywhere*, so a new cancellation adds old lines; hashing those would call every fold of last month changed.
    """
    state = hashlib.sha256(PRODUCT_DAILY.digest.encode())
    pairs = matched_cancellations(lines.filter(pl.col("day") <= until))
    for frame in (daily.filter(pl.col("day") <= until), pairs):
        buffer = io.BytesIO()
        columns = sorted(frame.columns)
        frame.select(columns).sort(columns).rechunk().write_ipc(buffer)
        state.update(buffer.getbuffer())
    return state.hexdigest()

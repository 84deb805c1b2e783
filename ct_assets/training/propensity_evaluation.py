"""How a propensity recipe fares on later clicks: folds by time with an embargo, baselines, the ablation, measures.

What goes here: honest rehearsals over a frame of labelled clicks; pure. What does not: thresholds (``propensity_gates``).

A fold judges the clicks of one stretch of time by a model that has learnt from clicks whose labels had matured before it
began (so that no purchase is on both sides), everything refitted: the recipe, its baselines, its ablation.

Baselines: ``base_rate`` (the share of clicks followed by a purchase so far), ``recency`` (a logistic curve of the time
since the user's last click and last purchase) and ``logistic`` (a logistic regression on the recipe's own columns,
calibrated as the recipe is).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.training.learning import TrainingFailed
from ct_assets.training.propensity import PropensityRecipe
from ct_assets.training.propensity_measures import Estimate, Judged, measured

BASELINES = ("base_rate", "recency", "logistic")
ABLATION = "without_5m"
FOLDS, JUDGED = 3, 0.45  # so many stretches of equal length, together the newest 45 % of the time
SLICES = ("first_clicks", "browsing", "busy")
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TimeFold:
    """Clicks of ``[begin, end)`` are judged; learnt is from those whose labels matured before ``begin``."""

    begin: int
    end: int

    def split(self, frame: pl.DataFrame, embargo_us: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(learnt from, judged)."""
        at = pl.col("at")
        return frame.filter(at + embargo_us <= self.begin), frame.filter((at >= self.begin) & (at < self.end))


def time_folds(frame: pl.DataFrame, count: int = FOLDS) -> tuple[TimeFold, ...]:
    """The folds of a frame of clicks, oldest first. Raises :class:`TrainingFailed` when there are no clicks."""
    if frame.is_empty():
        raise TrainingFailed("no labelled clicks: no label has matured yet", hint="wait for more events")
    first, last = int(frame["at"].min()), int(frame["at"].max()) + 1  # pyright: ignore[reportArgumentType]
    edges = np.linspace(last - (last - first) * JUDGED, last, count + 1).round().astype(np.int64).tolist()
    return tuple(TimeFold(begin, end) for begin, end in pairwise(edges))


@dataclass(frozen=True)
class Evaluation:
    """``rows``: judged clicks with ``user, at, label, weight, fold, slice`` and a column of probabilities a contestant:
    ``candidate``, the baselines, ``without_5m``."""

    rows: pl.DataFrame

    @cached_property
    def judged(self) -> Judged:
        """The clicks as arrays."""
        users = self.rows["user"].rank("dense").cast(pl.Int64).to_numpy()
        label, weight = (self.rows[name].to_numpy().astype(np.float64) for name in ("label", "weight"))
        return Judged(users, label, weight)

    def probability(self, contestant: str) -> F64:
        """The forecasts of one."""
        return self.rows[contestant].to_numpy()

    @cached_property
    def measures(self) -> dict[str, dict[str, Estimate]]:
        """Every measure of every contestant."""
        fixed = ("user", "at", "label", "weight", "fold", "slice")
        return {n: measured(self.judged, self.probability(n)) for n in self.rows.columns if n not in fixed}

    def summary(self) -> dict[str, Any]:
        """Plain values: the candidate's measures with intervals, the log loss of the others."""
        found = self.measures
        own = found["candidate"]
        figures: dict[str, Any] = {name: value.figure for name, value in own.items()}
        figures |= {f"{name}_95": [value.low, value.high] for name, value in own.items()}
        figures |= {
            f"log_loss_{name}": value["log_loss"].figure for name, value in found.items() if name != "candidate"
        }
        return {**figures, "judged_clicks": len(self.rows), "folds": self.rows["fold"].n_unique()}


def evaluate(recipe: PropensityRecipe, frame: pl.DataFrame, ablated: Sequence[str] = ()) -> Evaluation:
    """Judge ``recipe`` and all it is compared with. Raises :class:`TrainingFailed` when a fold cannot be learnt.

    ``ablated``: the columns that ``without_5m`` must do without (none: no such column).
    """
    parts = []
    for number, fold in enumerate(time_folds(frame)):
        learnt, rows = fold.split(frame, recipe.embargo_us)
        rows = rows.with_columns(fold=pl.lit(number), slice=_slices(rows))
        found = {"candidate": recipe.fit(learnt).predict(rows), **_baselines(recipe, learnt, rows)}
        left = recipe.seen.without(ablated)
        if ablated and left.columns:
            found[ABLATION] = replace(recipe, seen=left).fit(learnt).predict(rows)
        judged = rows.select("user", "at", "label", "weight", "fold", "slice")
        parts.append(judged.with_columns(**{name: pl.Series(values) for name, values in found.items()}))
    return Evaluation(pl.concat(parts))


def judged_by(recipe: PropensityRecipe, frame: pl.DataFrame) -> F64:
    """The probabilities of another recipe on the same folds, in the order of :attr:`Evaluation.rows`."""
    parts = []
    for fold in time_folds(frame):
        learnt, rows = fold.split(frame, recipe.embargo_us)
        parts.append(recipe.fit(learnt).predict(rows))
    return np.concatenate(parts)


def _baselines(recipe: PropensityRecipe, learnt: pl.DataFrame, rows: pl.DataFrame) -> dict[str, F64]:
    weight, label = learnt["weight"].to_numpy(), learnt["label"].to_numpy().astype(np.float64)
    rate = float(np.average(label, weights=weight)) if len(label) else float("nan")
    logistic = replace(recipe, kind="logistic", parameters={}).fit(learnt)
    return {
        "base_rate": np.full(len(rows), rate),
        "recency": _recency(learnt, rows),
        "logistic": logistic.predict(rows),
    }


def _recency(learnt: pl.DataFrame, rows: pl.DataFrame) -> F64:
    """Weighted logistic regression on the logarithms of both times and whether there was such an event at all."""
    from sklearn.linear_model import LogisticRegression

    from ct_assets.training.propensity_labels import NEVER_SECONDS

    def columns(frame: pl.DataFrame) -> F64:
        times = frame.select("since_click_s", "since_purchase_s").to_numpy()
        return np.hstack([np.log1p(times), times >= NEVER_SECONDS, times < 300]).astype(np.float64)

    model = LogisticRegression(max_iter=1000)
    model.fit(columns(learnt), learnt["label"].to_numpy(), sample_weight=learnt["weight"].to_numpy())
    return model.predict_proba(columns(rows))[:, 1] if len(rows) else np.zeros(0)


def _slices(rows: pl.DataFrame) -> pl.Series:
    """Guard slices, known at the click: no click in the last hour, in the last minute, or one in the last minute."""
    since = rows["since_click_s"].to_numpy()
    return pl.Series(np.where(since > 3600, "first_clicks", np.where(since > 60, "browsing", "busy")))

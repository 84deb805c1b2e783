"""Rolling-origin evaluation: a recipe is refitted at each weekly origin and judged on the week that followed.

What goes here: folds, their measures, the cache key of a fold. What does not: decisions (``gates``).

A fold sees what was known at its origin: training labels that had matured by then, cancellations known by then. The
truth of its week is what was known when the week ended, so that a fold's result does not change as days are added
(``truth_known_on`` of :func:`evaluate_fold` takes later cancellations into account instead). Corrections of whole days
are seen the same way: each fold has the panel as known at its origin (``dataset``).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ct_assets.features.panel import Panel
from ct_assets.features.training_set import HORIZON_DAYS, feature_frame, labelled_rows, labels, trainable_origins
from ct_assets.training import measures
from ct_assets.training.baselines import OPEN_DAYS, baselines
from ct_assets.training.recipe import OUTPUTS, Fitted, Recipe

FOLDS = 4
MAX_ROWS = 90_000  # four times as many gained nothing and took four times as long
BASELINES = ("zero", "last_week", "mean_28", "median_28", "croston_tsb")
MEASURES = ("deviance", "bias", "wape", "coverage")


@dataclass(frozen=True)
class Fold:
    """One origin's week. ``rows``: ``stock_code, slice, truth, mean, p50, p90`` and the baselines, units of the week."""

    origin: dt.date
    rows: pl.DataFrame

    def measures(self, part: str | None = None) -> dict[str, float]:
        """Deviance and bias of the mean, WAPE of P50, coverage of P90; over one slice when ``part`` is given."""
        rows = self.rows if part is None else self.rows.filter(pl.col("slice") == part)
        truth, mean, p50, p90 = (rows[name].to_numpy() for name in ("truth", *OUTPUTS))
        return {
            "deviance": measures.poisson_deviance(truth, mean),
            "bias": measures.bias(truth, mean),
            "wape": measures.wape(truth, p50),
            "coverage": measures.coverage(truth, p90),
            "rows": len(rows),
        }

    def baseline(self, name: str) -> dict[str, float]:
        """Deviance, bias and WAPE of a baseline."""
        truth, forecast = self.rows["truth"].to_numpy(), self.rows[name].to_numpy()
        return {
            "deviance": measures.poisson_deviance(truth, forecast),
            "bias": measures.bias(truth, forecast),
            "wape": measures.wape(truth, forecast),
        }

    def as_json(self) -> dict[str, Any]:
        """For the cache; :meth:`from_json` gives an equal fold."""
        return {"origin": self.origin.isoformat(), "rows": self.rows.to_dict(as_series=False)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Fold:
        """The fold that was stored (jsonb does not keep the order of keys)."""
        rows = pl.DataFrame(value["rows"], schema_overrides=_SCHEMA).select("stock_code", "slice", *_SCHEMA)
        return Fold(dt.date.fromisoformat(value["origin"]), rows)


_SCHEMA: dict[str, Any] = dict.fromkeys(("truth", *OUTPUTS, *BASELINES), pl.Float64)


@dataclass(frozen=True)
class Evaluation:
    """The folds of one recipe, oldest first."""

    recipe_digest: str
    folds: tuple[Fold, ...]

    def mean(self, measure: str, baseline: str | None = None, part: str | None = None) -> float:
        """A measure's mean over the folds; NaN when there is no fold or one of them has none."""
        values = [(fold.baseline(baseline) if baseline else fold.measures(part))[measure] for fold in self.folds]
        return float(np.mean(values)) if values else float("nan")

    def summary(self) -> dict[str, Any]:
        """What is kept with a model: means, ratios to the mean of 28 days, slices; JSON values (NaN as None)."""
        slices = sorted({name for fold in self.folds for name in fold.rows["slice"].unique()})
        found = {
            **{name: self.mean(name) for name in MEASURES},
            "deviance_over_mean_28": self.mean("deviance") / self.mean("deviance", "mean_28"),
            "wape_over_mean_28": self.mean("wape") / self.mean("wape", "mean_28"),
            "folds": [fold.origin.isoformat() for fold in self.folds],
            "baselines": {b: {m: self.mean(m, b) for m in ("deviance", "bias", "wape")} for b in BASELINES},
            "slices": {s: self._slice(s) for s in slices},
            "per_fold": [line for line in self.table() if line["origin"] != "mean"],
        }
        return json.loads(json.dumps(found), parse_constant=lambda _: None)

    def calibration(self, groups: int = 10) -> list[dict[str, float]]:
        """By tenths of the forecast mean, lowest first: ``rows``, ``forecast`` and ``truth`` (means, units a week), and the
        shares of weeks at or below ``p50`` and ``p90``. Empty without rows."""
        frames = [fold.rows for fold in self.folds]
        if not frames or not (rows := pl.concat(frames)).height:
            return []
        group = (pl.col("mean").rank("ordinal") - 1) * groups // rows.height
        covered = [(pl.col("truth") <= pl.col(name)).mean().alias(name) for name in ("p50", "p90")]
        means = [pl.len().alias("rows"), pl.col("mean").mean().alias("forecast"), pl.col("truth").mean(), *covered]
        return rows.group_by(group.alias("group")).agg(means).sort("group").drop("group").to_dicts()

    def _slice(self, part: str) -> dict[str, float]:
        """A slice over all folds at once: it may be absent from one of them."""
        rows = pl.concat([fold.rows for fold in self.folds])
        return Fold(self.folds[-1].origin, rows).measures(part)

    def table(self) -> list[dict[str, Any]]:
        """One row a fold and forecaster, then the means: what is printed."""
        lines = []
        for fold in self.folds:
            lines.append({"origin": fold.origin.isoformat(), "forecast": "model", **_rounded(fold.measures())})
            lines += [
                {"origin": fold.origin.isoformat(), "forecast": name, **_rounded(fold.baseline(name))}
                for name in BASELINES
            ]
        lines.append({"origin": "mean", "forecast": "model", **_rounded({m: self.mean(m) for m in MEASURES})})
        for name in BASELINES:
            means = {m: self.mean(m, name) for m in ("deviance", "bias", "wape")}
            lines.append({"origin": "mean", "forecast": name, **_rounded(means)})
        return lines


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def thinned(panel: Panel, origins: np.ndarray) -> np.ndarray:
    """All origins where they give at most :data:`MAX_ROWS` rows; else a weekly grid back from the newest.

    Weekly, because a week from the same weekday is what is asked for; the oldest weeks go first (they weigh little).
    """
    if len(origins) == 0:
        return origins
    active = max(1, len(panel.active(int(origins[-1]))))
    if len(origins) * active <= MAX_ROWS:
        return origins
    weekly = origins[(origins[-1] - origins) % 7 == 0]
    return weekly[-max(8, MAX_ROWS // active) :]


def training_rows(panel: Panel, known_on: int) -> pl.DataFrame:
    """What a model may learn from at the end of day ``known_on``."""
    return labelled_rows(panel, thinned(panel, trainable_origins(panel, known_on)), known_on)


def evaluate_fold(recipe: Recipe, panel: Panel, at: int, truth_known_on: int | None = None) -> tuple[Fold, Fitted]:
    """Refit ``recipe`` at origin ``at`` (a position) and judge it on the following week; also gives the refitted model."""
    fitted = recipe.fit(training_rows(panel, at))
    return judge(fitted, panel, at, truth_known_on), fitted


def judge(fitted: Fitted, panel: Panel, at: int, truth_known_on: int | None = None) -> Fold:
    """A fitted model on the week after ``at``, for the products active then."""
    rows = panel.active(at)
    truth, open_days = labels(panel, at, rows, at + HORIZON_DAYS if truth_known_on is None else truth_known_on)
    frame = feature_frame(panel, at, rows)
    forecast = fitted.predict(frame)
    simple = baselines(panel, at, rows)
    volume = simple["mean_28"]
    columns = {
        "stock_code": frame["stock_code"],
        "slice": pl.Series(list(measures.slices(volume, frame["age_days"].to_numpy())), dtype=pl.String),
        "truth": pl.Series(truth, dtype=pl.Float64),
        **{name: forecast[name] * open_days for name in OUTPUTS},
        **{name: pl.Series(simple[name] * open_days, dtype=pl.Float64) for name in BASELINES},
    }
    return Fold(panel.day(at), pl.DataFrame(columns))


@dataclass(frozen=True)
class FoldOrigin:
    """Where a fold is judged: the position ``at`` in ``panel`` (as known then); ``digest`` of its data, None: do not keep."""

    panel: Panel
    at: int
    digest: str | None = None

    @property
    def day(self) -> dt.date:
        """The origin day."""
        return self.panel.day(self.at)


def evaluate(
    recipe: Recipe, origins: Sequence[FoldOrigin], kept: MutableMapping[str, Fold] | None = None
) -> Evaluation:
    """Judge ``recipe`` at every origin. ``kept`` holds folds by :func:`fold_key` and is added to."""
    folds = []
    for origin in origins:
        key = fold_key(recipe.digest, origin.digest, origin.day) if origin.digest is not None else None
        if key is not None and kept is not None and key in kept:
            folds.append(kept[key])
            continue
        fold, _ = evaluate_fold(recipe, origin.panel, origin.at)
        folds.append(fold)
        if key is not None and kept is not None:
            kept[key] = fold
    return Evaluation(recipe.digest, tuple(folds))


def fold_key(recipe_digest: str, data_digest: str, origin: dt.date) -> str:
    """What a fold's result depends on."""
    return f"{recipe_digest}:{data_digest}:{origin.isoformat()}"


__all__ = [
    "BASELINES",
    "FOLDS",
    "MEASURES",
    "OPEN_DAYS",
    "Evaluation",
    "Fold",
    "FoldOrigin",
    "evaluate",
    "evaluate_fold",
    "fold_key",
    "judge",
    "training_rows",
]

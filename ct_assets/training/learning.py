"""Labelled rows as arrays: how they are weighted and capped, which of them calibrate, and fitting one estimator.

What goes here: what every estimator of a recipe shares. What does not: recipes (``recipe``), features (``design``).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from ct_assets.errors import CtError
from ct_assets.training.design import Bins, Design


class TrainingFailed(CtError):
    """No model came of it: too few rows, labels that are not finite, an estimator that could not be fitted."""


@dataclass(frozen=True)
class FitRules:
    """How rows are weighted and capped, how P90 is calibrated."""

    half_life_days: float = 60.0  # a row so much older counts half
    ratio_cap: float = 30.0  # outlier rule: a label above 30 times the product's level is learnt as 30 times
    calibration_days: int = 14  # origins of the last 14 days calibrate P50/P90 and are not learnt from by P90
    calibration_rows: int = 200  # fewer: no calibration


@dataclass(frozen=True)
class LabelledRows:
    """Labelled rows as arrays; ``age`` in days before the newest origin."""

    matrix: np.ndarray
    ratio: np.ndarray
    weight: np.ndarray
    age: np.ndarray
    rules: FitRules

    @classmethod
    def of(cls, frame: pl.DataFrame, design: Design, rules: FitRules) -> LabelledRows:
        """Arrays of a training frame. Raises :class:`TrainingFailed` for no rows or labels that are no numbers."""
        if frame.is_empty():
            raise TrainingFailed("no labelled rows: no origin has a matured label yet")
        label = frame["label_per_open_day"].to_numpy().astype(np.float64)
        if not np.isfinite(label).all() or (label < 0).any():
            raise TrainingFailed(f"{int((~np.isfinite(label) | (label < 0)).sum())} labels are not finite numbers >= 0")
        level = design.level(frame)
        newest = frame["origin"].max()
        age = frame.select((pl.lit(newest) - pl.col("origin")).dt.total_days()).to_series().to_numpy()
        weight = level * frame["label_open_days"].to_numpy() * 0.5 ** (age / rules.half_life_days)
        ratio = np.minimum(label / level, rules.ratio_cap)
        return cls(design.matrix(frame), ratio, weight, age, rules)

    def where(self, mask: np.ndarray) -> LabelledRows:
        """The rows of ``mask``."""
        picked = {name: getattr(self, name)[mask] for name in ("matrix", "ratio", "weight", "age")}
        return replace(self, **picked)

    def binned(self, count: int) -> tuple[LabelledRows, Bins]:
        """The same rows as codes of at most ``count`` bins a column, and the bins."""
        bins = Bins.learn(self.matrix, self.weight, count)
        return replace(self, matrix=bins.codes(self.matrix)), bins

    def calibration(self) -> LabelledRows | None:
        """The newest origins, when they and what remains before them are enough."""
        recent = self.age < self.rules.calibration_days
        older = self.age >= self.rules.calibration_days + 7
        if recent.sum() < self.rules.calibration_rows or older.sum() < self.rules.calibration_rows:
            return None
        return self.where(recent)

    def before(self, held: LabelledRows) -> LabelledRows:
        """Rows whose label ended before the first origin held out."""
        return self.where(self.age >= held.age.max() + 7)

    def fitted(self, estimator: Any) -> Any:
        """``estimator``, fitted. Raises :class:`TrainingFailed` naming it when it cannot be."""
        try:
            with one_thread():  # an estimator: two OpenMP teams on shared cores wait for each other (4-7 times slower)
                return estimator.fit(self.matrix, self.ratio, sample_weight=self.weight)
        except (ValueError, FloatingPointError, MemoryError) as error:
            raise TrainingFailed(f"{type(estimator).__name__} could not be fitted: {error}") from error

    def factor(self, model: Any, level: float) -> float:
        """Split conformal scaling (Vovk; Romano et al. 2019): the factor that covers ``level`` of the held rows."""
        predicted = np.clip(model.predict(self.matrix), 0, self.rules.ratio_cap)
        share = self.ratio / np.maximum(predicted, 1e-6)
        return float(np.clip(np.quantile(share, level, method="higher"), 0.25, 4.0))


def one_thread() -> AbstractContextManager[Any]:
    """OpenMP in this thread with a team of one."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="openmp")

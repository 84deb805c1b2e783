"""The propensity to purchase: a recipe (boosted trees, calibrated), the logistic recipe it must beat, the stored model.

What goes here: fitting, asking and storing. What does not: labels and sampling (``propensity_labels``), judging
(``propensity_evaluation``), the gates (``propensity_gates``).

A model names the definition version it was trained on and asks for its columns by name; values of another version never
reach it. A missing value is a value (the trees split on it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.training.learning import TrainingFailed, one_thread

if TYPE_CHECKING:
    from ct_assets.streaming.definition import Definition

FORMAT = 1
TRAINER = "ct_assets.training.propensity:recipe"  # what the registry stores: the module that restores a model
CALIBRATED_ON = 0.2  # the newest fifth of the clicks, behind an embargo
MIN_POSITIVES = 50
EDGE = 1e-6
trusted_types = ("sklearn._loss.link.Interval", "sklearn._loss.link.LogitLink", "sklearn._loss.loss.HalfBinomialLoss")
# Small trees and large leaves: clicks of one session are nearly copies, so finer trees learn sessions by heart (log loss
# 0.416 and 0.432 on two seeds, against 0.430 and 0.446 with 15 leaves of 100 clicks).
TREES: Mapping[str, Any] = {
    "learning_rate": 0.06,
    "max_iter": 60,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 1000,
    "l2_regularization": 1.0,
    "early_stopping": False,
}
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a model sees: columns of one version of one definition."""

    definition: str
    hash: str
    columns: tuple[str, ...]

    @staticmethod
    def of(definition: Definition) -> Seen:
        """Every aggregate that is a number."""
        numbers = [a.name for a in definition.aggregates if _is_number(definition.result_type(a))]
        return Seen(definition.name, definition.hash, tuple(numbers))

    def without(self, columns: Sequence[str]) -> Seen:
        """The same without some columns."""
        return Seen(self.definition, self.hash, tuple(name for name in self.columns if name not in columns))


def short_window_columns(definition: Definition, longest_us: int = 300_000_000) -> tuple[str, ...]:
    """The aggregates of windows of at most five minutes: what the ablation leaves out."""
    return tuple(a.name for a in definition.aggregates if a.window_us <= longest_us)


def _is_number(kind: str) -> bool:
    return kind in ("integer", "number") or kind.startswith("decimal")


def matrix(frame: pl.DataFrame, columns: Sequence[str]) -> F64:
    """The columns as float64, NaN where there is no value; shape (rows, columns)."""
    return frame.select(pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in columns).to_numpy()


@dataclass(frozen=True)
class PropensityRecipe:
    """How to fit; two recipes with one digest give the same model on the same frame.

    ``kind``: trees or logistic. A frame for :meth:`fit` holds ``at, label, weight`` and the columns.
    """

    seen: Seen
    seed: int = 7
    kind: str = "trees"
    embargo_us: int = 1_860_000_000
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(TREES))

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kind} on {self.seen.definition}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values of all that decides the result except the data."""
        import sklearn

        return {
            "kind": self.kind,
            "definition": self.seen.definition,
            "hash": self.seen.hash,
            "columns": list(self.seen.columns),
            "seed": self.seed,
            "embargo_us": self.embargo_us,
            "parameters": dict(self.parameters),
            "calibrated_on": CALIBRATED_ON,
            "sklearn": sklearn.__version__,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of :attr:`settings`."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def fit(self, frame: pl.DataFrame) -> FittedPropensity:
        """Learn from the older clicks, calibrate on the newest fifth. Raises :class:`TrainingFailed`."""
        older, newest = self._parts(frame)
        estimator = self._estimator()
        with one_thread():
            estimator.fit(self._matrix(older), older["label"].to_numpy())
            score = _logits(estimator, self._matrix(newest))
        slope, offset = platt(score, newest["label"].to_numpy().astype(float), newest["weight"].to_numpy())
        return FittedPropensity(self.seen, estimator, slope, offset, self.kind)

    def _parts(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(learnt from, calibrated on): the label of the first never reaches into the second."""
        if frame.is_empty():
            raise TrainingFailed(
                "no labelled clicks to learn from: none has matured half an hour before those that are judged",
                hint="wait for more events: some hours at least",
            )
        first, last = int(frame["at"].min()), int(frame["at"].max())  # pyright: ignore[reportArgumentType]
        border = last - round((last - first) * CALIBRATED_ON)
        older, newest = frame.filter(pl.col("at") + self.embargo_us <= border), frame.filter(pl.col("at") >= border)
        for part, what in ((older, "to learn from"), (newest, "to calibrate on")):
            ones = int(part["label"].sum()) if len(part) else 0
            if min(ones, len(part) - ones) < MIN_POSITIVES:
                raise TrainingFailed(
                    f"{len(part)} clicks {what}, {ones} of them followed by a purchase: at least {MIN_POSITIVES} with and"
                    " without are needed",
                    hint="wait for more events",
                )
        return older, newest

    def _estimator(self) -> Any:
        if self.kind == "trees":
            from sklearn.ensemble import HistGradientBoostingClassifier

            return HistGradientBoostingClassifier(random_state=self.seed, **self.parameters)
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

    def _matrix(self, frame: pl.DataFrame) -> F64:
        return prepared(matrix(frame, self.seen.columns), self.kind)


def prepared(values: F64, kind: str) -> F64:
    """What an estimator of that kind takes: counts and sums are skewed, a line wants their logarithm and no gaps."""
    if kind == "trees":
        return values
    values = np.nan_to_num(values, nan=0.0)
    return np.sign(values) * np.log1p(np.abs(values))


def recipe(seed: int, seen: Seen, embargo_us: int = 1_860_000_000) -> PropensityRecipe:
    """The recipe of ``model/shop/purchase_propensity``."""
    return PropensityRecipe(seen, seed, embargo_us=embargo_us)


def rebuild(settings: Mapping[str, Any]) -> PropensityRecipe:
    """The recipe whose settings were stored. Raises KeyError or TypeError when they cannot be read."""
    seen = Seen(settings["definition"], settings["hash"], tuple(settings["columns"]))
    return PropensityRecipe(
        seen, settings["seed"], settings["kind"], settings["embargo_us"], dict(settings["parameters"])
    )


def platt(score: F64, label: F64, weight: F64) -> tuple[float, float]:
    """Slope and offset of ``logit = slope x score + offset`` by weighted maximum likelihood (Platt 1999).

    With weights of 1 / chance this also undoes what sampling did to the odds (King and Zeng 2001).
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6, max_iter=1000).fit(score[:, None], label, sample_weight=weight)
    return float(max(model.coef_[0, 0], 0.0)), float(model.intercept_[0])


def _logits(estimator: Any, values: F64) -> F64:
    p = np.clip(estimator.predict_proba(values)[:, 1], EDGE, 1 - EDGE)
    return np.log(p) - np.log1p(-p)


@dataclass(frozen=True)
class FittedPropensity:
    """A model that can be asked and stored."""

    seen: Seen
    estimator: Any
    slope: float
    offset: float
    kind: str = "trees"

    def predict(self, frame: pl.DataFrame) -> F64:
        """Probability of a purchase within the horizon, a row each; KeyError-like errors name a missing column."""
        missing = [name for name in self.seen.columns if name not in frame.columns]
        if missing:
            raise TrainingFailed(f"the rows lack {', '.join(missing)}, which the model was trained with")
        if frame.is_empty():
            return np.zeros(0)
        with one_thread():
            score = _logits(self.estimator, prepared(matrix(frame, self.seen.columns), self.kind))
        return 1 / (1 + np.exp(-(self.slope * score + self.offset)))

    def payload(self) -> dict[str, Any]:
        """What is stored; :func:`restore` reads it."""
        return {
            "format": FORMAT,
            "definition": self.seen.definition,
            "hash": self.seen.hash,
            "columns": list(self.seen.columns),
            "kind": self.kind,
            "estimator": self.estimator,
            "slope": self.slope,
            "offset": self.offset,
        }


def restore(payload: Mapping[str, Any]) -> FittedPropensity:
    """The model that gave ``payload``; ValueError for a format this code does not know."""
    if payload.get("format") != FORMAT:
        raise ValueError(f"propensity model format {payload.get('format')!r} is not known here (known: {FORMAT})")
    seen = Seen(payload["definition"], payload["hash"], tuple(payload["columns"]))
    return FittedPropensity(seen, payload["estimator"], payload["slope"], payload["offset"], payload["kind"])

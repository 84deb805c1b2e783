"""What a trainer is: a recipe that fits a training frame and gives a fitted model with mean, P50 and P90.

What goes here: the two protocols, and :class:`QuantileRecipe`, which turns any scikit-learn-compatible estimators into
a recipe. What does not: the estimators of the built-in recipe (``demand``).

The contract of a trainer, named in `defs.yaml` as ``model.trainer: package.module:function``::

    def recipe(seed: int) -> Recipe: ...

``fit`` gets rows of ``features.training_set.training_frame``; ``predict`` gets rows with the features (labels are not
looked at) and answers, in the same order, ``mean, p50, p90`` in units per open day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import polars as pl

from ct_assets.errors import CtError

OUTPUTS = ("mean", "p50", "p90")
LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost")
TARGETS = {"p50": 0.5, "p90": 0.9}


class Fitted(Protocol):
    """A model that can be asked and stored."""

    def predict(self, frame: pl.DataFrame) -> pl.DataFrame:
        """``mean, p50, p90`` per open day, float64, finite, not negative, p50 <= p90; one row for each of ``frame``."""
        ...

    def payload(self) -> dict[str, Any]:
        """What is stored: plain values, numpy arrays and scikit-learn estimators; :func:`restore` reads it."""
        ...


class Recipe(Protocol):
    """How to fit. Two recipes with one digest give the same model on the same frame."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the result except the data."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The same, readable; JSON values."""
        ...

    def fit(self, frame: pl.DataFrame) -> Fitted:
        """Learn from labelled rows. Raises :class:`TrainingFailed` when that is impossible."""
        ...


class TrainingFailed(CtError):
    """No model came of it: too few rows, labels that are not finite, an estimator that could not be fitted."""


@dataclass(frozen=True)
class Design:
    """How rows become numbers: each product is measured in units of its own recent level.

    Trees then learn how next week differs from the level instead of the level itself, and one tree serves products
    of 2 and of 2,000 units a day. For Poisson loss a ratio weighted by its level is the same as an offset.
    """

    relative: tuple[str, ...]
    absolute: tuple[str, ...]
    level_floor: float = 1 / 6  # units per open day: one a week

    def level(self, frame: pl.DataFrame) -> np.ndarray:
        """Units per open day: mean of the means of 28 and 56 days, plus the floor."""
        return ((frame["units_mean_28"] + frame["units_mean_56"]) / 2 + self.level_floor).to_numpy().astype(np.float64)

    def matrix(self, frame: pl.DataFrame) -> np.ndarray:
        """float32 of shape (rows, features): relative ones over the level, absolute ones, the level itself."""
        level = self.level(frame)
        columns = [frame[name].to_numpy() / level for name in self.relative]
        columns += [frame[name].to_numpy() for name in self.absolute]
        return np.column_stack([*columns, level]).astype(np.float32)


@dataclass(frozen=True)
class FitRules:
    """How rows are weighted and capped, how P90 is calibrated."""

    half_life_days: float = 60.0  # a row so much older counts half
    ratio_cap: float = 30.0  # outlier rule: a label above 30 times the product's level is learnt as 30 times
    calibration_days: int = 14  # origins of the last 14 days calibrate P50/P90 and are not learnt from by P90
    calibration_rows: int = 200  # fewer: no calibration


Factory = Callable[[int], Any]
_UNSEEN = "mean before the held rows"


@dataclass(frozen=True)
class QuantileRecipe:
    """A recipe from estimators: ``estimators`` maps ``mean`` (required), ``p50``, ``p90`` to factories of the seed.

    An output without an estimator of its own is the mean times a factor learnt on the calibration rows.
    """

    name: str
    seed: int
    design: Design
    estimators: Mapping[str, Factory]
    rules: FitRules = field(default_factory=FitRules)

    def __post_init__(self) -> None:
        """A mean is needed; other names than the three outputs are refused."""
        unknown = set(self.estimators) - set(OUTPUTS)
        if "mean" not in self.estimators or unknown:
            raise ValueError(f"estimators must hold 'mean' and may hold 'p50', 'p90'; got {sorted(self.estimators)}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values of all that decides the result."""
        import sklearn

        made = {name: factory(self.seed) for name, factory in self.estimators.items()}
        return {
            "name": self.name,
            "seed": self.seed,
            "design": {
                "relative": list(self.design.relative),
                "absolute": list(self.design.absolute),
                "level_floor": self.design.level_floor,
            },
            "rules": vars(self.rules),
            "estimators": {name: _described(estimator) for name, estimator in made.items()},
            "sklearn": sklearn.__version__,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of :attr:`settings`."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True, default=str).encode()).hexdigest()

    def fit(self, frame: pl.DataFrame) -> FittedQuantiles:
        """See :class:`Recipe`. Deterministic for a frame and a seed; the estimators are fitted side by side."""
        from concurrent.futures import ThreadPoolExecutor

        import sklearn.ensemble  # noqa: F401 - its OpenMP must be loaded before threads can be capped

        rows = _Rows.of(frame, self)
        held = rows.calibration()
        earlier = rows if held is None else rows.before(held)
        jobs = {name: (make, earlier if name == "p90" else rows) for name, make in self.estimators.items()}
        if held is not None and len(self.estimators) < len(OUTPUTS):
            jobs[_UNSEEN] = (self.estimators["mean"], earlier)  # a mean that has seen the held rows fits them too well
        with ThreadPoolExecutor(len(jobs)) as pool:
            running = {name: pool.submit(learnt.fitted, make(self.seed)) for name, (make, learnt) in jobs.items()}
            models = {name: job.result() for name, job in running.items()}
        factors = {name: self._factor(name, models, held) for name in OUTPUTS}
        models.pop(_UNSEEN, None)
        return FittedQuantiles(self.design, models, factors, self.rules.ratio_cap)

    def _factor(self, output: str, models: Mapping[str, Any], held: _Rows | None) -> float:
        """P90 is always calibrated; P50 only when it is derived from the mean (a fitted median needs no help)."""
        if held is None or output == "mean" or (output == "p50" and "p50" in models):
            return 1.0
        model = models[output] if output in models else models[_UNSEEN]
        return held.factor(model, TARGETS[output])


@dataclass(frozen=True)
class FittedQuantiles:
    """The estimators, the factors that calibrate them, and what is needed to read a frame."""

    design: Design
    models: Mapping[str, Any]
    factors: Mapping[str, float]
    ratio_cap: float

    def predict(self, frame: pl.DataFrame) -> pl.DataFrame:
        """See :class:`Fitted`. P90 is raised to P50 where the two trees cross."""
        if frame.is_empty():
            return pl.DataFrame(schema=dict.fromkeys(OUTPUTS, pl.Float64))
        matrix, level = self.design.matrix(frame), self.design.level(frame)
        raw: dict[str, np.ndarray] = {}
        for output in OUTPUTS:
            source = output if output in self.models else "mean"
            key = f"model:{source}"
            if key not in raw:
                raw[key] = np.clip(self.models[source].predict(matrix), 0, self.ratio_cap)
            raw[output] = raw[key] * level * self.factors[output]
        raw["p90"] = np.maximum(raw["p50"], raw["p90"])
        return pl.DataFrame({output: raw[output] for output in OUTPUTS})

    def payload(self) -> dict[str, Any]:
        """See :class:`Fitted`."""
        return {
            "format": 1,
            "relative": list(self.design.relative),
            "absolute": list(self.design.absolute),
            "level_floor": self.design.level_floor,
            "models": dict(self.models),
            "factors": {name: float(value) for name, value in self.factors.items()},
            "ratio_cap": self.ratio_cap,
        }


def rebuild(settings: Mapping[str, Any]) -> QuantileRecipe:
    """The recipe whose :attr:`QuantileRecipe.settings` were stored, whatever today's code would make of its name.

    So a champion trained by earlier code can still be refitted beside its challenger. Only estimators of
    :data:`LIBRARIES` are made. Raises ValueError when the settings cannot be read.
    """
    try:
        design = settings["design"]
        return QuantileRecipe(
            settings["name"],
            settings["seed"],
            Design(tuple(design["relative"]), tuple(design["absolute"]), design["level_floor"]),
            {name: _factory(parameters) for name, parameters in settings["estimators"].items()},
            FitRules(**settings["rules"]),
        )
    except (KeyError, TypeError, ImportError, AttributeError) as error:
        raise ValueError(f"these settings make no recipe: {type(error).__name__}: {error}") from error


def _factory(described: Mapping[str, Any]) -> Factory:
    import importlib

    module, _, name = described["class"].rpartition(".")
    if module.partition(".")[0] not in LIBRARIES:
        raise ValueError(f"{described['class']} is of no library that is known here ({', '.join(LIBRARIES)})")
    made = getattr(importlib.import_module(module), name)
    parameters = {key: value for key, value in described.items() if key != "class"}
    return lambda seed: made(**parameters)


def restore(payload: Mapping[str, Any]) -> FittedQuantiles:
    """The model that gave ``payload``; ValueError for a format this code does not know."""
    if payload.get("format") != 1:
        raise ValueError(f"model format {payload.get('format')!r} is not known here (known: 1)")
    design = Design(tuple(payload["relative"]), tuple(payload["absolute"]), payload["level_floor"])
    return FittedQuantiles(design, payload["models"], payload["factors"], payload["ratio_cap"])


@dataclass(frozen=True)
class _Rows:
    """Labelled rows as arrays; ``age`` in days before the newest origin."""

    matrix: np.ndarray
    ratio: np.ndarray
    weight: np.ndarray
    age: np.ndarray
    rules: FitRules

    @classmethod
    def of(cls, frame: pl.DataFrame, recipe: QuantileRecipe) -> _Rows:
        if frame.is_empty():
            raise TrainingFailed("no labelled rows: no origin has a matured label yet")
        label = frame["label_per_open_day"].to_numpy().astype(np.float64)
        if not np.isfinite(label).all() or (label < 0).any():
            raise TrainingFailed(f"{int((~np.isfinite(label) | (label < 0)).sum())} labels are not finite numbers >= 0")
        level = recipe.design.level(frame)
        newest = frame["origin"].max()
        age = frame.select((pl.lit(newest) - pl.col("origin")).dt.total_days()).to_series().to_numpy()
        weight = level * frame["label_open_days"].to_numpy() * 0.5 ** (age / recipe.rules.half_life_days)
        ratio = np.minimum(label / level, recipe.rules.ratio_cap)
        return cls(recipe.design.matrix(frame), ratio, weight, age, recipe.rules)

    def where(self, mask: np.ndarray) -> _Rows:
        return _Rows(self.matrix[mask], self.ratio[mask], self.weight[mask], self.age[mask], self.rules)

    def calibration(self) -> _Rows | None:
        """The newest origins, when they and what remains before them are enough."""
        recent = self.age < self.rules.calibration_days
        older = self.age >= self.rules.calibration_days + 7
        if recent.sum() < self.rules.calibration_rows or older.sum() < self.rules.calibration_rows:
            return None
        return self.where(recent)

    def before(self, held: _Rows) -> _Rows:
        """Rows whose label ended before the first origin held out."""
        return self.where(self.age >= held.age.max() + 7)

    def fitted(self, estimator: Any) -> Any:
        from threadpoolctl import threadpool_limits

        try:
            # one thread an estimator: two OpenMP teams on shared cores wait for each other (4-7 times slower)
            with threadpool_limits(1, user_api="openmp"):
                return estimator.fit(self.matrix, self.ratio, sample_weight=self.weight)
        except (ValueError, FloatingPointError, MemoryError) as error:
            raise TrainingFailed(f"{type(estimator).__name__} could not be fitted: {error}") from error

    def factor(self, model: Any, level: float) -> float:
        """Split conformal scaling (Vovk; Romano et al. 2019): the factor that covers ``level`` of the held rows."""
        predicted = np.clip(model.predict(self.matrix), 0, self.rules.ratio_cap)
        share = self.ratio / np.maximum(predicted, 1e-6)
        return float(np.clip(np.quantile(share, level, method="higher"), 0.25, 4.0))


def _described(estimator: Any) -> dict[str, Any]:
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    return {"class": f"{type(estimator).__module__}.{type(estimator).__qualname__}", **parameters}

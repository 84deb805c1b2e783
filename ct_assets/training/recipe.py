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

from ct_assets.training.design import Bins, Design
from ct_assets.training.learning import FitRules, LabelledRows, TrainingFailed, one_thread

OUTPUTS = ("mean", "p50", "p90")
LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost")
TARGETS = {"p50": 0.5, "p90": 0.9}
FORMAT = 2  # of a stored model; 1 had no bins and kept the design flat


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
            "design": self.design.settings,
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

        rows, bins = LabelledRows.of(frame, self.design, self.rules), None
        if self.design.bins:
            rows, bins = rows.binned(self.design.bins)
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
        return FittedQuantiles(self.design, models, factors, self.rules.ratio_cap, bins)

    def _factor(self, output: str, models: Mapping[str, Any], held: LabelledRows | None) -> float:
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
    bins: Bins | None = None

    def predict(self, frame: pl.DataFrame) -> pl.DataFrame:
        """See :class:`Fitted`. P90 is raised to P50 where the two trees cross."""
        if frame.is_empty():
            return pl.DataFrame(schema=dict.fromkeys(OUTPUTS, pl.Float64))
        matrix, level = self.design.matrix(frame), self.design.level(frame)
        matrix = matrix if self.bins is None else self.bins.codes(matrix)
        # one thread: on shared cores a team of two spends most of its time waiting for each other
        with one_thread():
            ratios = {name: np.clip(model.predict(matrix), 0, self.ratio_cap) for name, model in self.models.items()}
        found = {name: ratios.get(name, ratios["mean"]) * level * self.factors[name] for name in OUTPUTS}
        found["p90"] = np.maximum(found["p50"], found["p90"])
        return pl.DataFrame(found)

    def payload(self) -> dict[str, Any]:
        """See :class:`Fitted`."""
        return {
            "format": FORMAT,
            "design": self.design.settings,
            "models": dict(self.models),
            "factors": {name: float(value) for name, value in self.factors.items()},
            "ratio_cap": self.ratio_cap,
            "edges": None if self.bins is None else self.bins.payload(),
        }


def rebuild(settings: Mapping[str, Any]) -> QuantileRecipe:
    """The recipe whose :attr:`QuantileRecipe.settings` were stored, whatever today's code would make of its name.

    So a champion trained by earlier code can still be refitted beside its challenger. Only estimators of
    :data:`LIBRARIES` are made. Raises ValueError when the settings cannot be read.
    """
    try:
        return QuantileRecipe(
            settings["name"],
            settings["seed"],
            Design.of(settings["design"]),
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


def _described(estimator: Any) -> dict[str, Any]:
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    return {"class": f"{type(estimator).__module__}.{type(estimator).__qualname__}", **parameters}


def restore(payload: Mapping[str, Any]) -> FittedQuantiles:
    """The model that gave ``payload``; ValueError for a format this code does not know."""
    if payload.get("format") not in (1, FORMAT):
        raise ValueError(f"model format {payload.get('format')!r} is not known here (known: 1 and {FORMAT})")
    edges = payload.get("edges")
    bins = None if edges is None else Bins.restore(edges)
    return FittedQuantiles(
        Design.of(payload.get("design", payload)), payload["models"], payload["factors"], payload["ratio_cap"], bins
    )


__all__ = [
    "OUTPUTS",
    "Design",
    "FitRules",
    "Fitted",
    "FittedQuantiles",
    "QuantileRecipe",
    "Recipe",
    "TrainingFailed",
    "rebuild",
    "restore",
]

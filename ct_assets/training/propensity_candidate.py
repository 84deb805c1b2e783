"""From labelled clicks to a decision: folds, refit and gates of one propensity candidate.

What goes here: the order of the steps, pure. What does not: where clicks and models are kept (``adapters.propensity``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ct_assets.training.gates import Decision
from ct_assets.training.propensity import FittedPropensity, PropensityRecipe
from ct_assets.training.propensity_evaluation import Evaluation, evaluate, judged_by, time_folds
from ct_assets.training.propensity_gates import (
    Refitted,
    Rehearsed,
    baseline_gates,
    calibration_gate,
    champion_gates,
    refit_gates,
)
from ct_assets.training.rules import GateRules, Kind

Reload = Callable[[FittedPropensity], tuple[FittedPropensity, int]]
"""Stores a model, loads it again: the loaded one and its size in bytes."""


@dataclass(frozen=True)
class Champion:
    """The model that leads. ``recipe`` None: it cannot be made again; ``frame``: the candidate's clicks with the features of
    the champion's own definition version; ``cutoff_us``: the newest click it has seen; ``load``: its stored model."""

    recipe: PropensityRecipe | None
    frame: pl.DataFrame
    cutoff_us: int
    load: Callable[[], FittedPropensity] | None
    problem: str | None = None


@dataclass(frozen=True)
class Contest:
    """Against whom, by which rules. ``ablated``: the columns that the ablation leaves out."""

    rules: GateRules = field(default_factory=GateRules)
    ablated: tuple[str, ...] = ()
    champion: Champion | None = None


@dataclass(frozen=True)
class PropensityCandidate:
    """A refitted model, how its recipe fared, and whether it may lead."""

    fitted: FittedPropensity
    evaluation: Evaluation
    decision: Decision
    seconds: float


def train(
    frame: pl.DataFrame,
    recipe: PropensityRecipe,
    contest: Contest,
    reload: Reload,
    clock: Callable[[], float] = time.perf_counter,
) -> PropensityCandidate:
    """Evaluate by folds, refit on all clicks, decide. Deterministic but for ``seconds``; raises ``TrainingFailed``."""
    started = clock()
    champion = contest.champion
    evaluation = evaluate(recipe, frame, contest.ablated)
    fitted = recipe.fit(frame)
    gates = [*baseline_gates(evaluation, contest.rules), calibration_gate(evaluation)]
    kind: Kind = "first"
    if champion is not None:
        same = champion.recipe is not None and champion.recipe.digest == recipe.digest
        kind = "refresh" if same else "challenger"
        gates += champion_gates(evaluation, _rehearsed(champion, evaluation, same), contest.rules, kind)
    gates += refit_gates(_refitted(fitted, evaluation, frame, reload, clock), contest.rules)
    return PropensityCandidate(fitted, evaluation, Decision(kind, tuple(gates)), clock() - started)


def _rehearsed(champion: Champion, evaluation: Evaluation, same: bool) -> Rehearsed:
    """The champion on the same clicks; a refresh is the same recipe, so its refits are the candidate's own."""
    if champion.recipe is None or champion.load is None:
        return Rehearsed(None, None, champion.cutoff_us, champion.problem)
    try:
        refitted = evaluation.probability("candidate") if same else judged_by(champion.recipe, champion.frame)
        fixed = champion.load().predict(_judged_rows(champion.frame))
    except Exception as error:  # noqa: BLE001 - whatever a stored model throws: the decision is no, not a crash
        return Rehearsed(None, None, champion.cutoff_us, f"{type(error).__name__}: {error}")
    return Rehearsed(refitted, fixed, champion.cutoff_us)


def _judged_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of all folds in the order of :attr:`Evaluation.rows`."""
    return pl.concat([fold.split(frame, 0)[1] for fold in time_folds(frame)])


def _refitted(
    fitted: FittedPropensity,
    evaluation: Evaluation,
    frame: pl.DataFrame,
    reload: Reload,
    clock: Callable[[], float],
) -> Refitted:
    """The refit on the newest fold beside what was judged there, stored and loaded again, and asked about nothing."""
    rows = time_folds(frame)[-1].split(frame, 0)[1]
    begun = clock()
    again = fitted.predict(rows)
    seconds = clock() - begun
    loaded, size = reload(fitted)
    newest = evaluation.rows.filter(pl.col("fold") == pl.col("fold").max())
    nothing = pl.DataFrame({name: pl.Series([None], dtype=pl.Float64) for name in fitted.seen.columns})
    evaluated = np.asarray(newest["candidate"].to_numpy())
    return Refitted(again, loaded.predict(rows), evaluated, loaded.predict(nothing), size, seconds)

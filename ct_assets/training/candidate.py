"""From data to a decision: the folds, the refit and the gates of one candidate; and its forecast.

What goes here: the order of the steps, pure. What does not: where folds and models are kept (``adapters``).
"""

from __future__ import annotations

import datetime as dt
import importlib
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ct_assets.errors import UsageError, did_you_mean
from ct_assets.features.panel import Panel
from ct_assets.features.training_set import expected_open_days, feature_frame
from ct_assets.training.dataset import Dataset, dataset
from ct_assets.training.evaluation import Evaluation, Fold, evaluate, judge, training_rows
from ct_assets.training.gates import Decision, FixedArtefact, GateRules, Kind, Refit, artefact_gates, decide
from ct_assets.training.recipe import OUTPUTS, Fitted, Recipe, TrainingFailed
from ct_assets.training.rules import unknown

Reload = Callable[[Fitted], tuple[Fitted, int]]
"""Stores a model, loads it again: the loaded one and its size in bytes."""


@dataclass(frozen=True)
class Incumbent:
    """A model that leads or has led, as it was stored. ``cutoff``: the last day it has seen; ``load`` when it is asked."""

    version: int
    cutoff: dt.date
    load: Callable[[], Fitted]


@dataclass(frozen=True)
class Contest:
    """Against whom, by which rules. ``incumbents``: the champion's model itself and those that led before it; ``kept``:
    folds computed before; new ones are added to it."""

    champion: Recipe | None = None
    incumbents: Sequence[Incumbent] = ()
    rules: GateRules = field(default_factory=GateRules)
    kept: MutableMapping[str, Fold] | None = None


@dataclass(frozen=True)
class Candidate:
    """A refitted model, how its recipe fared, and whether it may lead."""

    fitted: Fitted
    evaluation: Evaluation
    decision: Decision
    data: Dataset
    rows: int
    seconds: float


def train(
    data: Dataset, recipe: Recipe, contest: Contest, reload: Reload, clock: Callable[[], float] = time.perf_counter
) -> Candidate:
    """Evaluate ``recipe`` (and the champion's, when it is another) at every origin, refit on all data, decide.

    Deterministic but for ``seconds``. Raises :class:`TrainingFailed` when no model comes of it at all.
    """
    started = clock()
    champion = contest.champion
    kind: Kind = "first" if champion is None else "refresh" if champion.digest == recipe.digest else "challenger"
    evaluation = evaluate(recipe, data.folds, contest.kept)
    against = _champions(kind, evaluation, data, contest)
    artefact = judge_incumbent(contest.incumbents, data) if contest.incumbents else None
    rows = training_rows(data.panel, data.at)
    if rows.is_empty():
        raise TrainingFailed(history_too_short(data.panel))
    fitted = recipe.fit(rows)
    refit = check_refit(fitted, evaluation, data, reload, clock)
    decision = decide(evaluation, against, refit, contest.rules, kind)
    if not evaluation.folds:  # the reason behind all that the other gates say
        reason = history_too_short(data.panel)
        history = unknown("history", f"{NEEDED_WEEKS} weeks", reason)
        decision = Decision(kind, (history, *decision.gates))
    if artefact is not None:
        decision = decision.also(artefact_gates(evaluation, artefact, contest.rules))
    return Candidate(fitted, evaluation, decision, data, len(rows), clock() - started)


NEEDED_WEEKS = 7
"""28 days before the first origin, its week of labels, a week to be judged on, and up to a week to the next Friday."""


def history_too_short(panel: Panel) -> str:
    """Why nothing can be judged yet, for a person."""
    days = int(panel.open_days[-1] - panel.open_days[0]) + 1
    return f"history too short: needs {NEEDED_WEEKS} weeks, has {_weeks(panel):.1f} ({days} days); deliver more days"


def _weeks(panel: Panel) -> float:
    return (int(panel.open_days[-1] - panel.open_days[0]) + 1) / 7


def _champions(kind: Kind, own: Evaluation, data: Dataset, contest: Contest) -> Evaluation | None:
    """A champion's recipe that cannot be fitted any more is no evidence, not a reason to stop."""
    if contest.champion is None or kind == "refresh":
        return own if kind == "refresh" else None
    try:
        return evaluate(contest.champion, data.folds, contest.kept)
    except TrainingFailed:
        return None


def judge_incumbent(incumbents: Sequence[Incumbent], data: Dataset) -> FixedArtefact:
    """The newest champion that a week was too late for, as it is, on the weeks that neither it nor the folds' models
    have learnt from. The champion of yesterday has learnt from all of them: at daily retraining it is one of before.

    A model that cannot be loaded, or asked, is no evidence: the gate says so instead of passing over it.
    """
    first = min(incumbents, key=lambda one: one.cutoff)
    early = [one for one in incumbents if data.folds and one.cutoff <= data.folds[-1].day]
    if not early:
        return FixedArtefact(first.version, first.cutoff, ())
    chosen = max(early, key=lambda one: (one.cutoff, one.version))
    later = [fold for fold in data.folds if fold.day >= chosen.cutoff]
    try:
        fitted = chosen.load()
        judged = tuple(judge(fitted, fold.panel, fold.at) for fold in later)
        return FixedArtefact(chosen.version, chosen.cutoff, judged)
    except Exception as error:  # noqa: BLE001 - whatever a stored model throws: the decision is no, not a crash
        return FixedArtefact(chosen.version, chosen.cutoff, (), f"{type(error).__name__}: {error}")


def check_refit(
    fitted: Fitted, evaluation: Evaluation, data: Dataset, reload: Reload, clock: Callable[[], float]
) -> Refit:
    """The refit's forecasts of the newest day, and of the newest fold's week beside those that were evaluated."""
    frame = feature_frame(data.panel, data.at)
    begun = clock()
    forecast = fitted.predict(frame)
    seconds = clock() - begun
    loaded, size = reload(fitted)
    again = evaluated = pl.DataFrame()
    if evaluation.folds:
        fold = evaluation.folds[-1]
        newest = judge(fitted, data.folds[-1].panel, data.folds[-1].at)
        again, evaluated = newest.rows.select(OUTPUTS), fold.rows.select(OUTPUTS)
    return Refit(forecast, loaded.predict(frame), again, evaluated, size, seconds)


@dataclass(frozen=True)
class WeekAhead:
    """What is published. ``daily``: ``stock_code, day, mean, p50, p90``, a row a product and open day to come;
    ``totals``: ``stock_code, open_days, mean, p50, p90``, a row a product. Units, after cancellations."""

    as_of: dt.date
    daily: pl.DataFrame
    totals: pl.DataFrame


def forecast(fitted: Fitted, panel: Panel, at: int | None = None) -> WeekAhead:
    """The 7 days after the day at position ``at`` (default: the newest), for the products active then.

    A total is the forecast per open day times the days expected to be open; it is spread over them by the shop's
    weekday profile of the last 56 days. Quantiles of a single day are the day's share of the week's quantile: right
    for planning a week, too narrow for judging one day.
    """
    at = panel.days - 1 if at is None else at
    frame = feature_frame(panel, at)
    rates = fitted.predict(frame)
    is_open = expected_open_days(panel, at)
    shares = weekday_profile(panel, at, is_open)
    count = int(is_open.sum())
    codes = frame["stock_code"]
    totals = pl.DataFrame({"stock_code": codes, "open_days": pl.repeat(count, len(codes), dtype=pl.Int32, eager=True)})
    totals = totals.with_columns((rates[name] * count).alias(name) for name in OUTPUTS)
    days = [
        totals.select(
            "stock_code",
            day=pl.lit(panel.day(at + 1 + ahead)),
            **{name: pl.col(name) * float(share) for name in OUTPUTS},
        )
        for ahead, share in enumerate(shares)
        if is_open[ahead]
    ]
    daily = pl.concat(days).sort("stock_code", "day") if days else totals.clear().select("stock_code", *OUTPUTS)
    return WeekAhead(panel.day(at), daily, totals.sort("stock_code"))


def weekday_profile(panel: Panel, at: int, is_open: Any) -> Any:
    """The share of each of the 7 days after ``at`` in their total; 0 on closed days, summing to 1 over open ones."""
    import numpy as np

    part = panel.window(at, 56)
    units = panel.net(part, at).sum(axis=0)[::-1]
    counts = panel.is_open[part][::-1]
    profile = np.zeros(7)
    for ahead in range(7):
        same = slice(6 - ahead, None, 7)
        profile[ahead] = units[same].sum() / max(1, counts[same].sum())
    profile = np.where(is_open, np.maximum(profile, 1e-9), 0.0)
    return profile / profile.sum() if profile.sum() else profile


def load_recipe(trainer: str, seed: int) -> Recipe:
    """Call the function that `defs.yaml` names as ``package.module:function``; raises :class:`UsageError`."""
    module_name, _, function = trainer.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"trainer {trainer!r}: {error}", hint="name it as package.module:function in defs.yaml"
        ) from error
    made = getattr(module, function, None)
    if not callable(made):
        near = did_you_mean(function, [name for name in dir(module) if not name.startswith("_")])
        raise UsageError(f"trainer {trainer!r}: {module_name} has no function {function!r}", hint=near)
    return made(seed)  # pyright: ignore[reportReturnType]


__all__ = ["Candidate", "Contest", "Dataset", "Incumbent", "WeekAhead", "dataset", "forecast", "load_recipe", "train"]

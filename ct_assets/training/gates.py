"""The gates: may this candidate lead? Every gate a figure, a threshold, a verdict and a reason; in doubt, no.

What goes here: decisions over evaluations. What does not: computing evaluations, moving the pointer.

Two kinds of promotion. A *refresh* (the champion's recipe on newer data) passes when it is not worse; a *challenger*
(another recipe or other features) must be better. Recipes are compared by rolling origin, both refitted at each. The
first model of all must beat what a planner would do without one; so must every later one.
Missing, empty or not-a-number evidence is ``insufficient_evidence`` and counts as no.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from ct_assets.training.evaluation import BASELINES, Evaluation, Fold
from ct_assets.training.measures import deviances

Verdict = Literal["pass", "fail", "insufficient_evidence"]
Kind = Literal["first", "refresh", "challenger"]
RESAMPLES = 1000
MIN_BLOCKS = 20  # products; fewer say nothing about spread


@dataclass(frozen=True)
class GateResult:
    """One gate: ``figure`` against ``threshold``; ``reason`` is a sentence for people."""

    name: str
    figure: float | None
    threshold: str
    verdict: Verdict
    reason: str

    @property
    def passed(self) -> bool:
        """Only a pass is a pass."""
        return self.verdict == "pass"

    def as_json(self) -> dict[str, Any]:
        """JSON values; a figure that is not a number becomes null."""
        return {**vars(self), "figure": _finite(self.figure)}


@dataclass(frozen=True)
class GateRules:
    """Thresholds. Margins are shares of the champion's value."""

    deviance_margin: float = 0.02
    wape_margin: float = 0.02
    confidence: float = 0.95
    coverage: tuple[float, float] = (0.85, 0.95)
    refit_ratio: tuple[float, float] = (0.67, 1.5)
    max_artefact_bytes: int = 50_000_000
    max_predict_seconds: float = 5.0

    @staticmethod
    def of(gates: Mapping[str, Any]) -> GateRules:
        """From a pipeline's ``gates``: objects with ``not_worse_than_champion_by, confidence, between``."""
        given: dict[str, Any] = {}
        for measure, name in (("deviance", "deviance_margin"), ("wape", "wape_margin")):
            if measure in gates and gates[measure].not_worse_than_champion_by is not None:
                given[name] = gates[measure].not_worse_than_champion_by
        if gates:
            given["confidence"] = max(gate.confidence for gate in gates.values())
        if "coverage" in gates and gates["coverage"].between is not None:
            given["coverage"] = gates["coverage"].between
        return GateRules(**given)


@dataclass(frozen=True)
class Refit:
    """What is known of the model refitted on all data, the one that would be published.

    All frames hold ``mean, p50, p90``. ``forecast``: of the newest day; ``reloaded``: the same after the model was
    stored and loaded again; ``again`` and ``evaluated``: the refit and the evaluated model on the newest fold's rows.
    """

    forecast: pl.DataFrame
    reloaded: pl.DataFrame
    again: pl.DataFrame
    evaluated: pl.DataFrame
    artefact_bytes: int
    predict_seconds: float


@dataclass(frozen=True)
class Decision:
    """All gates passed, or not."""

    kind: Kind
    gates: tuple[GateResult, ...]
    promote: bool = field(init=False)

    def __post_init__(self) -> None:
        """No gates at all is no evidence."""
        object.__setattr__(self, "promote", bool(self.gates) and all(gate.passed for gate in self.gates))

    @property
    def reason(self) -> str:
        """One sentence: why, or the first gates that stood in the way."""
        stopped = [f"{gate.name}: {gate.reason}" for gate in self.gates if not gate.passed]
        if stopped:
            return "; ".join(stopped)
        return f"{self.kind}: all {len(self.gates)} gates passed" if self.gates else "no gate was evaluated"


def decide(
    candidate: Evaluation, champion: Evaluation | None, refit: Refit | None, rules: GateRules, kind: Kind
) -> Decision:
    """Every gate for a candidate; ``champion`` is the champion's recipe refitted at the same origins (None: first)."""
    gates = [*baseline_gates(candidate), coverage_gate(candidate, rules)]
    if kind != "first":
        gates += champion_gates(candidate, champion, rules, kind)
    gates += refit_gates(refit, rules)
    return Decision(kind, tuple(gates))


def baseline_gates(candidate: Evaluation) -> list[GateResult]:
    """The mean's deviance and P50's WAPE below those of the best baseline."""
    results = []
    for measure in ("deviance", "wape"):
        own = candidate.mean(measure)
        others = {name: candidate.mean(measure, name) for name in BASELINES}
        name = f"baselines_{measure}"
        if not candidate.folds or not all(map(math.isfinite, (own, *others.values()))):
            results.append(_unknown(name, "< 1", "the candidate or a baseline has no finite value on every fold"))
            continue
        best = min(others, key=lambda key: others[key])
        ratio = own / others[best] if others[best] > 0 else math.inf
        text = f"{measure} {own:.4g} against {others[best]:.4g} of the best baseline, {best}"
        results.append(GateResult(name, ratio, "< 1", "pass" if ratio < 1 else "fail", text))
    return results


def coverage_gate(candidate: Evaluation, rules: GateRules) -> GateResult:
    """Share of the truth at or below P90, mean of the folds."""
    value, (low, high) = candidate.mean("coverage"), rules.coverage
    threshold = f"{low} to {high}"
    if not math.isfinite(value):
        return _unknown("coverage_p90", threshold, "coverage is not a number on every fold")
    verdict: Verdict = "pass" if low <= value <= high else "fail"
    return GateResult("coverage_p90", value, threshold, verdict, f"{value:.1%} of the weeks lie at or below P90")


def champion_gates(
    candidate: Evaluation, champion: Evaluation | None, rules: GateRules, kind: Kind
) -> list[GateResult]:
    """Deviance and WAPE against the champion's recipe at the same origins; the challenger's on deviance must be lower."""
    same = champion is not None and bool(candidate.folds) and _origins(champion) == _origins(candidate)
    results = []
    for measure, margin in (("deviance", rules.deviance_margin), ("wape", rules.wape_margin)):
        must_win = kind == "challenger" and measure == "deviance"
        limit = 0.0 if must_win else margin
        name, threshold = f"champion_{measure}", f"{'<' if must_win else '<='} {limit:+.3f}"
        if champion is None or not same:
            results.append(_unknown(name, threshold, "the champion's recipe was not evaluated at the same origins"))
            continue
        bound = upper_bound(candidate, champion, measure, rules.confidence)
        if bound is None:
            results.append(_unknown(name, threshold, "too few products in common, or errors that are not finite"))
            continue
        passed = bound < limit if must_win else bound <= limit
        text = f"with {rules.confidence:.0%} confidence {measure} is at most {bound:+.2%} of the champion's above it"
        results.append(GateResult(name, bound, threshold, "pass" if passed else "fail", text))
    return results


def upper_bound(candidate: Evaluation, champion: Evaluation, measure: str, confidence: float) -> float | None:
    """Upper confidence bound of the candidate's relative excess loss: paired bootstrap with products as blocks.

    A product's weeks stay together, because errors of one product in adjacent weeks are not independent. None when
    there is not enough: fewer than :data:`MIN_BLOCKS` common products, or a loss that is not finite.
    (Efron and Tibshirani 1993, chapter 8; a fixed seed: the same evidence gives the same decision.)
    """
    own, other = _losses(candidate, measure), _losses(champion, measure)
    both = own.join(other, on=["origin", "stock_code"], how="inner", suffix="_champion")
    if len(both) != len(own) or len(both) != len(other):
        return None
    both = both.sort("stock_code", "origin")  # the draw must not depend on the order of rows
    blocks = both.group_by("stock_code", maintain_order=True).agg(pl.col("loss", "loss_champion").sum())
    a, b = blocks["loss"].to_numpy(), blocks["loss_champion"].to_numpy()
    if len(blocks) < MIN_BLOCKS or not np.isfinite(a).all() or not np.isfinite(b).all() or b.sum() <= 0:
        return None
    weights = np.random.default_rng(0).multinomial(len(a), np.full(len(a), 1 / len(a)), size=RESAMPLES)
    excess = (weights @ a) / np.maximum(weights @ b, 1e-12) - 1
    return float(np.quantile(excess, confidence))


def refit_gates(refit: Refit | None, rules: GateRules) -> list[GateResult]:
    """The refit on all data behaves like the model that was evaluated, survives storage, and is small and fast."""
    low, high = rules.refit_ratio
    if refit is None or refit.forecast.is_empty():
        return [_unknown("refit_sane", f"{low} to {high}", "there is no forecast of the refitted model")]
    return [
        _sane(refit, rules),
        _same_after_loading(refit),
        _at_most("artefact_bytes", refit.artefact_bytes, rules.max_artefact_bytes, "bytes stored"),
        _at_most("predict_seconds", refit.predict_seconds, rules.max_predict_seconds, "seconds for all products"),
    ]


def _sane(refit: Refit, rules: GateRules) -> GateResult:
    low, high = rules.refit_ratio
    threshold = f"{low} to {high}"
    values = refit.forecast.to_numpy()
    if not np.isfinite(values).all() or (values < 0).any():
        return GateResult("refit_sane", None, threshold, "fail", "a forecast is not a finite number >= 0")
    if (refit.forecast["p50"] > refit.forecast["p90"]).any():
        return GateResult("refit_sane", None, threshold, "fail", "P50 lies above P90 for some product")
    before = float(refit.evaluated["mean"].sum()) if len(refit.evaluated) else 0.0
    if not before > 0 or len(refit.again) != len(refit.evaluated):
        return _unknown("refit_sane", threshold, "the evaluated model gave no forecast to compare with")
    ratio = float(refit.again["mean"].sum()) / before
    verdict: Verdict = "pass" if low <= ratio <= high else "fail"
    return GateResult(
        "refit_sane",
        ratio,
        threshold,
        verdict,
        f"on the newest fold the refit forecasts {ratio:.2f} times the evaluated model's units",
    )


def _same_after_loading(refit: Refit) -> GateResult:
    same = refit.forecast.equals(refit.reloaded)
    text = (
        "stored, loaded and asked again: the same forecasts" if same else "forecasts differ after storing and loading"
    )
    return GateResult("reload_equal", float(same), "1", "pass" if same else "fail", text)


def _at_most(name: str, figure: float, limit: float, unit: str) -> GateResult:
    if not math.isfinite(figure):
        return _unknown(name, f"<= {limit:g}", "not measured")
    return GateResult(
        name, float(figure), f"<= {limit:g}", "pass" if figure <= limit else "fail", f"{figure:.3g} {unit}"
    )


def _losses(evaluation: Evaluation, measure: str) -> pl.DataFrame:
    frames = [_fold_losses(fold, measure) for fold in evaluation.folds]
    return pl.concat(frames)


def _fold_losses(fold: Fold, measure: str) -> pl.DataFrame:
    truth = fold.rows["truth"].to_numpy()
    if measure == "deviance":
        loss = deviances(truth, fold.rows["mean"].to_numpy())
    else:
        loss = np.abs(truth - fold.rows["p50"].to_numpy())
    return fold.rows.select(origin=pl.lit(fold.origin), stock_code="stock_code", loss=pl.Series(loss))


def _origins(evaluation: Evaluation) -> Sequence[Any]:
    return [fold.origin for fold in evaluation.folds]


def _unknown(name: str, threshold: str, reason: str) -> GateResult:
    return GateResult(name, None, threshold, "insufficient_evidence", reason)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

"""The gates: may this candidate lead? Every gate a figure, a threshold, a verdict and a reason; in doubt, no.

What goes here: decisions over evaluations. What does not: computing evaluations, moving the pointer.

Two kinds of promotion. A *refresh* (the champion's recipe on newer data) passes when it is not worse; a *challenger*
(another recipe or other features) must be better. The first model of all must beat what a planner would do without
one; so must every later one. Against the champion:

- recipes, by rolling origin, both refitted at each: whole and on every guard slice (volume, new products; Holm). For a
  refresh the two are one, so this says nothing of new data gone bad;
- models, as they are: the champion's stored model against those of the folds, on the weeks later than what either has
  seen. Where there is no such week yet (a champion younger than a horizon) the gate says ``not_applicable``.

Missing, empty or not-a-number evidence is ``insufficient_evidence`` and counts as no.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ct_assets.training.champion_gates import FixedArtefact, artefact_gates, champion_gates
from ct_assets.training.evaluation import BASELINES, Evaluation
from ct_assets.training.rules import GateResult, GateRules, Kind, Verdict, unknown


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
        passed = any(gate.passed for gate in self.gates) and not any(gate.refuses for gate in self.gates)
        object.__setattr__(self, "promote", passed)

    @property
    def reason(self) -> str:
        """One sentence: why, or the first gates that stood in the way."""
        stopped = [f"{gate.name}: {gate.reason}" for gate in self.gates if gate.refuses]
        if stopped:
            return "; ".join(stopped)
        passed = sum(gate.passed for gate in self.gates)
        return f"{self.kind}: all {passed} gates passed" if self.gates else "no gate was evaluated"

    def also(self, gates: Sequence[GateResult]) -> Decision:
        """The decision with further gates."""
        return Decision(self.kind, (*self.gates, *gates))


def decide(
    candidate: Evaluation, champion: Evaluation | None, refit: Refit | None, rules: GateRules, kind: Kind
) -> Decision:
    """Every gate for a candidate; ``champion`` is the champion's recipe refitted at the same origins (None: first)."""
    gates = [*baseline_gates(candidate), bias_gate(candidate, rules), coverage_gate(candidate, rules)]
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
            results.append(unknown(name, "< 1", "the candidate or a baseline has no finite value on every fold"))
            continue
        best = min(others, key=lambda key: others[key])
        ratio = own / others[best] if others[best] > 0 else math.inf
        text = f"{measure} {own:.4g} against {others[best]:.4g} of the best baseline, {best}"
        results.append(GateResult(name, ratio, "< 1", "pass" if ratio < 1 else "fail", text))
    return results


def bias_gate(candidate: Evaluation, rules: GateRules) -> GateResult:
    """The mean's bias, however signed, at most ``bias_margin`` further from 0 than that of the best baseline in deviance.

    Demand that rises is followed late by everything that learns from the past, so 0 is not what can be asked: in one
    autumn the mean of 28 days is 16 % too low. The best in deviance, because the smallest of five biases is luck.
    """
    name, threshold = "baselines_bias", f"<= {rules.bias_margin:+.3f}"
    best = min(BASELINES, key=lambda key: candidate.mean("deviance", key))
    own, other = candidate.mean("bias"), candidate.mean("bias", best)
    if not candidate.folds or not math.isfinite(own) or not math.isfinite(other):
        return unknown(name, threshold, "the candidate or the best baseline has no finite value on every fold")
    further = abs(own) - abs(other)
    text = f"the mean is {own:+.1%} off in all, the best baseline in deviance, {best}, {other:+.1%}"
    return GateResult(name, further, threshold, "pass" if further <= rules.bias_margin else "fail", text)


def coverage_gate(candidate: Evaluation, rules: GateRules) -> GateResult:
    """Share of the truth at or below P90, mean of the folds."""
    value, (low, high) = candidate.mean("coverage"), rules.coverage
    threshold = f"{low} to {high}"
    if not math.isfinite(value):
        return unknown("coverage_p90", threshold, "coverage is not a number on every fold")
    verdict: Verdict = "pass" if low <= value <= high else "fail"
    text = f"{value:.1%} of the weeks lie at or below P90"
    outside = [f"{name} ({covered:.0%} of {rows})" for name, covered, rows in _off(candidate, low, high)]
    text += f"; warning, outside in slice {', '.join(outside)}" if outside else ""
    return GateResult("coverage_p90", value, threshold, verdict, text)


def _off(candidate: Evaluation, low: float, high: float) -> list[tuple[str, float, int]]:
    """Slices whose coverage lies outside by more than twice its standard error: said, not refused."""
    rows = pl.concat([fold.rows.select("slice", covered=pl.col("truth") <= pl.col("p90")) for fold in candidate.folds])
    found = rows.group_by("slice").agg(pl.col("covered").mean(), rows=pl.len()).sort("slice")
    return [
        (name, covered, count)
        for name, covered, count in found.iter_rows()
        if max(low - covered, covered - high) > 2 * math.sqrt(low * (1 - low) / count)
    ]


def refit_gates(refit: Refit | None, rules: GateRules) -> list[GateResult]:
    """The refit on all data behaves like the model that was evaluated, survives storage, and is small and fast."""
    low, high = rules.refit_ratio
    if refit is None or refit.forecast.is_empty():
        return [unknown("refit_sane", f"{low} to {high}", "there is no forecast of the refitted model")]
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
        return unknown("refit_sane", threshold, "the evaluated model gave no forecast to compare with")
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
        return unknown(name, f"<= {limit:g}", "not measured")
    return GateResult(
        name, float(figure), f"<= {limit:g}", "pass" if figure <= limit else "fail", f"{figure:.3g} {unit}"
    )


__all__ = [
    "Decision",
    "FixedArtefact",
    "GateResult",
    "GateRules",
    "Kind",
    "Refit",
    "artefact_gates",
    "baseline_gates",
    "bias_gate",
    "champion_gates",
    "coverage_gate",
    "decide",
    "refit_gates",
]

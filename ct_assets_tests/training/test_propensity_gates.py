"""The gates of a propensity model fail closed: what is missing, empty or no number is no."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ct_assets.training.gates import Decision
from ct_assets.training.propensity_evaluation import BASELINES, Evaluation
from ct_assets.training.propensity_gates import (
    Refitted,
    Rehearsed,
    baseline_gates,
    calibration_gate,
    champion_gates,
    excess,
    refit_gates,
)
from ct_assets.training.rules import GateRules

RULES = GateRules()
RNG = np.random.default_rng(5)
USERS, EACH = 120, 40


def evaluation(**changes) -> Evaluation:
    """Users of known propensity: the candidate knows it, the baselines know the mean."""
    truth = np.repeat(np.where(np.arange(USERS) % 2, 0.6, 0.1), EACH)
    label = (np.random.default_rng(1).random(len(truth)) < truth).astype(np.int8)
    rows = pl.DataFrame(
        {
            "user": np.repeat(np.arange(USERS), EACH),
            "at": np.arange(len(truth)) * 1_000,
            "label": label,
            "weight": np.ones(len(truth)),
            "fold": 0,
            "slice": np.tile(["first_clicks", "browsing", "busy", "busy"], len(truth) // 4),
            "candidate": truth,
            **dict.fromkeys(BASELINES, np.full(len(truth), 0.35)),
        }
    )
    return Evaluation(rows.with_columns(**{name: pl.Series(value) for name, value in changes.items()}))


def verdicts(gates) -> set[str]:
    return {gate.verdict for gate in gates}


def test_a_model_that_knows_passes() -> None:
    found = evaluation()
    gates = baseline_gates(found, RULES)
    assert [gate.name for gate in gates] == [f"beats_{name}" for name in BASELINES]
    assert verdicts([*gates, calibration_gate(found)]) == {"pass"}


@pytest.mark.fault("F43")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_f43_one_forecast_that_is_no_probability_is_no_evidence(bad: float) -> None:
    values = evaluation().probability("candidate").copy()
    values[17] = bad
    found = evaluation(candidate=values)
    gates = [*baseline_gates(found, RULES), calibration_gate(found)]
    assert verdicts(gates) == {"insufficient_evidence"}
    assert not Decision("first", tuple(gates)).promote


def test_equal_to_a_baseline_is_not_better() -> None:
    found = evaluation(candidate=np.full(USERS * EACH, 0.35))
    gates = {gate.name: gate for gate in baseline_gates(found, RULES)}
    assert gates["beats_base_rate"].verdict == "fail"
    assert gates["beats_base_rate"].figure == pytest.approx(0)
    assert "no better than the baseline" in gates["beats_base_rate"].reason


def test_few_users_say_nothing() -> None:
    few = Evaluation(evaluation().rows.filter(pl.col("user") < 20))
    assert verdicts(baseline_gates(few, RULES)) == {"insufficient_evidence"}
    assert verdicts(baseline_gates(Evaluation(few.rows.clear()), RULES)) == {"insufficient_evidence"}
    assert not Decision("first", ()).promote


def test_probabilities_that_do_not_mean_what_they_say_fail() -> None:
    found = evaluation(candidate=np.clip(evaluation().probability("candidate") * 0.5, 0, 1))
    assert calibration_gate(found).verdict == "fail"


def test_excess_is_the_ratio_of_losses() -> None:
    found = evaluation()
    label = found.rows["label"].to_numpy()
    own, other = found.probability("candidate"), np.full(USERS * EACH, 0.35)
    losses = [-np.log(np.where(label == 1, p, 1 - p)).sum() for p in (own, other)]
    result = excess(found, other)
    assert result is not None
    assert result.figure == pytest.approx(losses[0] / losses[1] - 1)
    assert result.draws.min() < result.figure < result.draws.max()


def test_against_the_champion() -> None:
    found = evaluation()
    own, worse = found.probability("candidate"), np.full(USERS * EACH, 0.35)
    better = Rehearsed(worse, worse, cutoff_us=0)
    assert verdicts(champion_gates(found, better, RULES, "challenger")) == {"pass"}
    same = Rehearsed(own, own, cutoff_us=0)
    assert verdicts(champion_gates(found, same, RULES, "refresh")) == {"pass"}
    assert champion_gates(found, same, RULES, "challenger")[0].verdict == "fail"
    seen_all = champion_gates(found, replace(same, cutoff_us=10**9), RULES, "refresh")
    assert [gate.verdict for gate in seen_all] == ["pass", "pass", "not_applicable"]


def test_worse_on_one_slice_alone_is_refused() -> None:
    found = evaluation()
    own, where = found.probability("candidate"), found.rows["slice"].to_numpy() == "first_clicks"
    hurt = evaluation(candidate=np.where(where, 0.35, own))
    gates = {gate.name: gate for gate in champion_gates(hurt, Rehearsed(own, own, 0), RULES, "refresh")}
    assert gates["slices_log_loss"].verdict == "fail"
    assert "worst on first_clicks" in gates["slices_log_loss"].reason


def test_an_unknown_champion_is_no_evidence() -> None:
    gates = champion_gates(evaluation(), Rehearsed(None, None, 0, "retired"), RULES, "challenger")
    assert verdicts(gates) == {"insufficient_evidence"}
    assert "retired" in gates[0].reason


def refitted(**changes) -> Refitted:
    values = np.array([0.2, 0.4])
    return replace(Refitted(values, values, values, np.array([0.3]), 1_000, 0.01), **changes)


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("refit_sane", {"again": np.array([0.2, np.nan])}),
        ("refit_sane", {"evaluated": np.array([0.8, 0.9])}),
        ("refit_sane", {"evaluated": np.array([])}),
        ("reload_equal", {"reloaded": np.array([0.2, 0.41])}),
        ("robust_to_gaps", {"gaps": np.array([np.nan])}),
        ("artefact_bytes", {"artefact_bytes": 10**9}),
        ("predict_seconds", {"predict_seconds": float("nan")}),
    ],
)
def test_a_refit_that_is_off_is_refused(gate: str, changes: dict) -> None:
    assert all(found.passed for found in refit_gates(refitted(), RULES))
    gates = {found.name: found for found in refit_gates(refitted(**changes), RULES)}
    assert gates[gate].refuses


def test_no_refit_is_no_evidence() -> None:
    assert [gate.verdict for gate in refit_gates(None, RULES)] == ["insufficient_evidence"]

"""Gates: what passes, what does not, and what is not enough to say. Bounds against a bootstrap in plain Python."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest

from ct_assets.training.comparison import upper_bound
from ct_assets.training.evaluation import BASELINES
from ct_assets.training.gates import (
    Decision,
    GateRules,
    Refit,
    baseline_gates,
    bias_gate,
    coverage_gate,
    decide,
    refit_gates,
)
from ct_assets.training.measures import deviances
from ct_assets_tests.training.panels import evaluation

RULES = GateRules()


def refit(**changed) -> Refit:
    frame = pl.DataFrame({"mean": [1.0, 2.0], "p50": [0.5, 1.5], "p90": [2.0, 4.0]})
    return replace(Refit(frame, frame.clone(), frame.clone(), frame.clone(), 1000, 0.01), **changed)


def verdicts(decision: Decision) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in decision.gates}


def test_a_first_model_passes_when_it_beats_the_baselines() -> None:
    decision = decide(evaluation(), None, refit(), RULES, "first")
    assert decision.promote
    assert decision.reason == "first: all 8 gates passed"
    assert "champion_deviance" not in verdicts(decision)


def test_a_first_model_that_a_baseline_beats_is_refused_with_its_name() -> None:
    decision = decide(evaluation(error=3.0), None, refit(), RULES, "first")
    assert not decision.promote
    assert verdicts(decision)["baselines_deviance"] == "fail"
    assert "last_week" in decision.reason


def test_a_refresh_passes_when_it_is_the_same_and_fails_when_it_is_worse() -> None:
    own = evaluation()
    assert decide(own, own, refit(), RULES, "refresh").promote
    worse = decide(evaluation(error=0.6, seed=1), own, refit(), RULES, "refresh")
    assert verdicts(worse)["champion_deviance"] == "fail"
    assert not worse.promote


def test_a_challenger_must_be_better_and_not_merely_as_good() -> None:
    good, poor = evaluation(error=0.05), evaluation(error=0.5, seed=3)
    assert decide(good, poor, refit(), RULES, "challenger").promote
    same = decide(good, good, refit(), RULES, "challenger")
    assert verdicts(same)["champion_deviance"] == "fail"
    assert not same.promote


def test_the_bound_is_that_of_a_bootstrap_over_products() -> None:
    own, other = evaluation(error=0.3, seed=1), evaluation(error=0.3, seed=2)
    sums: dict[str, list[float]] = {}
    for mine, theirs in zip(own.folds, other.folds, strict=True):
        a = deviances(mine.rows["truth"].to_numpy(), mine.rows["mean"].to_numpy())
        b = deviances(theirs.rows["truth"].to_numpy(), theirs.rows["mean"].to_numpy())
        for code, x, y in zip(mine.rows["stock_code"], a, b, strict=True):
            pair = sums.setdefault(code, [0.0, 0.0])
            pair[0], pair[1] = pair[0] + x, pair[1] + y
    rng, blocks, found = random.Random(5), list(sums.values()), []
    for _ in range(3000):
        drawn = rng.choices(blocks, k=len(blocks))
        found.append(sum(x for x, _ in drawn) / sum(y for _, y in drawn) - 1)
    want = sorted(found)[int(0.95 * len(found))]
    bound = upper_bound(own, other, "deviance", 0.95)
    assert bound == pytest.approx(want, abs=0.02)
    assert upper_bound(own, other, "deviance", 0.95) == bound  # the same evidence, the same decision


def test_a_non_inferior_refresh_is_let_through_most_of_the_time_and_a_worse_one_hardly_ever() -> None:
    """The error rates a person would ask about: margin 2 %, candidates that differ by noise only or are 6 % worse."""
    passed = {0.0: 0, 0.35: 0}
    for worse in passed:
        for seed in range(20):
            own, champion = (
                evaluation(error=0.02 + worse, seed=seed, products=400),
                evaluation(error=0.02, seed=seed, products=400),
            )
            bound = upper_bound(own, champion, "deviance", 0.95)
            assert bound is not None
            passed[worse] += bound <= RULES.deviance_margin
    assert passed[0.0] == 20
    assert passed[0.35] == 0


@pytest.mark.parametrize(
    ("model", "baseline", "verdict"),
    [
        (1.05, 1.0, "pass"),
        (0.95, 1.0, "pass"),
        (1.15, 1.0, "fail"),
        (0.85, 1.0, "fail"),
        (0.80, 0.84, "pass"),  # a rising season: the planner's mean is late too
        (0.80, 1.20, "pass"),  # as far off, on the other side
        (0.70, 0.84, "fail"),
    ],
)
def test_the_bias_of_the_mean_is_judged_beside_that_of_the_best_baseline(
    model: float, baseline: float, verdict: str
) -> None:
    """Every forecast is the truth times a factor, so its bias is the factor less 1, on every fold."""
    found = evaluation()
    columns = {
        "mean": pl.col("truth") * model,
        **{name: pl.col("truth") * (baseline if name == "mean_28" else 3) for name in BASELINES},
    }
    folds = tuple(replace(f, rows=f.rows.with_columns(**columns)) for f in found.folds)
    gate = bias_gate(replace(found, folds=folds), RULES)
    assert gate.figure == pytest.approx(abs(model - 1) - abs(baseline - 1))
    assert gate.verdict == verdict
    assert f"the mean is {model - 1:+.1%} off in all, the best baseline in deviance, mean_28" in gate.reason
    assert verdicts(decide(replace(found, folds=folds), None, refit(), RULES, "first"))["baselines_bias"] == verdict


@pytest.mark.parametrize("mean", [float("nan"), float("inf")])
def test_a_bias_that_is_no_number_is_no_evidence(mean: float) -> None:
    found = evaluation()
    folds = tuple(replace(f, rows=f.rows.with_columns(mean=pl.lit(mean))) for f in found.folds)
    for empty in (replace(found, folds=folds), replace(found, folds=())):
        assert bias_gate(empty, RULES).verdict == "insufficient_evidence"


@pytest.mark.parametrize(("width", "verdict"), [(1.6, "pass"), (0.2, "fail"), (8.0, "fail")])
def test_coverage_has_two_sides(width: float, verdict: str) -> None:
    found = evaluation()
    folds = tuple(
        replace(f, rows=f.rows.with_columns(p90=pl.col("mean") + width * pl.col("mean").sqrt())) for f in found.folds
    )
    assert coverage_gate(replace(found, folds=folds), RULES).verdict == verdict


@pytest.mark.parametrize(
    ("changed", "gate"),
    [
        ({"forecast": pl.DataFrame({"mean": [1.0, float("inf")], "p50": [0.5, 1.5], "p90": [2.0, 4.0]})}, "refit_sane"),
        ({"forecast": pl.DataFrame({"mean": [1.0, -2.0], "p50": [0.5, 1.5], "p90": [2.0, 4.0]})}, "refit_sane"),
        ({"forecast": pl.DataFrame({"mean": [1.0, 2.0], "p50": [0.5, 5.0], "p90": [2.0, 4.0]})}, "refit_sane"),
        ({"again": pl.DataFrame({"mean": [9.0, 9.0], "p50": [0.5, 1.5], "p90": [2.0, 4.0]})}, "refit_sane"),
        ({"reloaded": pl.DataFrame({"mean": [1.0, 2.1], "p50": [0.5, 1.5], "p90": [2.0, 4.0]})}, "reload_equal"),
        ({"artefact_bytes": 10**9}, "artefact_bytes"),
        ({"predict_seconds": 60.0}, "predict_seconds"),
    ],
)
def test_a_refit_that_is_not_what_was_evaluated_is_refused(changed: dict, gate: str) -> None:
    results = {g.name: g.verdict for g in refit_gates(refit(**changed), RULES)}
    assert results[gate] == "fail"
    assert sum(v == "pass" for v in results.values()) >= 3 - (gate == "refit_sane" and "forecast" in changed)
    assert all(g.passed for g in refit_gates(refit(), RULES))


def test_a_gate_says_its_figure_its_threshold_and_a_sentence() -> None:
    gate = baseline_gates(evaluation())[0]
    assert 0 < (gate.figure or 0) < 1
    assert gate.as_json() == {
        "name": "baselines_deviance",
        "figure": gate.figure,
        "threshold": "< 1",
        "verdict": "pass",
        "reason": gate.reason,
    }
    assert "of the best baseline" in gate.reason


def test_thresholds_come_from_the_pipelines_file() -> None:
    @dataclass(frozen=True)
    class Gate:
        not_worse_than_champion_by: float | None = None
        confidence: float = 0.95
        between: tuple[float, float] | None = None

    rules = GateRules.of({"deviance": Gate(0.01, 0.99), "wape": Gate(0.03), "coverage": Gate(between=(0.8, 0.97))})
    assert (rules.deviance_margin, rules.wape_margin, rules.confidence, rules.coverage) == (
        0.01,
        0.03,
        0.99,
        (0.8, 0.97),
    )
    assert GateRules.of({}) == GateRules()


def test_the_order_of_products_does_not_matter() -> None:
    own, other = evaluation(error=0.2, seed=1), evaluation(error=0.2, seed=2)
    mixed = replace(
        other, folds=tuple(replace(f, rows=f.rows.sample(fraction=1, shuffle=True, seed=1)) for f in other.folds)
    )
    assert np.isclose(upper_bound(own, mixed, "wape", 0.95) or 0, upper_bound(own, other, "wape", 0.95) or 1)


def test_a_slice_outside_the_band_is_said_and_does_not_refuse() -> None:
    found, wide = evaluation(), GateRules(coverage=(0.6, 0.99))
    is_low, odd = pl.col("slice") == "low", pl.int_range(pl.len()) % 2 == 1
    p90 = pl.when(is_low & odd).then(pl.lit(-1.0)).otherwise("p90")  # below every truth: half of one slice is missed
    gate = coverage_gate(
        replace(found, folds=tuple(replace(f, rows=f.rows.with_columns(p90=p90)) for f in found.folds)), wide
    )
    rows = pl.concat([fold.rows.with_columns(p90=p90) for fold in found.folds])
    share = (rows.filter(is_low)["truth"] <= rows.filter(is_low)["p90"]).to_numpy().mean()
    assert share < 0.55
    assert gate.verdict == "pass"
    assert f"warning, outside in slice low ({share:.0%} of {int((rows['slice'] == 'low').sum())})" in gate.reason
    assert "high (" not in gate.reason
    assert "warning" not in coverage_gate(found, wide).reason

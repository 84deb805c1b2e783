"""F43: no model leads on evidence that is missing, not a number, or a tie; the gate fails closed.

What goes here: each way a training can go wrong. What does not: ordinary decisions (``training/test_gates``).
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from ct_assets.training.candidate import Contest, dataset, train
from ct_assets.training.evaluation import Evaluation
from ct_assets.training.gates import Decision, GateRules, Refit, decide
from ct_assets.training.recipe import FitRules, QuantileRecipe, TrainingFailed
from ct_assets_tests.training.panels import evaluation, tables
from ct_assets_tests.training.test_recipe import DESIGN, small

RULES = GateRules()
GOOD = pl.DataFrame({"mean": [1.0], "p50": [1.0], "p90": [2.0]})
REFIT = Refit(GOOD, GOOD, GOOD, GOOD, 10, 0.1)


def spoiled(found: Evaluation, column: str, value: float, fold: int = 2) -> Evaluation:
    rows = found.folds[fold].rows.with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(value).otherwise(column).alias(column)
    )
    folds = list(found.folds)
    folds[fold] = replace(folds[fold], rows=rows)
    return replace(found, folds=tuple(folds))


def open_questions(decision: Decision) -> set[str]:
    return {gate.name for gate in decision.gates if gate.verdict == "insufficient_evidence"}


@pytest.mark.fault("F43")
@pytest.mark.parametrize(
    ("column", "gate"), [("mean", "baselines_deviance"), ("p50", "baselines_wape"), ("p90", "coverage_p90")]
)
def test_f43_one_forecast_that_is_not_a_number_is_no_evidence(column: str, gate: str) -> None:
    bad = spoiled(evaluation(), column, float("nan"))
    assert bad.folds[2].rows[column].is_nan().sum() == 1  # the fault is there
    decision = decide(bad, None, REFIT, RULES, "first")
    assert gate in open_questions(decision)
    assert not decision.promote
    assert decide(evaluation(), None, REFIT, RULES, "first").promote


@pytest.mark.fault("F43")
@pytest.mark.parametrize("kind", ["first", "refresh", "challenger"])
def test_f43_no_folds_are_no_evidence(kind) -> None:
    nothing = Evaluation("own", ())
    decision = decide(nothing, nothing, REFIT, RULES, kind)
    assert not decision.promote
    assert {"baselines_deviance", "baselines_wape", "coverage_p90"} <= open_questions(decision)


@pytest.mark.fault("F43")
@pytest.mark.parametrize(
    "champion",
    [
        None,
        Evaluation("champion", ()),
        evaluation(folds=3),
        spoiled(evaluation(), "mean", float("inf")),
        spoiled(evaluation(), "mean", float("nan"), fold=0),
    ],
    ids=["none", "no folds", "other origins", "infinite", "nan"],
)
def test_f43_a_champion_that_cannot_be_compared_with_is_not_passed_over(champion: Evaluation | None) -> None:
    for kind in ("refresh", "challenger"):
        decision = decide(evaluation(), champion, REFIT, RULES, kind)
        assert "champion_deviance" in open_questions(decision)
        assert not decision.promote


@pytest.mark.fault("F43")
def test_f43_a_tie_is_not_superior() -> None:
    own = evaluation()
    decision = decide(own, own, REFIT, RULES, "challenger")
    figures = {gate.name: (gate.figure, gate.verdict) for gate in decision.gates}
    assert figures["champion_deviance"] == (0.0, "fail")
    assert not decision.promote


@pytest.mark.fault("F43")
def test_f43_a_handful_of_products_is_no_evidence_against_a_champion() -> None:
    decision = decide(evaluation(products=10), evaluation(products=10), REFIT, RULES, "refresh")
    assert "champion_deviance" in open_questions(decision)


@pytest.mark.fault("F43")
def test_f43_without_a_refit_nothing_leads() -> None:
    assert open_questions(decide(evaluation(), None, None, RULES, "first")) == {"refit_sane"}
    assert not Decision("first", ()).promote


class Failing:
    """An estimator that fails to fit."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def fit(self, *args, **kwargs):
        raise self.error


@pytest.mark.fault("F43")
@pytest.mark.parametrize(
    "error", [MemoryError("out of memory"), FloatingPointError("did not converge"), ValueError("input holds NaN")]
)
def test_f43_a_fit_that_fails_makes_no_candidate(error: Exception) -> None:
    recipe = QuantileRecipe("failing", 1, DESIGN, {"mean": lambda seed: Failing(error)}, FitRules())
    with pytest.raises(TrainingFailed, match=str(error)):
        train(dataset(*tables()), recipe, Contest(small()), lambda fitted: (fitted, 1))


@pytest.mark.fault("F43")
def test_f43_a_model_that_forecasts_nan_is_refused_the_whole_way() -> None:
    class Nowhere(Failing):
        def fit(self, matrix, *args, **kwargs):
            return self

        def predict(self, matrix):
            return matrix[:, 0] * float("nan")

    recipe = QuantileRecipe(
        "nan", 1, DESIGN, {"mean": lambda seed: Nowhere(ValueError())}, FitRules(calibration_rows=10**9)
    )
    made = train(dataset(*tables()), recipe, Contest(), lambda fitted: (fitted, 1))
    assert made.evaluation.folds[0].rows["mean"].is_nan().all()  # the fault is there
    assert not made.decision.promote
    assert {"baselines_deviance", "coverage_p90"} <= open_questions(made.decision)
    assert {g.verdict for g in made.decision.gates if g.name == "refit_sane"} == {"fail"}

"""Folds: no look ahead, kept and used again, printed as they are; and the whole way from data to a decision."""

from __future__ import annotations

import datetime as dt
import json
import math

import numpy as np
import polars as pl
import pytest

from ct_assets.errors import UsageError
from ct_assets.features.panel import build_panel
from ct_assets.features.training_set import HORIZON_DAYS
from ct_assets.training import measures
from ct_assets.training.candidate import Contest, dataset, forecast, load_recipe, train
from ct_assets.training.demand import recipe as demand
from ct_assets.training.evaluation import MAX_ROWS, Evaluation, Fold, evaluate, evaluate_fold, thinned, training_rows
from ct_assets.training.recipe import FittedQuantiles, QuantileRecipe, TrainingFailed
from ct_assets_tests.training.panels import START, evaluation, panel, tables
from ct_assets_tests.training.test_recipe import small


def reload(fitted: FittedQuantiles) -> tuple[FittedQuantiles, int]:
    return fitted, 1000


class Counting:
    """A recipe that counts how often it is fitted."""

    def __init__(self, inner: QuantileRecipe) -> None:
        self.inner, self.fits = inner, 0
        self.name, self.digest, self.settings = inner.name, inner.digest, inner.settings

    def fit(self, frame: pl.DataFrame) -> FittedQuantiles:
        self.fits += 1
        return self.inner.fit(frame)


def test_a_fold_does_not_change_when_days_after_its_week_are_added_or_altered() -> None:
    daily, lines = tables()
    at = 88
    until = START + dt.timedelta(days=at + HORIZON_DAYS)
    altered = daily.with_columns(units=pl.when(pl.col("day") > until).then(pl.col("units") * 50).otherwise("units"))
    folds = [
        evaluate_fold(small(), build_panel(frame, lines), at)[0].rows
        for frame in (daily, altered, daily.filter(pl.col("day") <= until))
    ]
    assert folds[0].equals(folds[1])
    assert folds[0].equals(folds[2])


def test_the_truth_of_a_fold_is_not_known_to_its_model() -> None:
    daily, lines = tables()
    at = 88
    altered = daily.with_columns(
        units=pl.when(pl.col("day") > START + dt.timedelta(days=at)).then(pl.col("units") * 9).otherwise("units")
    )
    own, other = (evaluate_fold(small(), build_panel(frame, lines), at)[0].rows for frame in (daily, altered))
    assert own.select("mean", "p50", "p90", "mean_28").equals(other.select("mean", "p50", "p90", "mean_28"))
    assert other["truth"].sum() == 9 * own["truth"].sum()


def test_measures_of_a_fold_and_their_means() -> None:
    found = evaluation()
    fold = found.folds[1]
    truth, mean = fold.rows["truth"].to_numpy(), fold.rows["mean"].to_numpy()
    assert fold.measures()["deviance"] == measures.poisson_deviance(truth, mean)
    assert found.mean("wape") == pytest.approx(np.mean([f.measures()["wape"] for f in found.folds]))
    assert found.mean("deviance", "zero") == pytest.approx(
        np.mean([f.baseline("zero")["deviance"] for f in found.folds])
    )
    summary = found.summary()
    assert summary["slices"]["high"]["rows"] + summary["slices"]["low"]["rows"] == 800
    assert summary["deviance_over_mean_28"] < 1
    assert len(found.table()) == 4 * 6 + 6
    assert math.isnan(Evaluation("none", ()).mean("wape"))


def test_a_fold_comes_back_from_json_as_it_was() -> None:
    fold = evaluation().folds[0]
    again = Fold.from_json(json.loads(json.dumps(fold.as_json())))
    assert again.origin == fold.origin
    assert again.rows.equals(fold.rows)


def test_folds_that_were_computed_are_not_computed_again() -> None:
    data = dataset(*tables())
    recipe, kept = Counting(small()), {}
    first = evaluate(recipe, data.folds, kept)
    second = evaluate(recipe, data.folds, kept)
    assert recipe.fits == 4
    assert all(a.rows.equals(b.rows) for a, b in zip(first.folds, second.folds, strict=True))
    other = Counting(small(seed=4))
    evaluate(other, data.folds, kept)
    assert other.fits == 4
    daily, lines = tables()
    newest = data.origins[-1]
    changed = daily.with_columns(units=pl.col("units") + (pl.col("day") == data.panel.day(newest + 3)).cast(pl.Int64))
    late = dataset(changed, lines)
    evaluate(recipe, late.folds, kept)
    assert recipe.fits == 5  # only the fold whose week was corrected


def test_many_origins_are_thinned_to_a_weekly_grid_and_few_are_not() -> None:
    small_panel = panel()
    origins = np.arange(30, 90)
    assert thinned(small_panel, origins).tolist() == origins.tolist()

    class Wide:
        def active(self, at: int) -> np.ndarray:
            return np.zeros(MAX_ROWS // 10)

    chosen = thinned(Wide(), np.arange(30, 200))  # type: ignore[arg-type]
    assert chosen[-1] == 199
    assert set(np.diff(chosen).tolist()) == {7}
    assert len(chosen) == 10


def test_from_data_to_a_decision_and_its_forecast() -> None:
    data = dataset(*tables())
    made = train(data, demand(7), Contest(), reload, clock=lambda: 0.0)
    assert made.decision.kind == "first"
    assert made.decision.promote, made.decision.reason
    assert made.evaluation.mean("deviance") < made.evaluation.mean("deviance", "mean_28")
    assert made.rows == len(training_rows(data.panel, data.at))
    again = train(data, demand(7), Contest(demand(7)), reload, clock=lambda: 0.0)
    assert again.decision.kind == "refresh"
    assert again.decision.promote, again.decision.reason
    assert again.evaluation.summary() == made.evaluation.summary()
    week = forecast(made.fitted, data.panel)
    assert week.as_of == data.cutoff
    days = week.daily["day"].unique().sort().to_list()
    ahead = [data.cutoff + dt.timedelta(days=n) for n in range(1, 8)]
    assert days == [day for day in ahead if day.weekday() != 5]
    assert week.totals["open_days"].unique().to_list() == [6]
    summed = week.daily.group_by("stock_code").agg(pl.col("mean").sum()).sort("stock_code")
    assert np.allclose(summed["mean"], week.totals["mean"])
    assert (week.daily["p50"] <= week.daily["p90"]).all()


def test_a_champion_that_cannot_be_refitted_is_no_evidence() -> None:
    class Broken(Counting):
        def fit(self, frame: pl.DataFrame) -> FittedQuantiles:
            raise TrainingFailed("gone")

    broken = Broken(small(seed=99))
    made = train(dataset(*tables()), demand(7), Contest(broken), reload, clock=lambda: 0.0)
    assert made.decision.kind == "challenger"
    assert not made.decision.promote
    assert {g.name: g.verdict for g in made.decision.gates if not g.passed} == {
        f"{gate}_{measure}": "insufficient_evidence"
        for gate in ("champion", "slices")
        for measure in ("deviance", "wape")
    }


def test_too_little_history_to_judge_is_the_first_reason() -> None:
    """Seven weeks are enough whatever weekday the history begins on; with six it may be that no week can be judged."""
    made = train(dataset(*tables(40)), demand(7), Contest(), reload, clock=lambda: 0.0)
    assert not made.evaluation.folds
    assert not made.decision.promote
    assert made.decision.reason.startswith("history: history too short: needs 7 weeks, has 5.7 (40 days)")
    daily, lines = tables(60)
    for begin in range(7):
        part = daily.filter(pl.col("day") >= daily["day"].min() + dt.timedelta(days=begin))  # pyright: ignore[reportOperatorIssue]
        first = part["day"].min()
        part = part.filter(pl.col("day") < first + dt.timedelta(days=50))  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
        assert dataset(part, lines).folds, begin


def test_no_data_is_said_so() -> None:
    daily, lines = tables()
    with pytest.raises(TrainingFailed, match="no daily product sales"):
        dataset(daily.clear(), lines)
    with pytest.raises(TrainingFailed, match=r"history too short: needs 7 weeks, has 2\.7"):
        train(dataset(daily.filter(pl.col("day") < START + dt.timedelta(days=20)), lines), small(), Contest(), reload)


def test_a_trainer_is_found_by_its_name_or_the_nearest_is_told() -> None:
    assert (
        load_recipe("ct_assets.training.demand:recipe", 5).digest
        == load_recipe("ct_assets.training.demand:recipe", 5).digest
    )
    with pytest.raises(UsageError, match="recipe"):
        load_recipe("ct_assets.training.demand:recipes", 5)
    with pytest.raises(UsageError, match="no_such_module"):
        load_recipe("no_such_module:recipe", 5)


def test_calibration_by_tenths_is_what_counting_says() -> None:
    found = evaluation()
    rows = sorted((row for fold in found.folds for row in fold.rows.to_dicts()), key=lambda row: row["mean"])
    groups = found.calibration()
    assert len(groups) == 10
    for number, group in enumerate(groups):
        part = rows[number * 80 : (number + 1) * 80]
        assert group["rows"] == len(part) == 80
        assert group["forecast"] == pytest.approx(np.mean([row["mean"] for row in part]))
        assert group["truth"] == pytest.approx(np.mean([row["truth"] for row in part]))
        assert group["p90"] == pytest.approx(np.mean([row["truth"] <= row["p90"] for row in part]))
        assert group["p50"] == pytest.approx(np.mean([row["truth"] <= row["p50"] for row in part]))
    assert Evaluation("none", ()).calibration() == []

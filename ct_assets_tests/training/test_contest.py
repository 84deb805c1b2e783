"""The whole way with planted candidates: the better one leads, the worse one does not, and why."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl

from ct_assets.features.panel import build_panel
from ct_assets.training.candidate import Candidate, Contest, Incumbent, dataset, train
from ct_assets.training.design import Design
from ct_assets.training.evaluation import training_rows
from ct_assets.training.gates import GateRules
from ct_assets.training.recipe import FittedQuantiles, QuantileRecipe, Recipe
from ct_assets_tests.training.panels import START, panel, tables
from ct_assets_tests.training.test_recipe import small

RULES = GateRules(coverage=(0.5, 1.0))  # coverage is not the question here


def no_better_than_the_level(seed: int = 3) -> QuantileRecipe:
    """It sees nothing but the level: the waves of the panel escape it."""
    from sklearn.dummy import DummyRegressor

    return QuantileRecipe("level", seed, Design((), ()), {"mean": lambda s: DummyRegressor()})


def contest(recipe: Recipe, champion: Recipe, *incumbents: Incumbent, data=None) -> Candidate:
    data = dataset(*tables()) if data is None else data
    return train(data, recipe, Contest(champion, incumbents, RULES), lambda fitted: (fitted, 1000), clock=lambda: 0.0)


def verdicts(made: Candidate) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in made.decision.gates}


def test_a_better_challenger_leads() -> None:
    made = contest(small(), no_better_than_the_level())
    assert made.decision.kind == "challenger"
    assert made.decision.promote, made.decision.reason


def test_a_worse_challenger_does_not() -> None:
    made = contest(no_better_than_the_level(), small())
    assert not made.decision.promote
    found = verdicts(made)
    assert (found["champion_deviance"], found["slices_deviance"]) == ("fail", "fail")


def short_sighted(seed: int = 3) -> QuantileRecipe:
    """It looks back 28 days at most."""
    design = Design(("units_mean_7", "units_mean_14"), ("units_lag_1",), level_of=("units_mean_28",))
    return QuantileRecipe("short", seed, design, small().estimators)


def test_a_refresh_on_data_gone_bad_is_refused_by_the_champions_own_model() -> None:
    """Both sides of a refresh have one recipe, so refitting tells nothing; the model made before the damage does.

    Planted: for three weeks half of the rows are 40 times too large. What is learnt from them is wrong; the champion
    was made before, and forecasts the newest week, and the 28 days that it looks at, from clean days.
    """
    daily, lines = tables()
    champion: FittedQuantiles = short_sighted().fit(training_rows(build_panel(daily, lines), 60))
    at = dataset(daily, lines).origins[-1]
    begin, end = (START + dt.timedelta(days=day) for day in (at - 50, at - 28))
    factor = pl.Series(np.random.default_rng(1).choice([1, 40], len(daily)))
    bad = pl.col("units") * pl.when(pl.col("day").is_between(begin, end)).then(factor).otherwise(1)
    data = dataset(daily.with_columns(units=bad), lines)
    data = replace(data, folds=data.folds[-1:])
    clean_one = Incumbent(1, START + dt.timedelta(days=60), lambda: champion)
    made = contest(short_sighted(), short_sighted(), clean_one, data=data)
    found = verdicts(made)
    assert made.decision.kind == "refresh"
    assert (found["champion_deviance"], found["slices_deviance"]) == ("pass", "pass")  # by construction
    assert found["artefact_deviance"] == "fail", made.decision.reason
    assert not made.decision.promote
    clean = dataset(daily, lines)
    again = contest(short_sighted(), short_sighted(), clean_one, data=clean)
    assert verdicts(again)["artefact_deviance"] == "pass"


def test_the_champions_model_is_not_even_loaded_while_no_week_is_later() -> None:
    def load() -> FittedQuantiles:
        raise AssertionError("loaded")

    newest = START + dt.timedelta(days=99)
    made = contest(small(), small(), Incumbent(1, newest, load))
    assert verdicts(made)["artefact_deviance"] == "not_applicable"
    assert made.decision.promote, made.decision.reason
    old = contest(small(), small(), Incumbent(1, START + dt.timedelta(days=50), load))
    assert verdicts(old)["artefact_deviance"] == "insufficient_evidence"
    assert not old.decision.promote


def test_at_daily_retraining_the_newest_champion_that_a_week_was_too_late_for_is_asked() -> None:
    """Champions of every day up to yesterday: those of the last week have seen all folds, and are not asked."""
    asked: list[int] = []

    def load(version: int) -> FittedQuantiles:
        asked.append(version)
        return small().fit(training_rows(panel(), 85))

    data = dataset(*tables())
    origins = [fold.day for fold in data.folds]
    daily = [Incumbent(day, START + dt.timedelta(days=day), partial(load, day)) for day in range(40, 99)]
    made = contest(small(), small(), *daily, data=data)
    newest = (origins[-1] - START).days
    assert asked == [newest], "the one made on the origin day of the newest week, and no other"
    gate = {gate.name: gate for gate in made.decision.gates}["artefact_deviance"]
    assert gate.verdict == "pass"
    assert f"against that of version {newest} (cut-off {origins[-1]}), at most" in gate.reason
    assert gate.reason.endswith("1 week)")


def test_a_newest_week_of_ten_times_the_units_does_not_get_past_a_champion_of_yesterday() -> None:
    """The folds have not learnt from it yet, so their models are as good as ever: the refit is what gives it away."""
    daily, lines = tables()
    units = pl.when(pl.col("day") > START + dt.timedelta(days=92)).then(pl.col("units") * 10).otherwise("units")
    poisoned = dataset(daily.with_columns(units=units), lines)
    clean = small().fit(training_rows(panel(), 85))
    champions = [Incumbent(day, START + dt.timedelta(days=day), lambda: clean) for day in range(70, 99)]
    made = contest(small(), small(), *champions, data=poisoned)
    assert not made.decision.promote
    found = verdicts(made)
    assert found["refit_sane"] == "fail"
    assert {found["artefact_deviance"], found["artefact_wape"]} <= {"pass", "fail"}, "they apply"
    assert contest(small(), small(), *champions).decision.promote

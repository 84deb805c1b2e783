"""Recipes: deterministic, ordered quantiles, calibrated P90, stored and restored, another library's estimator."""

from __future__ import annotations

import json
import warnings

import numpy as np
import polars as pl
import pytest

from ct_assets.training.demand import DESIGN, recipe
from ct_assets.training.evaluation import training_rows
from ct_assets.training.recipe import FitRules, QuantileRecipe, TrainingFailed, rebuild, restore
from ct_assets_tests.training.panels import panel


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return training_rows(panel(), 93)


@pytest.fixture(scope="module")
def later() -> pl.DataFrame:
    return training_rows(panel(), 99).filter(pl.col("origin") > training_rows(panel(), 93)["origin"].max())


def small(seed: int = 3, **estimators) -> QuantileRecipe:
    from sklearn.ensemble import HistGradientBoostingRegressor as Boosting

    def mean(s: int):
        return Boosting(loss="poisson", max_iter=20, random_state=s, early_stopping=False)

    return QuantileRecipe("small", seed, DESIGN, {"mean": mean, **estimators}, FitRules())


def test_the_same_frame_and_seed_give_the_same_forecasts(rows: pl.DataFrame, later: pl.DataFrame) -> None:
    first, second = (recipe(7).fit(rows).predict(later) for _ in range(2))
    assert first.equals(second)
    assert recipe(7).digest == recipe(7).digest
    assert len({recipe(7).digest, recipe(8).digest, recipe(7, half_life_days=30.0).digest, small().digest}) == 4


def test_forecasts_are_finite_ordered_and_in_the_order_of_the_frame(rows: pl.DataFrame, later: pl.DataFrame) -> None:
    fitted = recipe(7).fit(rows)
    got = fitted.predict(later)
    assert got.columns == ["mean", "p50", "p90"]
    assert len(got) == len(later)
    assert np.isfinite(got.to_numpy()).all()
    assert (got.to_numpy() >= 0).all()
    assert (got["p50"] <= got["p90"]).all()
    shuffled = later.sample(fraction=1, shuffle=True, seed=5)
    again = (
        fitted.predict(shuffled).with_columns(shuffled["stock_code"], shuffled["origin"]).sort("origin", "stock_code")
    )
    assert again.select(got.columns).equals(got)
    assert fitted.predict(later.clear()).is_empty()


def test_the_model_knows_more_than_the_level(rows: pl.DataFrame, later: pl.DataFrame) -> None:
    from sklearn.metrics import mean_poisson_deviance

    got = recipe(7).fit(rows).predict(later)["mean"].to_numpy()
    level = DESIGN.level(later)
    truth, weight = later["label_per_open_day"].to_numpy(), later["label_open_days"].to_numpy()
    own, naive = (mean_poisson_deviance(truth, np.maximum(f, 0.002), sample_weight=weight) for f in (got, level))
    assert own < 0.3 * naive


def test_p90_covers_about_nine_tenths_of_weeks_not_learnt_from(rows: pl.DataFrame, later: pl.DataFrame) -> None:
    got = recipe(7).fit(rows).predict(later)
    assert 0.82 <= (later["label_per_open_day"] <= got["p90"]).mean() <= 0.97


def test_quantiles_come_from_the_mean_when_there_is_no_estimator_for_them(
    rows: pl.DataFrame, later: pl.DataFrame
) -> None:
    fitted = small().fit(rows)
    assert set(fitted.models) == {"mean"}
    assert fitted.factors["p50"] < fitted.factors["p90"]
    got = fitted.predict(later)
    assert 0.8 <= (later["label_per_open_day"] <= got["p90"]).mean() <= 0.97
    assert 0.35 <= (later["label_per_open_day"] <= got["p50"]).mean() <= 0.65


def test_an_estimator_of_another_library_is_a_recipe(rows: pl.DataFrame, later: pl.DataFrame) -> None:
    lightgbm = pytest.importorskip("lightgbm")

    def of(**parameters):
        return lambda seed: lightgbm.LGBMRegressor(
            random_state=seed, n_estimators=40, verbose=-1, n_jobs=1, **parameters
        )

    own = QuantileRecipe(
        "lightgbm",
        5,
        DESIGN,
        {"mean": of(objective="poisson"), "p90": of(objective="quantile", alpha=0.9)},
    )
    with warnings.catch_warnings():
        # its scikit-learn wrapper names the columns of a numpy matrix and then warns that the names are missing
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        got = own.fit(rows).predict(later)
    truth = later["label_per_open_day"]
    level = (truth - later["units_mean_28"]).abs().mean()
    assert (truth - got["mean"]).abs().mean() < level  # it has learnt more than the level it started from
    assert 0.8 <= (truth <= got["p90"]).mean() <= 0.98


def test_a_payload_restores_the_same_model(rows: pl.DataFrame, later: pl.DataFrame) -> None:
    fitted = small().fit(rows)
    assert restore(fitted.payload()).predict(later).equals(fitted.predict(later))
    with pytest.raises(ValueError, match="format 3"):
        restore({**fitted.payload(), "format": 3})


def test_a_recipe_is_rebuilt_from_its_stored_settings(rows: pl.DataFrame, later: pl.DataFrame) -> None:
    stored = json.loads(json.dumps(recipe(7).settings, default=str))
    again = rebuild(stored)
    assert again.digest == recipe(7).digest
    assert again.fit(rows).predict(later).equals(recipe(7).fit(rows).predict(later))


def test_stored_settings_cannot_name_any_class_they_like() -> None:
    stored = json.loads(json.dumps(recipe(7).settings, default=str))
    stored["estimators"]["mean"] = {"class": "subprocess.Popen", "args": ["true"]}
    with pytest.raises(ValueError, match=r"subprocess\.Popen is of no library"):
        rebuild(stored)


def test_labels_that_are_not_numbers_are_refused(rows: pl.DataFrame) -> None:
    bad = rows.with_columns(
        label_per_open_day=pl.when(pl.int_range(pl.len()) == 5).then(float("nan")).otherwise("label_per_open_day")
    )
    with pytest.raises(TrainingFailed, match="1 labels are not finite"):
        small().fit(bad)
    with pytest.raises(TrainingFailed, match="no labelled rows"):
        small().fit(rows.clear())


def test_few_rows_are_learnt_from_without_calibration(rows: pl.DataFrame) -> None:
    few = rows.filter(pl.col("origin") == rows["origin"].max())
    assert recipe(7).fit(few).factors == {"mean": 1.0, "p50": 1.0, "p90": 1.0}


def test_the_outlier_rule_caps_what_is_learnt_and_not_what_is_forecast_for_others(
    rows: pl.DataFrame, later: pl.DataFrame
) -> None:
    wild = rows.with_columns(
        label_per_open_day=pl.when(pl.int_range(pl.len()) == 10).then(1e9).otherwise("label_per_open_day")
    )
    calm, other = small().fit(rows).predict(later)["mean"].sum(), small().fit(wild).predict(later)["mean"].sum()
    assert other / calm < 1.1


def test_a_mean_is_needed_and_other_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match="'mean'"):
        QuantileRecipe("none", 1, DESIGN, {})
    with pytest.raises(ValueError, match="p99"):
        QuantileRecipe("more", 1, DESIGN, {"mean": lambda seed: None, "p99": lambda seed: None})


def test_the_rows_that_calibrate_are_not_learnt_from_by_what_they_calibrate(rows: pl.DataFrame) -> None:
    learnt: dict[str, int] = {}

    class Recording:
        def __init__(self, name: str) -> None:
            self.name = name

        def fit(self, matrix: np.ndarray, ratio: np.ndarray, sample_weight: np.ndarray):
            learnt[self.name] = max(len(matrix), learnt.get(self.name, 0))
            return self

        def predict(self, matrix: np.ndarray) -> np.ndarray:
            return np.ones(len(matrix))

    made = {name: lambda seed, name=name: Recording(name) for name in ("mean", "p50", "p90")}
    fitted = QuantileRecipe("recording", 1, DESIGN, made, FitRules()).fit(rows)
    age = (rows["origin"].max() - rows["origin"]).dt.total_days()  # type: ignore[operator]
    newest_held = age.filter(age < 14).max()
    assert learnt["mean"] == learnt["p50"] == len(rows)
    assert learnt["p90"] == int((age >= newest_held + 7).sum()) < len(rows)  # type: ignore[operator]
    held = rows.filter(age < 14)
    share = (held["label_per_open_day"].to_numpy() / DESIGN.level(held)).clip(0, 30)
    assert fitted.factors["p90"] == pytest.approx(np.quantile(share, 0.9, method="higher"))

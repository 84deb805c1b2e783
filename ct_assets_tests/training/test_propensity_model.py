"""The propensity model on a sampled shop: between the baselines and the generator's own probability, calibrated, and refused
where there is nothing to learn. Margins are generous; `bench/propensity_table.py` prints the figures.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ct_assets.adapters import artefacts
from ct_assets.adapters.storage import LocalStorage
from ct_assets.training import propensity
from ct_assets.training.learning import TrainingFailed
from ct_assets.training.propensity import FittedPropensity, Seen, recipe, restore, short_window_columns
from ct_assets.training.propensity_candidate import Champion, Contest, PropensityCandidate, train
from ct_assets.training.propensity_evaluation import BASELINES, time_folds
from ct_assets.training.propensity_measures import log_losses
from ct_assets_tests.training.clicks import definition, shop

SEEN = Seen.of(definition())
RECIPE = recipe(7, SEEN)
ABLATED = short_window_columns(definition())


def kept(fitted: FittedPropensity) -> tuple[FittedPropensity, int]:
    return fitted, 1_000


@pytest.fixture(scope="module")
def trained() -> PropensityCandidate:
    return train(shop(), RECIPE, Contest(ablated=ABLATED), kept)


def mean_loss(candidate: PropensityCandidate, name: str) -> float:
    rows = candidate.evaluation.rows
    return float(log_losses(rows["label"].to_numpy().astype(float), rows[name].to_numpy()).mean())


def test_it_beats_the_baselines_and_stays_below_the_ceiling(trained: PropensityCandidate) -> None:
    own = mean_loss(trained, "candidate")
    truth = trained.evaluation.rows.join(shop().select("user", "at", "truth"), on=["user", "at"])
    ceiling = float(log_losses(truth["label"].to_numpy().astype(float), truth["truth"].to_numpy()).mean())
    base = mean_loss(trained, "base_rate")
    for name in BASELINES:
        assert own < 0.99 * mean_loss(trained, name), name
    assert 0.45 < (base - own) / (base - ceiling) < 0.85
    assert trained.evaluation.measures["candidate"]["calibration_error"].figure < 0.05
    assert trained.decision.promote, trained.decision.reason


def test_without_the_five_minute_features_it_loses(trained: PropensityCandidate) -> None:
    assert ABLATED == ("purchases_5m", "spend_5m", "clicks_5m")
    assert mean_loss(trained, "without_5m") > 1.04 * mean_loss(trained, "candidate")


def test_without_signal_nothing_is_promoted() -> None:
    done = train(shop(seed=8, signal=False), RECIPE, Contest(), kept)
    gates = {gate.name: gate for gate in done.decision.gates}
    assert not done.decision.promote
    assert gates["beats_base_rate"].verdict == "fail"
    assert "no better than the baseline" in done.decision.reason


def test_calibration_undoes_the_sampling() -> None:
    """A third of the clicks, all with purchase among them: the forecast is of all clicks, not of the sample."""
    frame = shop(clicks=18_000)
    assert 0.4 < frame["label"].mean() < 0.6
    share = float((frame["weight"] * frame["label"]).sum() / frame["weight"].sum())
    assert share == pytest.approx(float(shop()["label"].mean()), rel=0.03)
    fitted = RECIPE.fit(frame)
    naive = RECIPE.fit(frame.with_columns(weight=pl.lit(1.0)))
    newest = shop().filter(pl.col("at") >= pl.col("at").quantile(0.8))
    real = float(newest["label"].mean())
    assert fitted.predict(newest).mean() == pytest.approx(real, rel=0.1)
    assert naive.predict(newest).mean() > 1.25 * real


def test_no_label_reaches_over_a_border() -> None:
    frame = shop()
    for fold in time_folds(frame):
        learnt, judged = fold.split(frame, RECIPE.embargo_us)
        assert learnt["at"].max() + 1_860_000_000 <= judged["at"].min()
        older, newest = RECIPE._parts(learnt)
        assert older["at"].max() + 1_860_000_000 <= newest["at"].min()


def test_twice_the_same(trained: PropensityCandidate) -> None:
    again = RECIPE.fit(shop()).predict(shop())
    assert np.array_equal(again, trained.fitted.predict(shop()))
    assert RECIPE.digest == recipe(7, SEEN).digest
    assert RECIPE.digest != recipe(7, Seen(SEEN.definition, "other", SEEN.columns)).digest


def test_stored_and_loaded_it_says_the_same(trained: PropensityCandidate, tmp_path) -> None:
    storage = LocalStorage(tmp_path)
    artefact = artefacts.save(storage, "m", trained.fitted.payload())
    payload = artefacts.load(storage, artefact, frozenset(propensity.trusted_types))
    assert np.array_equal(restore(payload).predict(shop()), trained.fitted.predict(shop()))
    with pytest.raises(ValueError, match="format 99"):
        restore({**payload, "format": 99})


def test_gaps_an_empty_batch_and_a_missing_column(trained: PropensityCandidate) -> None:
    gaps = pl.DataFrame({name: pl.Series([None], dtype=pl.Float64) for name in SEEN.columns})
    assert 0 < trained.fitted.predict(gaps)[0] < 1
    assert len(trained.fitted.predict(gaps.clear())) == 0
    with pytest.raises(TrainingFailed, match="the rows lack clicks_5m"):
        trained.fitted.predict(gaps.drop("clicks_5m"))


def test_too_few_clicks_say_so() -> None:
    with pytest.raises(TrainingFailed, match="at least 50"):
        train(shop().sample(300, seed=1).sort("at"), RECIPE, Contest(), kept)
    with pytest.raises(TrainingFailed, match="to learn from"):
        train(shop().head(300), RECIPE, Contest(), kept)
    with pytest.raises(TrainingFailed, match="no labelled clicks"):
        train(shop().clear(), RECIPE, Contest(), kept)


def champion(**changes) -> Champion:
    fitted = RECIPE.fit(shop())
    given = {"recipe": RECIPE, "frame": shop(), "cutoff_us": shop()["at"].to_list()[-1], "load": lambda: fitted}
    return Champion(**{**given, **changes})


def test_a_refresh_passes_and_an_equal_challenger_does_not() -> None:
    refresh = train(shop(), RECIPE, Contest(champion=champion()), kept)
    assert (refresh.decision.kind, refresh.decision.promote) == ("refresh", True)
    other = replace(RECIPE, seed=8)
    challenger = train(shop(), other, Contest(champion=champion()), kept)
    assert (challenger.decision.kind, challenger.decision.promote) == ("challenger", False)
    assert "champion_log_loss" in challenger.decision.reason


def test_a_champion_that_cannot_be_judged_is_no_evidence() -> None:
    def broken() -> FittedPropensity:
        raise OSError("the artefact is gone")

    done = train(shop(), RECIPE, Contest(champion=champion(load=broken)), kept)
    verdicts = {gate.name: gate.verdict for gate in done.decision.gates}
    assert not done.decision.promote
    assert verdicts["artefact_log_loss"] == "insufficient_evidence"
    assert "the artefact is gone" in done.decision.reason

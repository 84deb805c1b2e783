"""Measures of probabilities against scikit-learn and against pairs counted one by one; intervals that hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score  # noqa: TID253 - the oracle

from ct_assets.training.propensity_measures import Draws, Judged, auc, calibration_error, log_losses, measured

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5).map(lambda n: n / 5), st.integers(1, 4)), min_size=2, max_size=25
).filter(lambda rows: len({row[0] for row in rows}) == 2)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, float, int]]) -> None:
    label, p, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    won = all_ = 0.0
    for is_one, high, heavy in rows:
        for is_other, low, light in rows:
            if is_one and not is_other:
                all_ += heavy * light
                won += heavy * light * (1.0 if high > low else 0.5 if high == low else 0.0)
    assert auc(label, p, weight) == pytest.approx(won / all_)


def test_measures_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    p, weight = rng.random(2_000), rng.integers(1, 5, 2_000).astype(float)
    label = (rng.random(2_000) < p).astype(float)
    found = measured(Judged(rng.integers(0, 200, 2_000), label, weight), p, resamples=50)
    assert found["log_loss"].figure == pytest.approx(log_loss(label, p, sample_weight=weight))
    assert found["brier"].figure == pytest.approx(brier_score_loss(label, p, sample_weight=weight))
    assert found["auc"].figure == pytest.approx(roc_auc_score(label, p, sample_weight=weight))
    for value in found.values():
        assert value.low <= value.high
        assert value.high - value.low < 0.15


def test_calibration_error_of_what_is_known() -> None:
    ones = np.ones(1_000)
    label = np.r_[np.ones(300), np.zeros(700)]
    assert calibration_error(label, 0.3 * ones, ones) == pytest.approx(0)
    assert calibration_error(label, 0.5 * ones, ones) == pytest.approx(0.2)
    assert calibration_error(label, label, ones) == pytest.approx(0)
    assert calibration_error(label, 1 - label, ones) == pytest.approx(1)


def test_the_interval_is_by_user() -> None:
    """A hundred copies of each user's click say no more than one: the interval must not shrink."""
    rng = np.random.default_rng(2)
    label = (rng.random(100) < 0.3).astype(float)
    user, p = np.arange(100), np.full(100, 0.3)
    once = Draws(user).mean(log_losses(label, p), np.ones(100))
    copied = Draws(np.repeat(user, 100)).mean(log_losses(np.repeat(label, 100), np.repeat(p, 100)), np.ones(10_000))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert once.low < once.figure < once.high


def test_a_certain_forecast_that_fails_is_finite() -> None:
    assert log_losses(np.array([1.0]), np.array([0.0]))[0] == pytest.approx(-np.log(1e-6))


def test_nothing_is_not_a_number() -> None:
    nothing = np.zeros(0)
    found = measured(Judged(np.zeros(0, np.int64), nothing, nothing), nothing, resamples=10)
    assert all(np.isnan(value.figure) for value in found.values())

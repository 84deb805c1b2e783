"""Bins are scikit-learn's own, found once; models with them forecast what models without them do; levels of new products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.training.demand import DESIGN, recipe
from ct_assets.training.design import Bins, Design
from ct_assets.training.evaluation import training_rows
from ct_assets_tests.training.panels import panel


@given(st.integers(0, 10**6), st.integers(3, 400), st.sampled_from([4, 16, 64]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_edges_are_those_that_scikit_learn_finds(seed: int, rows: int, count: int, weighted: bool) -> None:
    from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper

    rng = np.random.default_rng(seed)
    matrix = np.column_stack([rng.normal(size=rows), rng.integers(0, 9, rows), np.full(rows, 2.0)]).astype(np.float32)
    weight = rng.integers(1, 9, rows).astype(float) if weighted else np.ones(rows)  # whole: exact sums in either order
    theirs = _BinMapper(n_bins=count + 1, n_threads=1).fit(matrix.astype(float), sample_weight=weight)
    for column, edges in enumerate(Bins.learn(matrix, weight, count).edges):
        assert edges == pytest.approx(theirs.bin_thresholds_[column]), column


def test_codes_keep_the_order_and_what_is_not_a_number() -> None:
    matrix = np.array([[1.0], [5.0], [3.0], [np.nan]], dtype=np.float32)
    bins = Bins.learn(matrix[:3], np.ones(3), 64)
    assert bins.codes(matrix)[:3].ravel().tolist() == [0, 2, 1]
    assert np.isnan(bins.codes(matrix)[3, 0])
    assert Bins.restore(bins.payload()).codes(matrix[:3]).tolist() == bins.codes(matrix[:3]).tolist()


def test_a_model_on_bins_forecasts_what_one_without_them_does() -> None:
    """Trees bin by quantiles anyway. P90 learns from fewer rows; without shared bins its edges were of those alone."""
    rows, later = training_rows(panel(), 93), training_rows(panel(), 99)
    own = recipe(7)
    plain = replace(own, design=replace(own.design, bins=0))
    binned, direct = own.fit(rows).predict(later), plain.fit(rows).predict(later)
    for name in ("mean", "p50"):
        assert np.allclose(binned[name], direct[name], rtol=1e-6), name


def test_the_level_of_a_new_product_is_what_it_sells_since_it_is_there() -> None:
    frame = pl.DataFrame(
        {"units_seen_28": [6.0], "units_seen_56": [6.0], "units_mean_28": [1.5], "units_mean_56": [0.5]}
    )
    assert DESIGN.level(frame)[0] == pytest.approx(6 + 1 / 6)
    earlier = Design.of({"relative": [], "absolute": [], "level_floor": 0.0})  # as stored before
    assert earlier.level(frame)[0] == pytest.approx(1.0)
    assert Design.of(DESIGN.settings) == DESIGN

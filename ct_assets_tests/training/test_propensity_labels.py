"""Labels of clicks against a plain-Python reading of the rules; censoring to the microsecond; weights of a sample."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.training.propensity_labels import HOUR_US, NEVER_SECONDS, LabelRules, Sampling, labelled_clicks, sampled

RULES = LabelRules(horizon_us=100, lateness_us=20)
KINDS = ("click", "purchase", "cart")


def frame(events: list[tuple[int, int, str]]) -> pl.DataFrame:
    return pl.DataFrame(events, schema={"user": pl.Int64, "at": pl.Int64, "kind": pl.String}, orient="row")


def expected(events: list[tuple[int, int, str]], complete: int) -> list[tuple]:
    """The rules, read one click at a time."""
    rows = []
    for user, at, kind in events:
        if kind != "click" or at + 120 > complete:
            continue
        bought = [t for u, t, k in events if u == user and k == "purchase"]
        clicked = [t for u, t, k in events if u == user and k == "click"]
        ages = []
        for times in (clicked, bought):
            before = [t for t in times if t < at]
            ages.append(at - max(before) if before else round(NEVER_SECONDS * 1e6))
        rows.append((user, at, int(any(at <= t < at + 100 for t in bought)), *ages))
    return sorted(rows, key=lambda row: (row[1], *row))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400), st.sampled_from(KINDS)), max_size=40),
    st.integers(0, 600),
)
def test_labels_and_recency_equal_the_rules(events: list[tuple[int, int, str]], complete: int) -> None:
    found = labelled_clicks(frame(events), RULES, complete)
    in_us = [(pl.col(name) * 1e6).round().cast(pl.Int64) for name in ("since_click_s", "since_purchase_s")]
    rows = found.with_columns(in_us).rows()
    assert sorted(rows, key=lambda row: (row[1], *row)) == expected(events, complete)
    assert found["at"].is_sorted()


@pytest.mark.parametrize(("bought", "label"), [(999, 0), (1000, 1), (1099, 1), (1100, 0)])
def test_each_purchase_is_on_one_side(bought: int, label: int) -> None:
    """Features see ``[at - window, at)``, labels ``[at, at + horizon)``."""
    found = labelled_clicks(frame([(1, 1000, "click"), (1, bought, "purchase")]), RULES, 10_000)
    assert found["label"].to_list() == [label]


def test_a_label_is_a_row_only_when_it_can_no_longer_change() -> None:
    events = frame([(1, 1000, "click"), (1, 1001, "click")])
    assert labelled_clicks(events, RULES, 1119)["at"].to_list() == []
    assert labelled_clicks(events, RULES, 1120)["at"].to_list() == [1000]


def many(users: int = 200, each: int = 100, share: float = 0.1) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    at = rng.integers(0, 10 * HOUR_US, users * each)
    label = rng.random(users * each) < share
    return pl.DataFrame({"user": np.repeat(np.arange(users), each), "at": at, "label": label.astype(np.int8)})


def test_a_sample_keeps_purchases_and_its_weights_add_up() -> None:
    clicks = many()
    found = sampled(clicks, Sampling(clicks=6_000))
    assert abs(len(found) - 6_000) < 300
    ones, every = found.filter(pl.col("label") == 1), clicks.filter(pl.col("label") == 1)
    assert len(ones) == len(every)
    assert set(ones["weight"].to_list()) == {1.0}
    assert found["weight"].sum() == pytest.approx(len(clicks), rel=0.05)
    assert (found["weight"] * found["label"]).sum() / found["weight"].sum() == pytest.approx(
        clicks["label"].mean(), rel=0.05
    )
    assert found.equals(sampled(clicks, Sampling(clicks=6_000)))


def test_few_clicks_are_all_kept_with_weight_one() -> None:
    clicks = many(20, 10)
    found = sampled(clicks, Sampling())
    assert found.drop("weight").equals(clicks)
    assert found["weight"].to_list() == [1.0] * 200


def test_a_robot_counts_as_one_busy_shopper() -> None:
    robot = pl.DataFrame({"user": [7] * 5_000, "at": list(range(5_000)), "label": [0] * 5_000})
    found = sampled(robot.cast({"label": pl.Int8}), Sampling(burst=50))
    assert (len(found), found["weight"].sum()) == (50, 50.0)


def test_no_clicks() -> None:
    found = sampled(labelled_clicks(frame([]), RULES, 0), Sampling())
    assert found.is_empty()
    assert found.columns[-1] == "weight"

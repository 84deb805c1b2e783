"""Paired bootstrap by weeks and products, guard slices, Holm: against enumeration, scipy and plain Python."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_assets.training.champion_gates import FixedArtefact, artefact_gates, champion_gates
from ct_assets.training.comparison import MIN_WEEKS, excess, guarded, holm, paired
from ct_assets.training.evaluation import Evaluation
from ct_assets.training.gates import GateRules
from ct_assets.training.rules import GateResult
from ct_assets_tests.training.panels import evaluation

RULES = GateRules()


def losses(own: list[list[float]], other: list[list[float]], slices: list[str] | None = None) -> pl.DataFrame:
    """Rows are products, columns weeks."""
    weeks = [dt.date(2011, 1, 7) + dt.timedelta(7 * n) for n in range(len(own[0]))]
    rows = [
        (f"P{product:03d}", slices[product] if slices else "low", week, own[product][n], other[product][n])
        for product in range(len(own))
        for n, week in enumerate(weeks)
    ]
    return pl.DataFrame(rows, schema=["stock_code", "slice", "origin", "loss", "loss_champion"], orient="row")


def test_with_eight_weeks_weeks_are_drawn_in_circular_blocks_of_two() -> None:
    rng = np.random.default_rng(4)
    common = rng.gamma(2, 1, 8)  # what all products of a week share: drawing products would not see it
    other = rng.gamma(2, 1, (40, 8))
    own = other * (0.6 + 0.4 * common)
    found = excess(losses(own.tolist(), other.tolist()))
    assert found is not None
    assert found.unit == "weeks"
    a, b = own.sum(axis=0), other.sum(axis=0)
    every = []  # 8 weeks in blocks of round(8 ** (1/3)) = 2: all 8 ** 4 ways
    for starts in itertools.product(range(8), repeat=4):
        drawn = [(start + step) % 8 for start in starts for step in (0, 1)]
        every.append(sum(a[week] for week in drawn) / sum(b[week] for week in drawn) - 1)
    for level in (0.5, 0.9, 0.95):
        assert found.upper(level) == pytest.approx(np.quantile(every, level), abs=0.03)
    assert found.figure == pytest.approx(a.sum() / b.sum() - 1)


def test_with_fewer_weeks_products_are_drawn() -> None:
    rng = random.Random(3)
    other = [[rng.gammavariate(2, 1) for _ in range(MIN_WEEKS - 1)] for _ in range(30)]
    own = [[value * rng.uniform(0.5, 1.4) for value in weeks] for weeks in other]
    found = excess(losses(own, other))
    assert found is not None
    assert found.unit == "products"
    sums = [(sum(a), sum(b)) for a, b in zip(own, other, strict=True)]
    drawn = []
    for _ in range(4000):
        chosen = rng.choices(sums, k=len(sums))
        drawn.append(sum(a for a, _ in chosen) / sum(b for _, b in chosen) - 1)
    assert found.upper(0.95) == pytest.approx(sorted(drawn)[int(0.95 * len(drawn))], abs=0.01)


def test_a_handful_of_products_says_nothing_however_many_the_weeks() -> None:
    assert excess(losses([[1.0] * 20] * 19, [[1.0] * 20] * 19)) is None
    assert excess(losses([[1.0] * 20] * 20, [[1.0] * 20] * 20)) is not None
    assert excess(losses([[float("nan")] * 4] * 30, [[1.0] * 4] * 30)) is None
    assert excess(losses([[1.0] * 4] * 30, [[0.0] * 4] * 30)) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_by_hand_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected, remaining = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        while remaining and p_values[remaining[0]] * len(remaining) <= level:
            rejected.add(remaining.pop(0))
        assert {i for i, value in enumerate(adjusted) if value <= level} == rejected


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_every_product_is_guarded_and_thin_slices_join_the_next() -> None:
    def groups(**counts: int) -> dict[str, int]:
        names = [name for name, count in counts.items() for _ in range(count)]
        frame = losses([[1.0]] * len(names), [[1.0]] * len(names), names)
        return {group: len(rows) for group, rows in guarded(frame)}

    assert groups(new=25, low=40, middle=30, high=20) == {"new": 25, "low": 40, "middle": 30, "high": 20}
    assert groups(new=3, low=40, middle=30, high=5) == {"new+low": 43, "middle+high": 35}
    assert groups(low=5, high=4) == {"low+high": 9}  # too few: the gate then finds no evidence
    assert groups(high=4, low=30) == {"low+high": 34}


def worse_on(found: Evaluation, part: str, factor: float) -> Evaluation:
    """The same forecasts, but those of one slice are ``factor`` times as large."""
    wrong = pl.when(pl.col("slice") == part).then(factor).otherwise(1.0)
    folds = (replace(f, rows=f.rows.with_columns(mean=pl.col("mean") * wrong)) for f in found.folds)
    return replace(found, folds=tuple(folds))


def verdicts(gates: list[GateResult]) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in gates}


def test_a_challenger_that_pays_for_its_gain_with_one_slice_is_refused() -> None:
    champion, better = evaluation(error=0.5, seed=3), evaluation(error=0.05)
    assert set(verdicts(champion_gates(better, champion, RULES, "challenger")).values()) == {"pass"}
    planted = worse_on(better, "low", 1.8)
    gates = champion_gates(planted, champion, RULES, "challenger")
    found = verdicts(gates)
    assert found["champion_deviance"] == "pass"  # as a whole it is better: only the guard sees it
    assert found["slices_deviance"] == "fail"
    (guard,) = [gate for gate in gates if gate.name == "slices_deviance"]
    assert "worst on low" in guard.reason


def test_slices_of_a_refresh_that_changes_nothing_pass() -> None:
    own = evaluation()
    assert set(verdicts(champion_gates(own, own, RULES, "refresh")).values()) == {"pass"}


def test_fixed_models_are_compared_on_the_weeks_later_than_both() -> None:
    own, other = evaluation(error=0.05), evaluation(error=0.6, seed=4)
    cutoff = own.folds[2].origin
    later = FixedArtefact(3, cutoff, other.folds[2:])
    assert set(verdicts(artefact_gates(own, later, RULES)).values()) == {"pass"}
    worse = artefact_gates(other, FixedArtefact(3, cutoff, own.folds[2:]), RULES)
    assert verdicts(worse)["artefact_deviance"] == "fail"
    mine, theirs = paired(other.folds[2:], own.folds[2:], "deviance"), worse[0].figure
    assert mine is not None
    assert theirs == excess(mine).upper(0.95)  # type: ignore[union-attr]
    assert "2 weeks" in worse[0].reason


def test_a_champion_younger_than_a_week_is_not_compared_and_one_that_cannot_be_loaded_is_no_evidence() -> None:
    own = evaluation()
    young = artefact_gates(own, FixedArtefact(3, dt.date(2012, 1, 1), ()), RULES)
    assert set(verdicts(young).values()) == {"not_applicable"}
    assert not any(gate.refuses or gate.passed for gate in young)
    gone = artefact_gates(own, FixedArtefact(3, own.folds[0].origin, (), "OSError: no such object"), RULES)
    assert set(verdicts(gone).values()) == {"insufficient_evidence"}
    assert all(gate.refuses for gate in gone)
    assert "no such object" in gone[0].reason

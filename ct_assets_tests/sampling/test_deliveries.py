"""Deliveries gone wrong: what each must and must not contain, by a second reading of the bytes."""

from __future__ import annotations

import pytest

from ct_assets.sampling.deliveries import corrected, dirty_day, rename_column
from ct_assets.sampling.demand import SampleOptions
from ct_assets.sampling.lines import SalesDay
from ct_assets.sampling.sales import open_days_within
from ct_assets.sampling.truth import file_truth
from ct_assets_tests.sampling import oracle

COUNTED = ("read", "good", "quarantined", "duplicates", "reasons", "warnings", "daily")


@pytest.fixture(scope="module")
def days() -> list[SalesDay]:
    return open_days_within(SampleOptions(days=30, seed=21))


@pytest.mark.parametrize("share", [0.05, 0.07, 0.095])
def test_a_dirty_day_is_dirtier_but_stays_under_the_budget(days: list[SalesDay], share: float) -> None:
    for day in days:
        dirty = dirty_day(day, seed=1, share=share)
        found = oracle.judge(dirty.csv_bytes(), day.day)
        assert found == {key: file_truth(dirty, dirty.csv_bytes())[key] for key in COUNTED}
        assert found["quarantined"] <= share * found["read"]
        assert found["quarantined"] >= share * found["read"] - 1 or found["quarantined"] > 0.03 * found["read"]
    busiest = oracle.judge(dirty_day(days[5], seed=1, share=0.09).csv_bytes(), days[5].day)
    assert len(busiest["reasons"]) >= 4


def test_making_a_day_dirty_leaves_the_day_itself_alone(days: list[SalesDay]) -> None:
    before = days[3].csv_bytes()
    dirty_day(days[3], seed=1)
    corrected(days[3], seed=1)
    assert days[3].csv_bytes() == before


def test_a_renamed_column_changes_the_header_and_nothing_else(days: list[SalesDay]) -> None:
    data = days[0].csv_bytes()
    renamed = rename_column(data, "Quantity", "Qty")
    assert renamed.split(b"\n", 1)[0] == b"InvoiceNo,StockCode,Description,Qty,InvoiceDate,UnitPrice,CustomerID,Country"
    assert renamed.split(b"\n", 1)[1] == data.split(b"\n", 1)[1]
    with pytest.raises(ValueError, match="'Amount'"):
        rename_column(data, "Amount", "Qty")


def test_a_correction_changes_exactly_what_it_says(days: list[SalesDay]) -> None:
    for day in days[:12]:
        again, said = corrected(day, seed=4, changed=6, removed=2, added=3)
        found = oracle.judge(again.csv_bytes(), day.day)
        assert found == {key: file_truth(again, again.csv_bytes())[key] for key in COUNTED}
        old = {row for row in map(oracle._cleaned, oracle.read(day.csv_bytes()))}
        new = {row for row in map(oracle._cleaned, oracle.read(again.csv_bytes()))}
        assert len(old - new) == said.changed + said.removed == 8
        assert len(new - old) == said.changed + said.added == 9
        assert {row[1] for row in old ^ new} == set(said.codes)


def test_a_day_too_small_to_correct_is_refused() -> None:
    small = open_days_within(SampleOptions(days=2, seed=1, products=1))[0]
    with pytest.raises(ValueError, match="fewer than 1008"):
        corrected(small, seed=1, changed=1_000)
    with pytest.raises(ValueError, match="share=0"):
        dirty_day(small, seed=1, share=0)

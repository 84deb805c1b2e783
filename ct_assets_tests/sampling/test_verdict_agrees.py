"""The sample, the contract and the front door say the same: a verdict over the sample's files is the planted truth."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ct_assets.contracts.model import DatasetSchema
from ct_assets.contracts.odcs import load_contract
from ct_assets.ingest.judge import Judgement
from ct_assets.sampling.bulk import write_sales_csv
from ct_assets.sampling.deliveries import corrected, dirty_day, rename_column
from ct_assets.sampling.demand import SampleOptions
from ct_assets.sampling.lines import SalesDay
from ct_assets.sampling.sales import file_name, open_days_within
from ct_assets.sampling.truth import file_truth

CONTRACT = Path(__file__).resolve().parents[2] / "ct_assets/defs/merchandising/sales/contracts/sales_lines.odcs.yaml"


@pytest.fixture(scope="module")
def schema() -> DatasetSchema:
    return load_contract(CONTRACT).schema(None)


@pytest.fixture(scope="module")
def days() -> list[SalesDay]:
    return open_days_within(SampleOptions(days=60, seed=13, products=40))


def verdict(schema: DatasetSchema, name: str, data: bytes) -> tuple[dict[str, object], int]:
    """The verdict, and how many good rows really came out."""
    judgement = Judgement(io.BytesIO(data), schema, name=name)
    good = sum(chunk.good.height for chunk in judgement)
    return judgement.verdict.as_json(), good


def test_every_sample_day_gets_the_planted_verdict(schema: DatasetSchema, days: list[SalesDay]) -> None:
    for day in [*days, *(dirty_day(day, 1) for day in days[::7]), *(corrected(day, 1)[0] for day in days[::7])]:
        data = day.csv_bytes()
        truth = file_truth(day, data)
        found, good = verdict(schema, file_name(day.day), data)
        assert found["rows"] == {name: truth[name] for name in ("read", "good", "quarantined", "duplicates")}
        assert found["reasons"] == truth["reasons"] | truth["warnings"]
        assert found["sha256"] == truth["sha256"]
        assert good == truth["good"]
        assert found["decision"] in ("accepted", "accepted_with_quarantine")


def test_a_renamed_column_is_rejected_with_its_likely_new_name(schema: DatasetSchema, days: list[SalesDay]) -> None:
    found, good = verdict(schema, file_name(days[0].day), rename_column(days[0].csv_bytes(), "Quantity", "Qty"))
    assert good == 0
    rejected = found["rejected"]
    assert isinstance(rejected, dict)
    assert rejected["rule"] == "missing_column"
    assert "Quantity" in rejected["message"]
    assert "Qty" in rejected["message"]


def test_the_bulk_day_gets_the_planted_verdict(schema: DatasetSchema, tmp_path: Path) -> None:
    import datetime as dt

    path = tmp_path / "2011-01-04.csv"
    truth = write_sales_csv(path, 60_000, 3, dt.date(2011, 1, 4))
    found, _ = verdict(schema, path.name, path.read_bytes())
    assert found["rows"] == {
        "read": 60_000, "good": truth.good, "quarantined": truth.quarantined, "duplicates": truth.duplicates,
    }  # fmt: skip
    reasons = found["reasons"]
    assert isinstance(reasons, dict)
    assert {rule: reasons[rule] for rule in truth.reasons} == truth.reasons

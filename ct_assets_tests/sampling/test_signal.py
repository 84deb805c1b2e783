"""The planted demand is worth learning: the built-in recipe beats every baseline of a planner on sample data."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest

from ct_assets.contracts.odcs import load_contract
from ct_assets.features.panel import Panel, build_panel
from ct_assets.features.training_set import weekly_origins
from ct_assets.ingest.judge import Judgement
from ct_assets.sampling.demand import SampleOptions
from ct_assets.sampling.sales import file_name, open_days_within
from ct_assets.sampling.truth import daily_truth
from ct_assets.training.demand import recipe
from ct_assets.training.evaluation import BASELINES, FoldOrigin, evaluate

CONTRACT = Path(__file__).resolve().parents[2] / "ct_assets/defs/merchandising/sales/contracts/sales_lines.odcs.yaml"
RENAMED = {
    "InvoiceNo": "invoice_no",
    "StockCode": "stock_code",
    "Quantity": "quantity",
    "InvoiceDate": "invoice_date",
    "CustomerID": "customer_id",
}


def panel_of(options: SampleOptions) -> Panel:
    """Good lines through the real front door; daily totals as planted."""
    schema = load_contract(CONTRACT).schema(None)
    lines, daily = [], []
    for day in open_days_within(options):
        for chunk in Judgement(io.BytesIO(day.csv_bytes()), schema, name=file_name(day.day)):
            lines.append(chunk.good.with_columns(day=pl.lit(day.day)))
        for code, row in daily_truth(day).items():
            daily.append({"day": day.day, "stock_code": code, **row, "revenue": float(row["revenue"])})
    return build_panel(pl.DataFrame(daily), pl.concat(lines).filter("is_product").rename(RENAMED))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 23])
def test_the_model_beats_every_baseline_on_sample_data(seed: int) -> None:
    panel = panel_of(SampleOptions(days=90, seed=seed))
    found = evaluate(recipe(), [FoldOrigin(panel, at) for at in weekly_origins(panel, 4)])
    assert len(found.folds) == 4
    for name in BASELINES:
        assert found.mean("deviance") < 0.9 * found.mean("deviance", name), name
        assert found.mean("wape") < 0.95 * found.mean("wape", name), name
    assert 0.85 <= found.mean("coverage") <= 0.95

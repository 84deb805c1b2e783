"""A user's own CSV with other columns: a contract and a pipeline file, no code, and it stands in PostgreSQL."""

from __future__ import annotations

import dataclasses
import datetime as dt
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.adapters import feature_tables
from ct_assets.adapters.landing import deliver
from ct_assets.components.retraining_pipeline import build_pipeline, resolve
from ct_assets.errors import UsageError
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.runs import RunLoop, RunReport
from ct_assets.orchestration.sheets import SHEETS, sheet_writer
from ct_assets.platform.spec import PipelineSpec, parse_pipeline
from ct_assets.settings import Settings

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: logistics.orders
name: orders
version: 1.0.0
status: active
schema:
  - name: orders
    properties:
      - {name: order_id, logicalType: string, required: true}
      - {name: weight, logicalType: number, physicalType: "decimal(10,3)", required: true, logicalTypeOptions: {minimum: 0}}
"""
PIPELINE = """\
type: ct_assets.components.RetrainingPipeline
attributes:
  name: orders
  owner: {team: logistics, oncall: logistics-oncall}
  source: {contract: orders.odcs.yaml, start: 2024-01-01}
"""


FORECAST = (
    PIPELINE.rstrip()
    + """
  rollups: [sql/daily_orders.sql]
  features: [product_daily]
  model: {name: orders_7d, trainer: "ct_assets.training.demand:recipe"}
"""
)
MAPPED = (
    CONTRACT[: CONTRACT.index("      - {name: order_id")]
    + """\
      - {name: order_id, physicalName: invoice_no, logicalType: string, required: true}
      - {name: item, physicalName: stock_code, logicalType: string, required: true}
      - {name: pieces, physicalName: quantity, logicalType: integer, required: true}
      - {name: time, physicalName: invoice_date, logicalType: timestamp, required: true, logicalTypeOptions: {format: "yyyy-MM-dd HH:mm:ss"}}
      - {name: customer, physicalName: customer_id, logicalType: string}
      - name: is_product
        logicalType: boolean
        transformLogic: item IS NOT NULL
        customProperties: [{property: derived, value: true}]
    customProperties: [{property: deliveryDay, value: fileName}]
"""
)
SUMS = """select stock_code, sum(quantity)::bigint as units, sum(2.5 * quantity) as revenue,
    count(distinct invoice_no) as orders, 0::bigint as units_returned
from store.orders where _revision_id = :revision_id group by stock_code"""


def own(folder: Path, contract: str = MAPPED, sums: str = SUMS) -> PipelineSpec:
    """The files of a pipeline that asks for features and a model."""
    (folder / "sql").mkdir(parents=True)
    (folder / "orders.odcs.yaml").write_text(contract)
    (folder / "defs.yaml").write_text(FORECAST)
    (folder / "sql/daily_orders.sql").write_text(sums)
    return parse_pipeline(folder / "defs.yaml")


def one_pass(spec: PipelineSpec, installation: Installation) -> RunReport:
    """What `ct run` does."""
    shared = dg.Definitions(resources={RESOURCE: installation, SHEETS: sheet_writer}, executor=dg.in_process_executor)
    report = RunReport("orders")
    with dg.DagsterInstance.ephemeral() as instance:
        defs = dg.Definitions.merge(build_pipeline(spec), shared)
        RunLoop(installation, resolve(spec), defs, instance, lambda _: None, report).through()
    return report


def test_features_on_a_contract_without_their_columns_are_refused_at_load(tmp_path: Path):
    with pytest.raises(UsageError) as wrong:
        resolve(own(tmp_path / "orders", CONTRACT))
    for name in ("invoice_no", "stock_code", "quantity", "invoice_date", "customer_id", "is_product"):
        assert f"{name} (" in wrong.value.message
    assert wrong.value.message.count("is missing") == 6
    assert "orders.odcs.yaml" in wrong.value.message
    assert "own-csv.md" in str(wrong.value.hint)
    text = MAPPED.replace("physicalName: quantity, logicalType: integer", "physicalName: quantity, logicalType: string")
    with pytest.raises(UsageError, match=r"quantity \(bigint or integer or smallint\) is of type text"):
        resolve(own(tmp_path / "text", text))
    spec = own(tmp_path / "none")
    with pytest.raises(UsageError, match="computed from a rollup of sums per day, and there is none"):
        resolve(dataclasses.replace(spec, rollups=()))


def test_features_on_a_rollup_without_their_columns_are_refused_before_any_step(settings: Settings, tmp_path: Path):
    spec = own(tmp_path / "orders", sums=SUMS.replace("as orders", "as receipts"))
    file = tmp_path / "2024-01-02.csv"
    file.write_text("order_id,item,pieces,time,customer\nA1,TEA,2,2024-01-02 09:00:00,\n")
    installation = Installation(settings)
    deliver(settings, "orders", [file])
    with pytest.raises(UsageError, match=r"daily_orders\.sql: .* does not give: orders\n"):
        one_pass(spec, installation)
    with installation.ledger() as conn:
        assert conn.execute("select state from ledger.delivery").fetchall() == [("pending",)]
        assert conn.execute("select to_regclass('store.orders')").fetchone() == (None,), "nothing was written"
    mended = own(tmp_path / "mended")
    assert one_pass(mended, installation).features_rebuilt == {"product_daily": 1}
    with installation.ledger() as conn:
        rows = conn.execute("select day::text, stock_code, units_lag_1 from feature.orders_product_daily").fetchall()
    assert rows == [("2024-01-02", "TEA", 2.0)], "in a table of its own"


def test_days_whose_build_failed_are_not_reported_as_built(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(feature_tables, "build", fail)
    file = tmp_path / "2024-01-02.csv"
    file.write_text("order_id,item,pieces,time,customer\nA1,TEA,2,2024-01-02 09:00:00,\n")
    deliver(settings, "orders", [file])
    report = one_pass(own(tmp_path / "orders"), Installation(settings))
    assert report.features_rebuilt == {}
    assert any("planted" in line for line in report.failures)


def test_a_contract_and_a_pipeline_file_bring_an_own_csv_to_postgresql(settings: Settings, tmp_path: Path):
    home = tmp_path / "defs" / "logistics" / "orders"
    home.mkdir(parents=True)
    (home / "orders.odcs.yaml").write_text(CONTRACT)
    (home / "defs.yaml").write_text(PIPELINE)
    files = [tmp_path / "north.csv", tmp_path / "south.csv"]
    files[0].write_text("order_id,weight\nA1,1.250\nA2,-3\n")
    files[1].write_text("order_id,weight\nB1,7\n")
    spec, installation = parse_pipeline(home / "defs.yaml"), Installation(settings)
    defs = dg.Definitions.merge(
        build_pipeline(spec), dg.Definitions(resources={RESOURCE: installation}, executor=dg.in_process_executor)
    )
    assert {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()} == {
        "raw/orders/deliveries", "clean/orders/orders", "quarantine/orders/orders"
    }  # fmt: skip
    deliver(settings, "orders", files)
    with dg.DagsterInstance.ephemeral() as instance:
        report = RunReport("orders")
        RunLoop(installation, resolve(spec), defs, instance, lambda _: None, report).through()
        assert report.ok
        arrived = dt.datetime.now(dt.UTC).date()
        assert instance.get_materialized_partitions(dg.AssetKey(["clean", "orders", "orders"])) <= {
            arrived.isoformat(), (arrived - dt.timedelta(days=1)).isoformat()
        }  # fmt: skip
    with installation.ledger() as conn:
        rows = conn.execute("select order_id, weight from clean.orders order by 1").fetchall()
        bad = conn.execute("select _raw, _reasons from quarantine.orders").fetchall()
    assert rows == [("A1", Decimal("1.250")), ("B1", Decimal("7.000"))], "undated files add up"
    assert [raw for raw, _ in bad] == ["A2,-3"]

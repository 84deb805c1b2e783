"""A user's own CSV with other columns: a contract and a pipeline file, no code, and it stands in PostgreSQL."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import dagster as dg

from ct_assets.adapters.landing import deliver
from ct_assets.components.retraining_pipeline import build_pipeline, resolve
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.runs import RunLoop, RunReport
from ct_assets.platform.spec import parse_pipeline
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

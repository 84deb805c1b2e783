"""One installation under test: deliver files, pass the run loop over them, look at what Dagster was told.

What goes here: the driver. What does not: assertions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import dagster as dg

from ct_assets.adapters.datasets import pipeline_spec
from ct_assets.adapters.landing import Delivered, deliver
from ct_assets.components.retraining_pipeline import alone, resolve
from ct_assets.definitions import build_defs
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.runs import RunLoop, RunReport
from ct_assets.platform.spec import PipelineSpec
from ct_assets.settings import Settings

RAW, CLEAN, QUARANTINE, DAILY, FEATURES = (
    dg.AssetKey(path.split("/"))
    for path in (
        "raw/sales/deliveries",
        "clean/sales/sales_lines",
        "quarantine/sales/sales_lines",
        "clean/sales/daily_product_sales",
        "feature/sales/product_daily",
    )
)


class Passes:
    """A ledger of its own and a Dagster instance of its own."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        self.installation = Installation(settings)

    @cached_property
    def pipeline(self) -> Pipeline:
        return resolve(pipeline_spec("sales"))

    @cached_property
    def defs(self) -> dg.Definitions:
        return build_defs({RESOURCE: self.installation})

    def follow(self, spec: PipelineSpec) -> None:
        """From now on the pipeline is this one: somebody edited its files."""
        self.pipeline = resolve(spec)
        self.defs = alone(spec, {RESOURCE: self.installation})

    def deliver(self, *paths: Path) -> list[Delivered]:
        return deliver(self.settings, "sales", paths)

    def run(self, stopping: Callable[[], bool] = lambda: False) -> RunReport:
        """What `ct run` does."""
        report = RunReport("sales")
        parts = self.installation, self.pipeline, self.defs, self.instance, lambda _: None, report, stopping
        RunLoop(*parts).through()
        return report

    def told(self, key: dg.AssetKey) -> list[str]:
        """The days of every materialization of an asset, in the order of the events."""
        records = self.instance.fetch_materializations(key, limit=1000, ascending=True).records
        return [str(record.partition_key) for record in records]

    def green(self, key: dg.AssetKey) -> set[str]:
        return self.instance.get_materialized_partitions(key)

    def check(self, name: str) -> dg.AssetCheckEvaluation:
        """The newest evaluation of a check of the contract."""
        found = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([dg.AssetCheckKey(CLEAN, name)])
        event = found[dg.AssetCheckKey(CLEAN, name)].event
        assert event is not None
        assert event.dagster_event is not None
        return event.dagster_event.asset_check_evaluation_data

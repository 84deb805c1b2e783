"""A pipeline as its assets see it: spec, contract, names, partitions, and the attributes all its assets share.

What goes here: what is derived once and used by every asset. What does not: assets, conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

import dagster as dg

from ct_assets.orchestration.names import PIPELINE_TAG, Names
from ct_assets.orchestration.partitions import daily

if TYPE_CHECKING:
    from ct_assets.contracts.model import DatasetSchema
    from ct_assets.platform.spec import PipelineSpec


class Common(TypedDict):
    """Attributes that every asset of a pipeline has."""

    group_name: str
    owners: list[str]
    kinds: set[str]
    tags: dict[str, str]


@dataclass(frozen=True)
class Pipeline:
    """One pipeline, resolved. Light: nothing here opens a database."""

    spec: PipelineSpec
    schema: DatasetSchema
    names: Names

    @cached_property
    def zone(self) -> str:
        """Time zone of the business day."""
        return self.schema.time_zone or next((c.time_zone for c in self.schema.columns if c.time_zone), "UTC")

    @cached_property
    def days(self) -> dg.DailyPartitionsDefinition:
        """The pipeline's one partitions definition."""
        return daily(self.spec.source.start, self.zone)

    @property
    def dated(self) -> bool:
        """Whether a file's name says its day."""
        return self.schema.delivery_day == "fileName"

    def stored(self, view: str) -> str:
        """The name of a feature view's table: the view's own for the sales, with the pipeline's before it for others, so
        that two pipelines may have the same view."""
        from ct_assets.adapters.training_data import SALES

        return view if self.names.lines == SALES.lines else f"{self.names.pipeline}_{view}"

    def common(self, *kinds: str) -> Common:
        """Group, owner, kinds and tags of every asset."""
        tags = {PIPELINE_TAG: self.spec.name, "ct/tier": str(self.spec.tier), "ct/oncall": self.spec.owner.oncall}
        return Common(group_name=self.spec.name, owners=[f"team:{self.spec.owner.team}"], kinds=set(kinds), tags=tags)

    def contract_metadata(self) -> Mapping[str, Any]:
        """Column schema and contract, for the asset's page."""
        columns = [
            dg.TableColumn(
                column.physical_name or column.name,
                column.postgres_type,
                column.description or None,
                dg.TableColumnConstraints(nullable=not column.required, unique=column.unique),
                tags={"pii": ""} if column.pii else None,
            )
            for column in self.schema.columns
        ]
        return {
            "dagster/column_schema": dg.TableSchema(columns),
            "dagster/table_name": f"clean.{self.names.lines}",
            "contract": dg.MetadataValue.text(f"{self.schema.contract_id or self.schema.name} {self.schema.version}"),
            "contract file": dg.MetadataValue.text(self.spec.source.contract.relative_to(self.spec.folder).as_posix()),
            "coverage": dg.MetadataValue.text(str(self.schema.coverage)),
        }

"""How things of a pipeline are called: asset keys, job names, run tags. Grammar: `stage/domain/name`.

What goes here: names derived from a spec and its contract. What does not: the assets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from ct_assets.contracts.model import DatasetSchema
    from ct_assets.platform.spec import PipelineSpec

STAGES = ("raw", "clean", "quarantine", "snapshot", "feature", "dataset", "model", "prediction")
PIPELINE_TAG = "ct/pipeline"


@dataclass(frozen=True)
class Names:
    """Asset keys of one pipeline. ``lines`` is the table that the contract describes."""

    pipeline: str
    domain: str
    lines: str
    rollups: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    model: str | None = None

    def key(self, stage: str, name: str) -> dg.AssetKey:
        """The key of an asset of this pipeline."""
        return dg.AssetKey([stage, self.domain, name])

    @cached_property
    def raw(self) -> dg.AssetKey:
        """What landed."""
        return self.key("raw", "deliveries")

    @cached_property
    def clean(self) -> dg.AssetKey:
        """The lines that kept the contract."""
        return self.key("clean", self.lines)

    @cached_property
    def quarantine(self) -> dg.AssetKey:
        """The lines that broke it."""
        return self.key("quarantine", self.lines)

    @cached_property
    def rollup_keys(self) -> tuple[dg.AssetKey, ...]:
        """Tables summed up from the lines in the same transaction."""
        return tuple(self.key("clean", name) for name in self.rollups)

    @cached_property
    def feature_keys(self) -> tuple[dg.AssetKey, ...]:
        """Feature views."""
        return tuple(self.key("feature", name) for name in self.features)

    @cached_property
    def dataset(self) -> dg.AssetKey:
        """The training set."""
        return self.key("dataset", f"{self.model}_training")

    @cached_property
    def model_key(self) -> dg.AssetKey:
        """The model: every version is a materialization."""
        return self.key("model", str(self.model))

    @cached_property
    def prediction(self) -> dg.AssetKey:
        """The champion's published predictions."""
        return self.key("prediction", str(self.model))

    @cached_property
    def data_keys(self) -> tuple[dg.AssetKey, ...]:
        """Everything that one delivery writes, in the order in which it is told to Dagster."""
        return (self.raw, self.clean, self.quarantine, *self.rollup_keys)

    @cached_property
    def training_keys(self) -> tuple[dg.AssetKey, ...]:
        """Everything that a retraining makes."""
        return (self.dataset, self.model_key, self.prediction) if self.model else ()

    @property
    def data_job(self) -> str:
        """Job over a range of days: deliveries to published tables."""
        return f"{self.pipeline}_data"

    @property
    def feature_job(self) -> str:
        """Job over a range of days: feature views."""
        return f"{self.pipeline}_features"

    @property
    def training_job(self) -> str:
        """Job: training set, candidate, gates, forecasts."""
        return f"{self.pipeline}_training"


def names_of(spec: PipelineSpec, schema: DatasetSchema) -> Names:
    """The names of a pipeline's assets."""
    return Names(
        pipeline=spec.name,
        domain=spec.domain,
        lines=schema.physical_name or schema.name,
        rollups=tuple(path.stem for path in spec.rollups),
        features=spec.features,
        model=spec.model.name if spec.model else None,
    )

"""The component `ct_assets.components.RetrainingPipeline`: one YAML file becomes a pipeline.

What goes here: the component, and which definitions a pipeline consists of. What does not: the spec's keys
(`ct_assets.platform.spec`), asset bodies (`data_assets.py`, `training_assets.py`), conditions (orchestration).
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from ct_assets.adapters.needed_columns import check_lines
from ct_assets.adapters.trainers import check_trainer
from ct_assets.components.data_assets import daily_data, feature_view
from ct_assets.components.planner_sheet import planner_sheet
from ct_assets.components.stream_assets import build_stream
from ct_assets.components.training_assets import training_assets
from ct_assets.contracts.names import check_publishable
from ct_assets.contracts.odcs import load_contract
from ct_assets.orchestration.checks import contract_checks
from ct_assets.orchestration.names import PIPELINE_TAG, names_of
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.sensors import landing_sensor, supplier_sensor
from ct_assets.orchestration.sheets import SHEETS, sheet_writer
from ct_assets.orchestration.stream_pipeline import resolve_stream
from ct_assets.platform.spec import FILE_NAME, PipelineSpec, parse_pipeline

# Beta parts that are used knowingly (Dagster's version is pinned), and a parameter that Dagster warns itself about whenever a
# component's asset checks are resolved: nothing that whoever runs a pipeline could act on.
_BETA = "(Parameter `(execution_type|backfill_policy|allow_nonexistent_upstream_partitions)` of|Function `multi_observable_source_asset`)"
warnings.filterwarnings("ignore", message=_BETA, category=dg.BetaWarning)

JobOfAssets = Any  # what `dg.define_asset_job` returns; Dagster does not export its name


class Attributes(BaseModel):
    """What `attributes:` may hold. Open here: `ct_assets.platform.spec` checks it, with line, column and did-you-mean."""

    model_config = ConfigDict(extra="allow")


class RetrainingPipeline(dg.Component):
    """From daily deliveries, or a stream of events, to checked data, features and a gated model."""

    def __init__(self, spec: PipelineSpec) -> None:
        """``spec`` is checked."""
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Let Dagster pass any mapping: our own validator says more about a mistake."""
        return Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "RetrainingPipeline":
        """Read the folder's own file again, with positions."""
        path = context.path
        return cls(parse_pipeline(path if path.is_file() else path / FILE_NAME))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's assets, checks, jobs and sensors."""
        return build_pipeline(self.spec)


def resolve(spec: PipelineSpec) -> Pipeline:
    """The spec with its contract, names and partitions. Raises :class:`UsageError` for a trainer that does not exist, and
    for features whose columns the contract does not give."""
    contract = load_contract(spec.source.contract)
    schema = contract.schema(spec.source.schema)
    check_publishable(contract, schema)
    check_lines(spec, schema)
    if spec.model is not None:
        check_trainer(spec.model.trainer, spec.file)
    return Pipeline(spec, schema, names_of(spec, schema))


def build_pipeline(spec: PipelineSpec) -> dg.Definitions:
    """The definitions of one pipeline; what the spec does not ask for is not there."""
    if spec.source.mode == "streaming":
        return build_stream(resolve_stream(spec))
    pipeline = resolve(spec)
    jobs = [*_jobs(pipeline), *([planner_sheet(pipeline)] if spec.model else [])]
    sensors = [landing_sensor(pipeline, jobs[0]), supplier_sensor(pipeline.names, spec)]
    return dg.Definitions(
        assets=[
            daily_data(pipeline),
            *(feature_view(pipeline, name) for name in spec.features),
            *training_assets(pipeline),
        ],
        asset_checks=[contract_checks(pipeline.names, pipeline.schema.version, spec.freshness.data)],
        jobs=jobs,
        sensors=[sensor for sensor in sensors if sensor is not None],
    )


def shared(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """What every pipeline uses; ``overrides`` replaces resources by name."""
    resources = {RESOURCE: Installation(), SHEETS: sheet_writer, **(overrides or {})}
    return dg.Definitions(resources=resources, executor=dg.in_process_executor)


def alone(spec: PipelineSpec, overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """One pipeline and what it uses: all that `ct run` needs, whatever is wrong with the files of other teams."""
    return dg.Definitions.merge(build_pipeline(spec), shared(overrides))


def _jobs(pipeline: Pipeline) -> Iterator[JobOfAssets]:
    """One job per stage: what `ct run`, the sensors and a person in the UI start."""
    names, tags = pipeline.names, {PIPELINE_TAG: pipeline.spec.name, "team": pipeline.spec.owner.team}
    yield dg.define_asset_job(
        names.data_job,
        dg.AssetSelection.assets(*names.data_keys),
        tags=tags,
        description="Judge and publish what was delivered.",
    )
    if names.features:
        yield dg.define_asset_job(
            names.feature_job,
            dg.AssetSelection.assets(*names.feature_keys),
            tags=tags,
            description="Build feature days whose inputs changed.",
        )
    if names.model:
        yield dg.define_asset_job(
            names.training_job,
            dg.AssetSelection.assets(*names.training_keys),
            tags=tags,
            description="Train a candidate, judge it, publish forecasts.",
        )

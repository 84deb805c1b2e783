"""A streaming pipeline's assets: the topic, hourly snapshots, the live feature view, the training set, the model.

What goes here: asset definitions whose bodies call `orchestration.stream_*`. What does not: the work.
"""
# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ct_assets.components.model_asset import model_asset
from ct_assets.orchestration.automation import after_its_input, on_schedule_after_changes
from ct_assets.orchestration.events import echo
from ct_assets.orchestration.names import PIPELINE_TAG
from ct_assets.orchestration.partitions import ONE_RUN
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.stream_hours import DEAD, FRESH
from ct_assets.orchestration.stream_pipeline import StreamPipeline, hours_of_run
from ct_assets.orchestration.stream_sensor import stream_sensor
from ct_assets.orchestration.stream_training import DETERMINISM, GATES
from ct_assets.platform.spec import EVERY


def build_stream(pipeline: StreamPipeline) -> dg.Definitions:
    """The definitions of a streaming pipeline."""
    names, tags = pipeline.names, {PIPELINE_TAG: pipeline.spec.name, "team": pipeline.spec.owner.team}
    snapshots = dg.define_asset_job(
        names.data_job, [pipeline.snapshot], tags=tags, description="Keep the aggregates at the end of complete hours."
    )
    training = dg.define_asset_job(
        names.training_job,
        pipeline.learnt_keys,
        tags=tags,
        description="Verify the live view; train a candidate, judge it.",
    )
    learnt = [_training_set(pipeline), _model(pipeline)] if pipeline.spec.model else []
    return dg.Definitions(
        assets=[_events(pipeline), _snapshot(pipeline), _feature(pipeline), *learnt],
        asset_checks=[_checks(pipeline)],
        jobs=[snapshots, training],
        sensors=[stream_sensor(pipeline, snapshots)],
    )


def _events(pipeline: StreamPipeline) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        pipeline.events,
        description="The topic: offsets and watermark are its data version. Read by `ct stream run`, observed here.",
        metadata={"contract": f"{pipeline.schema.contract_id or pipeline.schema.name} {pipeline.schema.version}"},
        **pipeline.common("kafka"),
    )

    @dg.multi_observable_source_asset(
        name=f"{pipeline.spec.name}_events", specs=[spec], required_resource_keys={RESOURCE}
    )
    def events(context: dg.AssetExecutionContext) -> dg.ObserveResult:
        from ct_assets.orchestration import stream_hours

        found = stream_hours.where_it_is(getattr(context.resources, RESOURCE), pipeline)
        version, metadata = stream_hours.observed(pipeline, found)
        return dg.ObserveResult(asset_key=pipeline.events, data_version=dg.DataVersion(version), metadata=metadata)

    return events


def _snapshot(pipeline: StreamPipeline) -> dg.AssetsDefinition:
    definition = pipeline.definition
    entity = definition.schema.column(definition.entity)
    columns = [dg.TableColumn(entity.name, entity.type, entity.description or None), dg.TableColumn("at", "timestamp")]
    columns += [dg.TableColumn(a.name, definition.result_type(a)) for a in definition.aggregates]

    @dg.asset(
        key=pipeline.snapshot,
        partitions_def=pipeline.hours,
        deps=[pipeline.events],
        backfill_policy=ONE_RUN,
        output_required=False,
        description=f"{pipeline.definition.description} At the end of each hour, once all its events are in; corrected when one comes late.",
        metadata={"dagster/column_schema": dg.TableSchema(columns)},
        code_version=pipeline.definition.hash[:12],
        required_resource_keys={RESOURCE},
        **pipeline.common("parquet"),
    )
    def snapshot(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from ct_assets.orchestration import stream_hours

        installation = getattr(context.resources, RESOURCE)
        facts = stream_hours.build_snapshots(installation, pipeline, hours_of_run(context), context.log.info)
        hours = [fact.day for fact in facts]
        yield from echo(
            context, context.asset_key, facts, lambda: stream_hours.rate_plot(installation, pipeline, hours)
        )

    return snapshot


def _feature(pipeline: StreamPipeline) -> dg.AssetsDefinition:
    check = dg.AssetCheckSpec(
        DETERMINISM,
        asset=pipeline.feature,
        blocking=True,
        description="Sampled online reads, recomputed offline from the events that they saw: no value differs.",
    )

    @dg.asset(
        key=pipeline.feature,
        deps=[pipeline.snapshot],
        check_specs=[check],
        automation_condition=after_its_input(),
        description="The live view: finished at read time from the rows that the worker commits. Building it verifies it.",
        code_version=pipeline.definition.hash[:12],
        required_resource_keys={RESOURCE},
        **pipeline.common("postgres", "feast"),
    )
    def feature(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from ct_assets.orchestration import stream_training

        yield from stream_training.verify_features(getattr(context.resources, RESOURCE), pipeline)

    return feature


def _training_set(pipeline: StreamPipeline) -> dg.AssetsDefinition:
    every = pipeline.spec.retrain.every
    cron = None if pipeline.spec.retrain.new_data or every is None else EVERY[every]

    @dg.asset(
        key=pipeline.names.dataset,
        deps=[pipeline.feature],
        automation_condition=on_schedule_after_changes(cron),
        output_required=False,
        description="Clicks whose labels have matured, with the features as they were known at each click.",
        required_resource_keys={RESOURCE},
        **pipeline.common("polars"),
    )
    def training_set(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from ct_assets.orchestration import stream_training

        yield from stream_training.build_training_set(getattr(context.resources, RESOURCE), pipeline)

    return training_set


def _model(pipeline: StreamPipeline) -> dg.AssetsDefinition:
    def train(installation: Installation) -> Iterator[Any]:
        from ct_assets.orchestration import stream_training

        return stream_training.train_model(installation, pipeline)

    return model_asset(pipeline, GATES, train)


def _checks(pipeline: StreamPipeline) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            FRESH, asset=pipeline.events, description="The watermark, data time, is as recent as agreed."
        ),
        dg.AssetCheckSpec(
            DEAD, asset=pipeline.events, description="At most 1 % of the newest day's messages were set aside."
        ),
    ]

    @dg.multi_asset_check(
        specs=specs, name=f"{pipeline.spec.name}_stream_checks", can_subset=True, required_resource_keys={RESOURCE}
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        from ct_assets.orchestration.stream_hours import stream_state

        chosen = {key.name for key in context.selected_asset_check_keys}
        found = stream_state(getattr(context.resources, RESOURCE), pipeline)
        yield from (result for result in found if result.check_name in chosen)

    return check

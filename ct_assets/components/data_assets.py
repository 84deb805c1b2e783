"""The daily data of a pipeline: what landed, the cleaned lines, the quarantine, rollups, and feature views.

What goes here: asset definitions whose bodies call `orchestration.stages`. What does not: the work.
"""
# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

from collections.abc import Iterator
from functools import partial

import dagster as dg

from ct_assets.errors import UsageError, did_you_mean
from ct_assets.features.spec import VIEWS, FeatureView
from ct_assets.orchestration.automation import when_inputs_change_and_the_ledger_holds
from ct_assets.orchestration.events import echo
from ct_assets.orchestration.freshness import policy
from ct_assets.orchestration.partitions import ONE_RUN, days_of_run, looking_back
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import RESOURCE, published_days_of


def daily_data(pipeline: Pipeline) -> dg.AssetsDefinition:
    """Everything that one delivery writes in one transaction, as one step with an asset for each table."""
    names, spec = pipeline.names, pipeline.spec

    @dg.multi_asset(
        name=f"{spec.name}_daily",
        specs=list(_data_specs(pipeline)),
        can_subset=True,
        backfill_policy=ONE_RUN,
        required_resource_keys={RESOURCE},
    )
    def daily(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from ct_assets.orchestration import stages

        installation, days = getattr(context.resources, RESOURCE), days_of_run(context)
        publish = context.selected_asset_keys != {names.raw}  # `raw` alone registers what landed and publishes nothing
        outcome = stages.bring_in(installation, spec, days, context.log.info) if publish else stages.Outcome()
        facts = stages.data_facts(installation, pipeline, days)
        for key in names.data_keys:
            if key in context.selected_asset_keys:
                more = partial(stages.quarantine_plot, installation, names) if key == names.quarantine else None
                yield from echo(context, key, facts[key], more)
        outcome.raise_if_failed()

    return daily


def _data_specs(pipeline: Pipeline) -> Iterator[dg.AssetSpec]:
    names, spec = pipeline.names, pipeline.spec
    shared = {"partitions_def": pipeline.days, "skippable": True}
    yield dg.AssetSpec(
        names.raw,
        description="Files as they were delivered, by day; kept byte for byte under their sha256.",
        **shared,
        **pipeline.common("csv", "file"),
    )
    yield dg.AssetSpec(
        names.clean,
        deps=[names.raw],
        description=pipeline.schema.description or f"Rows of {names.lines} that keep the contract.",
        metadata=pipeline.contract_metadata(),
        freshness_policy=policy(spec.freshness.data),
        code_version=pipeline.schema.digest[:12],
        **shared,
        **pipeline.common("postgres", "table"),
    )
    yield dg.AssetSpec(
        names.quarantine,
        deps=[names.raw],
        description="Rows that broke a rule, verbatim, with their line and reasons; `ct quarantine` lists, exports, replays them.",
        metadata={"dagster/table_name": f"quarantine.{names.lines}"},
        **shared,
        **pipeline.common("postgres", "table"),
    )
    for key in names.rollup_keys:
        yield dg.AssetSpec(
            key,
            deps=[names.clean],
            description=f"Summed up from {names.lines} in the transaction that publishes it.",
            metadata={"dagster/table_name": f"clean.{key.path[-1]}"},
            **shared,
            **pipeline.common("postgres", "table"),
        )


def feature_view(pipeline: Pipeline, name: str) -> dg.AssetsDefinition:
    """One feature view: day ``d`` is built from the days of its look-back, and again whenever one of them changes."""
    names, view = pipeline.names, known_view(name)
    inputs = names.rollup_keys or (names.clean,)

    @dg.asset(
        key=names.key("feature", name),
        partitions_def=pipeline.days,
        deps=[dg.AssetDep(key, partition_mapping=looking_back(view.lookback_days)) for key in inputs],
        backfill_policy=ONE_RUN,
        output_required=False,
        automation_condition=when_inputs_change_and_the_ledger_holds(published_days_of(names.lines)),
        description=view.description,
        metadata={
            "dagster/column_schema": _feature_columns(view),
            "dagster/table_name": f"feature.{pipeline.stored(name)}",
        },
        code_version=view.digest[:12],
        required_resource_keys={RESOURCE},
        **pipeline.common("postgres", "feast"),
    )
    def feature(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from ct_assets.orchestration import stages

        installation, days = getattr(context.resources, RESOURCE), days_of_run(context)
        stages.build_features(installation, pipeline, name, days)
        yield from echo(context, context.asset_key, stages.feature_facts(installation, pipeline, name, days))

    return feature


def known_view(name: str) -> FeatureView:
    """The feature view of that name. Raises :class:`UsageError` with the nearest one."""
    if name not in VIEWS:
        raise UsageError(
            f"there is no feature view {name!r}", hint=did_you_mean(name, VIEWS) or f"there is: {', '.join(VIEWS)}"
        )
    return VIEWS[name]


def _feature_columns(view: FeatureView) -> dg.TableSchema:
    columns = [dg.TableColumn("day", "date"), dg.TableColumn(view.entity, "text")]
    return dg.TableSchema(columns + [dg.TableColumn(f.name, f.dtype, f.description) for f in view.features])

"""What is trained: training set, model with its gates as checks, published forecasts. Unpartitioned: the cut-off is metadata.

What goes here: asset definitions whose bodies call `orchestration.training`. What does not: the work.
"""
# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ct_assets.components.model_asset import model_asset
from ct_assets.orchestration.automation import Cadence, after_its_input, when_inputs_settle
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import RESOURCE, Installation, published_days_of
from ct_assets.orchestration.training import GATES
from ct_assets.platform.spec import EVERY


def training_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """Training set, model and prediction of a pipeline that has a model; else none."""
    if pipeline.spec.model is None:
        return []
    return [_training_set(pipeline), _model(pipeline), _prediction(pipeline)]


def _training_set(pipeline: Pipeline) -> dg.AssetsDefinition:
    names, retrain = pipeline.names, pipeline.spec.retrain
    cron = EVERY[retrain.every] if retrain.every else None
    cadence = Cadence(retrain.new_data, cron, pipeline.zone)

    @dg.asset(
        key=names.dataset,
        deps=[*names.feature_keys, *names.rollup_keys],
        automation_condition=when_inputs_settle(cadence, published_days_of(names.lines)),
        description="Point-in-time training set: labels of closed horizons, features as known at their origin.",
        output_required=False,
        required_resource_keys={RESOURCE},
        **pipeline.common("polars"),
    )
    def training_set(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from ct_assets.orchestration import training

        yield from training.build_training_set(getattr(context.resources, RESOURCE), pipeline)

    return training_set


def _model(pipeline: Pipeline) -> dg.AssetsDefinition:
    def train(installation: Installation) -> Iterator[Any]:
        from ct_assets.orchestration import training

        return training.train_candidate(installation, pipeline)

    return model_asset(pipeline, GATES, train)


def _prediction(pipeline: Pipeline) -> dg.AssetsDefinition:
    names = pipeline.names

    @dg.asset(
        key=names.prediction,
        deps=[names.model_key],
        automation_condition=after_its_input(),
        description="The champion's forecasts, versioned by model and as-of; consumers keep the last good one.",
        output_required=False,
        required_resource_keys={RESOURCE},
        **pipeline.common("postgres", "table"),
    )
    def prediction(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from ct_assets.orchestration import training

        yield from training.publish_forecasts(getattr(context.resources, RESOURCE), pipeline)

    return prediction

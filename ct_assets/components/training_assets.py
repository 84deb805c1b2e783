"""What is trained: training set, model with its gates as checks, published forecasts. Unpartitioned: the cut-off is metadata.

What goes here: asset definitions whose bodies call `orchestration.training`. What does not: the work.
"""
# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ct_assets.orchestration.automation import Cadence, after_its_input, when_inputs_settle
from ct_assets.orchestration.freshness import policy
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import RESOURCE, published_days_of
from ct_assets.platform.spec import EVERY

GATES = ("promotion", "baselines", "sanity")


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
    names, spec = pipeline.names, pipeline.spec
    assert spec.model is not None
    checks = [dg.AssetCheckSpec(gate, asset=names.model_key, description=_GATE[gate]) for gate in GATES]

    @dg.asset(
        key=names.model_key,
        deps=[names.dataset],
        check_specs=checks,
        automation_condition=after_its_input(),
        freshness_policy=policy(spec.freshness.model),
        description="Every version that was trained, promoted or not. The champion is a pointer in the ledger: `ct model list`.",
        metadata={"trainer": spec.model.trainer, "seed": spec.model.seed},
        output_required=False,
        required_resource_keys={RESOURCE},
        **pipeline.common("scikitlearn", "mlflow"),
    )
    def model(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from ct_assets.orchestration import training

        yield from training.train_candidate(getattr(context.resources, RESOURCE), pipeline)

    return model


_GATE = {
    "promotion": "Refresh: not inferior to the champion; challenger: superior. Missing evidence: no.",
    "baselines": "Better than what a planner would use without a model.",
    "sanity": "The model that would be promoted loads, predicts, and stays near the evaluated one.",
}


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

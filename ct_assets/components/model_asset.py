"""The model of a pipeline as an asset, whatever it learns from: unpartitioned, with its gates as checks.

What goes here: the asset's definition. What does not: training and its results (``orchestration``).
"""
# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from ct_assets.orchestration.automation import after_its_input
from ct_assets.orchestration.freshness import policy
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.stream_pipeline import StreamPipeline


def model_asset(
    pipeline: Pipeline | StreamPipeline,
    checks: Mapping[str, str],
    train: Callable[[Installation], Iterator[Any]],
) -> dg.AssetsDefinition:
    """The model that ``train`` makes; ``checks``: name -> what it promises."""
    names, spec = pipeline.names, pipeline.spec
    assert spec.model is not None

    @dg.asset(
        key=names.model_key,
        deps=[names.dataset],
        check_specs=[dg.AssetCheckSpec(name, asset=names.model_key, description=text) for name, text in checks.items()],
        automation_condition=after_its_input(),
        freshness_policy=policy(spec.freshness.model),
        description="Every version that was trained, promoted or not. The champion is a pointer in the ledger: `ct model list`.",
        metadata={"trainer": spec.model.trainer, "seed": spec.model.seed},
        output_required=False,
        required_resource_keys={RESOURCE},
        **pipeline.common("scikitlearn", "mlflow"),
    )
    def model(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from train(getattr(context.resources, RESOURCE))

    return model

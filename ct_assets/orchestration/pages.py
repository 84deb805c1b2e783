"""What the asset pages of a training show: metadata of a model version, tables, column descriptions.

What goes here: plain results as Dagster metadata. What does not: drawing (`plots`), when anything is due (`training`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from ct_assets.orchestration.resources import Installation

if TYPE_CHECKING:
    from ct_assets.adapters.retraining import Trained, TrainingInputs
    from ct_assets.orchestration.pipeline import Pipeline
    from ct_assets.training.evaluation import Fold


def model_metadata(
    installation: Installation, pipeline: Pipeline, trained: Trained, inputs: TrainingInputs
) -> dict[str, Any]:
    """What the page of a model version shows: figures, pictures, the folds."""
    from ct_assets.adapters import champion
    from ct_assets.orchestration import plots

    model, evaluation = str(pipeline.names.model), trained.candidate.evaluation
    with installation.ledger() as conn:
        versions = champion.versions(conn, model)
    weeks = [
        (fold.origin.isoformat(), _units(fold, "truth"), _units(fold, "mean"), _units(fold, "mean_28"))
        for fold in evaluation.folds
    ]
    history = [(v.version, v.metrics, v.decision == "promoted") for v in versions[-30:]]
    metadata: dict[str, Any] = {
        "version": trained.version,
        "promoted": trained.promoted,
        "decision": trained.reason,
        "cut-off": inputs.data.cutoff.isoformat(),
        "training rows": trained.candidate.rows,
        "seconds": round(trained.candidate.seconds, 1),
        **{name: value for name in ("deviance", "wape", "bias", "coverage") if _finite(value := evaluation.mean(name))},
        "quality by version": plots.metric_history(history),
    }
    if weeks:
        metadata["forecast against truth"] = plots.forecast_against_truth(weeks)
        metadata["calibration"] = plots.calibration(evaluation.calibration())
        metadata["folds"] = table(evaluation.table())
    return metadata


def _units(fold: Fold, column: str) -> float:
    return float(fold.rows[column].sum())


def _finite(value: float) -> bool:
    return value - value == 0


def table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows of one or more sets of columns as one table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    records = [dg.TableRecord({name: str(row.get(name, "")) for name in names}) for row in rows]
    return dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name) for name in names]))


def columns(described: Mapping[str, str], types: Mapping[str, str]) -> dg.TableSchema:
    """Column names with their PostgreSQL types and what they mean."""
    return dg.TableSchema(
        [dg.TableColumn(name, types.get(name, "text"), description=text) for name, text in described.items()]
    )

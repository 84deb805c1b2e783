"""What the bodies of the live feature view, the training set and the model of a streaming pipeline call.

What goes here: results, metadata, checks; when a training is due. What does not: consistency (``adapters.stream``),
training (``adapters.propensity``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from ct_assets.orchestration.gate_checks import GateChecks, mirror
from ct_assets.orchestration.resources import Installation
from ct_assets.orchestration.stream_hours import DAY_US, NoStream, live_table, now_us, text
from ct_assets.orchestration.stream_pipeline import StreamPipeline

if TYPE_CHECKING:
    from ct_assets.adapters.propensity import PropensityJob, PropensitySet
    from ct_assets.adapters.stream.consistency import Report

DETERMINISM = "determinism"
GATES = {
    "promotion": "Refresh: not inferior to the champion; challenger: superior. Missing evidence: no.",
    "baselines": "Better than the base rate, recency and a logistic regression on the same features.",
    "calibration": "Forecast and share of purchases agree.",
    "sanity": "The model that would be promoted loads, answers gaps, and stays near the evaluated one.",
}
SAMPLED = 200  # entities read online for each verification
_GROUPS = {"beats_": "baselines", "calibration": "calibration", "champion_": "promotion"}


def verify_features(installation: Installation, pipeline: StreamPipeline) -> Iterator[Any]:
    """Read a sample online, recompute it and all that was kept within a day from the stored events; tell what differs."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import consistency, snapshots
    from ct_assets.orchestration.stream_plots import served_against_corrected

    storage, now = open_storage(installation.settings), now_us(installation)
    with installation.stream() as conn:
        table = live_table(conn, pipeline)
        at = snapshots.position(conn, table, now)
        sampled = consistency.some_entities(conn, table, SAMPLED)
        consistency.sample_reads(conn, table, sampled, now, installation.settings.online_url)
        report = consistency.recompute(conn, storage, table, now - DAY_US)
        skew = consistency.as_served(conn, storage, table, now - DAY_US, at.watermark)
    yield dg.MaterializeResult(
        asset_key=pipeline.feature,
        metadata={
            "definition": f"{table.definition.name} {table.definition.hash[:12]}",
            "watermark": text(at.watermark),
            "reads recomputed": report.reads,
            "values recomputed": report.values,
            "values that differ": report.mismatches,
            "dagster/table_name": f"online.{table.quoted.rpartition('.')[2].strip(chr(34))}",
            "as served against corrected": served_against_corrected(skew.values, skew.changed),
        },
        data_version=dg.DataVersion(f"{table.definition.hash[:12]} {at.digest}"),
    )
    yield _determinism(pipeline, report)


def _determinism(pipeline: StreamPipeline, report: Report) -> dg.AssetCheckResult:
    columns = ("entity", "at", "aggregate", "served", "recomputed")
    rows = [
        dg.TableRecord(
            dict(
                zip(columns, (str(m.entity), text(m.at_us), m.aggregate, str(m.served), str(m.recomputed)), strict=True)
            )
        )
        for m in report.first
    ]
    more: dict[str, Any] = {"reads": report.reads, "values": report.values, "differ": report.mismatches}
    if rows:
        more["first"] = dg.MetadataValue.table(rows, schema=dg.TableSchema([dg.TableColumn(name) for name in columns]))
    said = f"{report.values:,} values of {report.reads:,} online reads recomputed offline, {report.mismatches:,} differ"
    return dg.AssetCheckResult(
        passed=report.mismatches == 0,
        check_name=DETERMINISM,
        asset_key=pipeline.feature,
        severity=dg.AssetCheckSeverity.ERROR,
        description=said,
        metadata=more,
    )


def build_training_set(installation: Installation, pipeline: StreamPipeline) -> Iterator[Any]:
    """Read what a training of now would learn from, and say what it is; nothing while no label has matured."""
    data = read_once(installation, pipeline)
    if data.frame.is_empty():
        reason = f"no label has matured: events are complete until {text(data.complete_until)}"
        yield dg.AssetObservation(pipeline.names.dataset, metadata={"not made": reason})
        return
    found = data.summary()
    yield dg.MaterializeResult(
        asset_key=pipeline.names.dataset,
        metadata={
            "dagster/row_count": found["rows"],
            "clicks": found["clicks"],
            "rows that lack messages given up unread": found["lacking"],
            "users": found["users"],
            "purchase share": found["purchase_share"],
            "newest label": found["cutoff"].isoformat(timespec="seconds"),
            "known as of": found["as_of"].isoformat(timespec="seconds"),
            "definition hash": found["definition_hash"],
            "digest": found["digest"],
        },
        data_version=dg.DataVersion(found["digest"][:16]),
    )


def train_model(installation: Installation, pipeline: StreamPipeline) -> Iterator[Any]:
    """Train, judge and register a candidate; the pointer moves when every gate passed."""
    from ct_assets.adapters.propensity import retrain_propensity
    from ct_assets.adapters.storage import open_storage
    from ct_assets.training.learning import TrainingFailed

    data = read_once(installation, pipeline)
    job = job_of(installation, pipeline, data)
    urls = installation.ledger_url, installation.stream_url
    try:
        trained = retrain_propensity(*urls, open_storage(installation.settings), job, data)
    except TrainingFailed as reason:
        yield dg.AssetObservation(pipeline.names.model_key, metadata={"not made": str(reason)})
        yield from _checks(pipeline).no_evidence(str(reason))
        return
    figures = {k: v for k, v in trained.summary().items() if isinstance(v, int | float | str)}
    yield dg.MaterializeResult(
        asset_key=pipeline.names.model_key,
        metadata={**figures, "clicks": data.clicks, "definition hash": data.table.definition.hash},
        data_version=dg.DataVersion(f"{pipeline.model} {trained.version}"),
    )
    gates = trained.candidate.decision.gates
    yield from _checks(pipeline).results(gates, trained.promoted, trained.reason)
    mirror(installation, pipeline.model)


def read_once(installation: Installation, pipeline: StreamPipeline) -> PropensitySet:
    """What a training of now learns from; read once for the steps of a run in one process."""
    from ct_assets.adapters.propensity import read_propensity_set
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream.snapshots import position

    with installation.stream() as conn:
        version = position(conn, live_table(conn, pipeline), now_us(installation)).digest
    kept = installation.kept.get(pipeline.model)
    if kept is None or kept[0] != version:
        storage = open_storage(installation.settings)
        kept = version, read_propensity_set(installation.stream_url, job_of(installation, pipeline), storage)
        installation.kept[pipeline.model] = kept
    return kept[1]


def job_of(installation: Installation, pipeline: StreamPipeline, data: PropensitySet | None = None) -> PropensityJob:
    """The training that the pipeline's spec asks for; known by its inputs, so that a repeated run finds its version (F44)."""
    from ct_assets.adapters.datasets import code_version
    from ct_assets.adapters.propensity import PropensityJob

    spec = pipeline.spec.model
    assert spec is not None
    code = installation.settings.code_version or code_version()
    digest = data.digest if data else ""
    run_id = hashlib.sha256(f"{digest}|{spec.trainer}|{spec.seed}|{code}".encode()).hexdigest()[:32]
    return PropensityJob(run_id, pipeline.model, pipeline.definition.name, seed=spec.seed, code_version=code)


def _group(gate: str) -> str:
    return next((group for start, group in _GROUPS.items() if gate.startswith(start)), "sanity")


def _checks(pipeline: StreamPipeline) -> GateChecks:
    return GateChecks(pipeline.names.model_key, GATES, _group)


__all__ = ["DETERMINISM", "GATES", "NoStream", "build_training_set", "train_model", "verify_features"]

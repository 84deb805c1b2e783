"""What the bodies of training set, model and prediction call: adapters' results as Dagster results, and when it is due.

What goes here: metadata, plots and checks of a training. What does not: training (`adapters.retraining`,
`ct_assets.training`), who is champion (`adapters.champion`).

A training is known by its inputs: the digest of the published revisions it reads and of what the pipeline asks for.
Materializations carry it as a tag; when the digest of now is another one, a retraining is due. A run killed anywhere is therefore simply due again, and
registering is idempotent by inputs, recipe and code (F44).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from ct_assets.orchestration import pages, stages
from ct_assets.orchestration.gate_checks import GateChecks, mirror
from ct_assets.orchestration.resources import Installation

if TYPE_CHECKING:
    from ct_assets.adapters.retraining import TrainingInputs, TrainingJob
    from ct_assets.orchestration.pipeline import Pipeline

INPUTS_TAG = "ct/inputs"
NOTHING = "nothing published"
RETRAIN = "retrain"  # key of Installation.kept: a token of this `ct run`, which trains although nothing changed
RELEASED = "forecast released by"  # key of Installation.kept: who takes the forecast although it is beyond its bounds
IMPLAUSIBLE = "implausible_forecast"
GATES = {
    "promotion": "Refresh: not inferior to the champion; challenger: superior. Missing evidence: no.",
    "baselines": "Better than what a planner would use without a model.",
    "sanity": "The model that would be promoted loads, predicts, and stays near the evaluated one.",
}
SANITY = ("refit_sane", "reload_equal", "artefact_bytes", "predict_seconds")


def inputs_version(installation: Installation, pipeline: Pipeline) -> str:
    """Digest of all that decides what a training of now comes to: the revisions and the SQL that rolled them up, the code
    of the features, the trainer with its source and seed, the gates, and the bounds of the forecast.

    Not in it: code of this package beyond that, and what an own trainer imports (`ct run --retrain`).
    """
    from ct_assets.adapters.datasets import features_code
    from ct_assets.adapters.trainers import trainer_code
    from ct_assets.orchestration import facts

    with installation.ledger() as conn:
        rows = facts.published(conn, pipeline.names.lines)
    if not rows:
        return NOTHING
    spec = pipeline.spec
    asked = spec.model, sorted(spec.gates.items()), spec.forecast  # frozen dataclasses: their repr is their value
    code = features_code(), trainer_code(spec.model.trainer) if spec.model else ""
    read = [f"{row.revision_id} {sorted(row.rollups.items())}" for row in rows]
    return hashlib.sha256(",".join([repr(asked), *code, *read]).encode()).hexdigest()[:16]


def due(installation: Installation, instance: dg.DagsterInstance, pipeline: Pipeline) -> list[dg.AssetKey]:
    """The assets to build: all three when the inputs changed or somebody asks for it, the prediction alone when only it is
    behind; else none."""
    from ct_assets.adapters import champion

    names, now = pipeline.names, inputs_version(installation, pipeline)
    if now == NOTHING:
        return []
    behind = any(told_inputs(instance, key) != now for key in (names.dataset, names.model_key))
    if behind or installation.kept.get(RETRAIN):
        return list(names.training_keys)
    with installation.ledger() as conn:
        leads = champion.champion(conn, str(names.model))
    return [names.prediction] if leads and told_inputs(instance, names.prediction) != now else []


def told_inputs(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The inputs of the newest event of an asset: a materialization, or the observation that nothing could be made."""
    materialized = instance.fetch_materializations(key, limit=1).records
    observed = instance.fetch_observations(key, limit=1).records
    newest = max([*materialized, *observed], key=lambda record: record.storage_id, default=None)
    if newest is None:
        return None
    event = newest.asset_materialization or newest.event_log_entry.asset_observation
    return (event.tags or {}).get(INPUTS_TAG) if event else None


def job_of(installation: Installation, pipeline: Pipeline, version: str) -> TrainingJob:
    """The training that the pipeline's spec asks for, on the inputs of ``version``."""
    from ct_assets.adapters.crash import crash_at
    from ct_assets.adapters.datasets import code_version
    from ct_assets.adapters.retraining import TrainingJob
    from ct_assets.training.gates import GateRules
    from ct_assets.training.plausibility import Bounds

    spec = pipeline.spec.model
    assert spec is not None
    code = installation.settings.code_version or code_version()
    asked_for = installation.kept.get(RETRAIN, "")  # a version of its own, even where nothing is known to differ
    run_id = hashlib.sha256(f"{version}|{spec.trainer}|{spec.seed}|{code}{asked_for}".encode()).hexdigest()[:32]
    rules = GateRules.of(pipeline.spec.gates)
    crash = crash_at(installation.settings.crash_at)
    bounds = (
        None
        if installation.kept.get(RELEASED)
        else Bounds(pipeline.spec.forecast.total, pipeline.spec.forecast.product)
    )
    tables = stages.sales_tables(pipeline)
    return TrainingJob(spec.name, spec.trainer, run_id, spec.seed, rules, code, tables, crash, bounds)


def read_once(installation: Installation, pipeline: Pipeline, version: str) -> TrainingInputs:
    """The inputs of ``version``; read once for the three steps of a run in one process."""
    from ct_assets.adapters.retraining import read_inputs

    kept = installation.kept.get("inputs")
    if kept is None or kept[0] != version:
        kept = version, read_inputs(installation.ledger_url, tables=stages.sales_tables(pipeline))
        installation.kept["inputs"] = kept
    return kept[1]


def build_training_set(installation: Installation, pipeline: Pipeline) -> Iterator[Any]:
    """Read what a training of now would learn from, and say what it is; nothing when there is too little."""
    from ct_assets.adapters.training_data import NoSales
    from ct_assets.training.recipe import TrainingFailed

    version = inputs_version(installation, pipeline)
    try:
        inputs = read_once(installation, pipeline, version)
    except (NoSales, TrainingFailed) as reason:
        for key in (pipeline.names.dataset, pipeline.names.model_key):
            yield _nothing_made(key, version, reason)
        return
    panel = inputs.data.panel
    yield dg.MaterializeResult(
        asset_key=pipeline.names.dataset,
        metadata={
            "cut-off": inputs.data.cutoff.isoformat(),
            "known as of": inputs.known_as_of.isoformat(timespec="seconds"),
            "products": len(panel.codes),
            "open days": len(panel.open_days),
            "folds": [panel.day(at).isoformat() for at in inputs.data.origins],
            "data digest": inputs.data.digest,
            "contract digest": inputs.contract_digest,
        },
        tags={INPUTS_TAG: version},
        data_version=dg.DataVersion(inputs.data.digest[:16]),
    )


def _nothing_made(key: dg.AssetKey, version: str, reason: Exception) -> dg.AssetObservation:
    return dg.AssetObservation(key, metadata={"not made": str(reason)}, tags={INPUTS_TAG: version})


def train_candidate(installation: Installation, pipeline: Pipeline) -> Iterator[Any]:
    """Train, judge and register a candidate; the pointer moves when every gate passed."""
    from ct_assets.adapters import retraining
    from ct_assets.adapters.storage import open_storage
    from ct_assets.training.recipe import TrainingFailed

    version = inputs_version(installation, pipeline)
    job, storage = job_of(installation, pipeline, version), open_storage(installation.settings)
    try:
        inputs = read_once(installation, pipeline, version)
        trained = retraining.train_candidate(installation.ledger_url, storage, job, inputs)
    except TrainingFailed as reason:
        yield _nothing_made(pipeline.names.model_key, version, reason)
        yield from gate_checks(pipeline).no_evidence(str(reason))
        return
    yield dg.MaterializeResult(
        asset_key=pipeline.names.model_key,
        metadata=pages.model_metadata(installation, pipeline, trained, inputs),
        tags={INPUTS_TAG: version},
        data_version=dg.DataVersion(f"{pipeline.names.model} {trained.version}"),
    )
    gates = trained.candidate.decision.gates
    yield from gate_checks(pipeline).results(gates, trained.promoted, trained.reason)
    mirror(installation, str(pipeline.names.model))


def gate_group(name: str) -> str:
    """Which of the three checks a gate belongs to."""
    return "sanity" if name in SANITY else "baselines" if name.startswith(("baselines_", "coverage")) else "promotion"


def gate_checks(pipeline: Pipeline) -> GateChecks:
    """The checks of the pipeline's model."""
    return GateChecks(pipeline.names.model_key, GATES, gate_group)


def publish_forecasts(installation: Installation, pipeline: Pipeline) -> Iterator[Any]:
    """The champion's forecasts as a published table; while there is no champion, nothing (and readers keep what they have)."""
    from ct_assets.adapters import forecasts, retraining
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.training_data import NoSales
    from ct_assets.training.plausibility import ImplausibleForecast
    from ct_assets.training.recipe import TrainingFailed

    version = inputs_version(installation, pipeline)
    job, storage = job_of(installation, pipeline, version), open_storage(installation.settings)
    try:
        inputs = read_once(installation, pipeline, version)
        found = retraining.publish_forecasts(installation.ledger_url, storage, job, inputs)
    except ImplausibleForecast as reason:
        _hold(installation, pipeline, reason)
        yield _nothing_made(pipeline.names.prediction, version, reason)
        return
    except (retraining.NoChampion, NoSales, TrainingFailed) as reason:
        yield _nothing_made(pipeline.names.prediction, version, reason)
        return
    _settle(installation, pipeline)
    released = installation.kept.get(RELEASED)
    yield dg.MaterializeResult(
        asset_key=pipeline.names.prediction,
        metadata={
            **({"released by": released} if released else {}),
            "dagster/row_count": found["rows"],
            "products": found["products"],
            "as of": found["as_of"].isoformat(),
            "model version": found["model_version"],
            "dagster/table_name": f"prediction.{pipeline.names.model}",
            "dagster/column_schema": pages.columns(forecasts.COLUMNS, forecasts.column_types("stock_code")),
        },
        tags={INPUTS_TAG: version},
        data_version=dg.DataVersion(f"{found['as_of']} v{found['model_version']}"),
    )


def _hold(installation: Installation, pipeline: Pipeline, reason: Any) -> None:
    """An incident: a forecast was not published, and a person decides. It does not run again until the data changes."""
    from ct_assets.adapters import incidents

    names = pipeline.names
    about = incidents.Incident(
        names.pipeline, names.lines, None, IMPLAUSIBLE, reason.message, contract=str(names.model)
    )
    with installation.ledger() as conn:
        incidents.report(conn, about)
    dg.get_dagster_logger().error(reason.message)


def _settle(installation: Installation, pipeline: Pipeline) -> None:
    """A forecast was published: what held the one before is over."""
    with installation.ledger() as conn:
        conn.execute(
            "update ledger.incident set state = 'closed', closed_at = clock_timestamp()"
            " where pipeline = %s and rule = %s and state = 'open'",
            (pipeline.names.pipeline, IMPLAUSIBLE),
        )


def held(installation: Installation, instance: dg.DagsterInstance, pipeline: Pipeline) -> str | None:
    """Why the forecast of the newest inputs was not published, None when nothing is held."""
    from ct_assets.adapters import incidents

    if told_inputs(instance, pipeline.names.prediction) != inputs_version(installation, pipeline):
        return None
    with installation.ledger() as conn:
        open_ones = incidents.open_incidents(conn, pipeline.names.pipeline)
    return next((row["message"] for row in open_ones if row["rule"] == IMPLAUSIBLE), None)


def summary(installation: Installation, instance: dg.DagsterInstance, pipeline: Pipeline) -> dict[str, Any]:
    """What the last training came to, for `ct run`."""
    from ct_assets.adapters import champion, forecasts

    model = str(pipeline.names.model)
    with installation.ledger() as conn:
        versions, leads = champion.versions(conn, model), champion.champion(conn, model)
        forecast = forecasts.current(conn, model)
    found: dict[str, Any] = {"model": model, "champion": leads.version if leads else None}
    told = instance.fetch_observations(pipeline.names.model_key, limit=1).records
    if told and told_inputs(instance, pipeline.names.model_key) == inputs_version(installation, pipeline):
        observation = told[0].event_log_entry.asset_observation
        newest = instance.fetch_materializations(pipeline.names.model_key, limit=1).records
        if observation and (not newest or newest[0].storage_id < told[0].storage_id):
            return {**found, "not trained": observation.metadata["not made"].value}
    if versions:
        newest_version = versions[-1]
        found |= {
            "version": newest_version.version,
            "decision": newest_version.decision,
            "cutoff": str(newest_version.provenance.cutoff),
        }
    if forecast:
        found |= {"forecast_as_of": str(forecast["as_of"]), "forecast_rows": forecast["rows"]}
    return found

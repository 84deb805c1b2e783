"""When a retraining is due, what its assets say, and that a candidate without evidence never leads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.adapters import datasets, trainers
from ct_assets.components.retraining_pipeline import build_pipeline
from ct_assets.errors import UsageError
from ct_assets.orchestration import training
from ct_assets.orchestration.pipeline import Pipeline
from ct_assets.orchestration.resources import Installation
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.passes import Passes

MODEL, PREDICTION, DATASET = (
    dg.AssetKey([stage, "sales", name])
    for stage, name in (("model", "demand_7d"), ("prediction", "demand_7d"), ("dataset", "demand_7d_training"))
)
FIRST = dt.date(2011, 1, 3)
DAYS = [FIRST + dt.timedelta(days=i) for i in range(70) if (FIRST + dt.timedelta(days=i)).weekday() != 5]


def versions(passes: Passes) -> list[str]:
    with passes.installation.ledger() as conn:
        rows = conn.execute("select version, decision from ledger.model_version order by version").fetchall()
    return [f"{version} {decision}" for version, decision in rows]


def events(passes: Passes, key: dg.AssetKey) -> int:
    return len(passes.instance.fetch_materializations(key, limit=100).records)


@pytest.mark.slow
def test_new_data_is_one_training_and_a_candidate_without_evidence_never_leads(passes: Passes, tmp_path: Path):
    """Seven products say nothing about spread (the gates ask for twenty): registered, refused, shown as failed checks."""
    passes.deliver(*(write_day(tmp_path, day, good=14 + day.day, bad=0) for day in DAYS[:-1]))
    report = passes.run()
    assert report.ok, report.failures
    assert versions(passes) == ["1 refused"]
    assert report.training is not None
    assert (report.training["champion"], report.training["decision"]) == (None, "refused")
    assert (events(passes, DATASET), events(passes, MODEL), events(passes, PREDICTION)) == (1, 1, 0)
    newest = passes.instance.fetch_materializations(MODEL, limit=1).records[0].asset_materialization
    assert newest is not None
    assert newest.metadata["cut-off"].value == DAYS[-2].isoformat()
    assert newest.metadata["promoted"].value is False
    assert str(newest.metadata["quality by version"].value).startswith("![Version 1, not promoted")
    keys = [dg.AssetCheckKey(MODEL, name) for name in ("promotion", "baselines", "sanity")]
    found = passes.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert found[keys[0]].status.value == "FAILED"
    assert set(found) == set(keys)
    assert passes.run().nothing_new

    passes.deliver(write_day(tmp_path, DAYS[-1], good=20, bad=0))
    assert passes.run().ok
    assert versions(passes) == ["1 refused", "2 refused"]
    assert (events(passes, DATASET), events(passes, MODEL)) == (2, 2)


def test_a_training_is_due_only_when_its_inputs_differ(passes: Passes, tmp_path: Path):
    names = passes.pipeline.names

    def due() -> list[dg.AssetKey]:
        return training.due(passes.installation, passes.instance, passes.pipeline)

    assert due() == [], "nothing is published"
    passes.deliver(write_day(tmp_path, DAYS[0]))
    passes.run()
    assert due() == [], "it was tried: too little data, until there is other data"
    version = training.inputs_version(passes.installation, passes.pipeline)
    assert training.told_inputs(passes.instance, names.model_key) == version
    passes.deliver(write_day(tmp_path, DAYS[1]))
    from ct_assets.orchestration import stages

    stages.bring_in(passes.installation, passes.pipeline.spec, DAYS, lambda _: None)
    assert training.inputs_version(passes.installation, passes.pipeline) != version
    assert due() == [names.dataset, names.model_key, names.prediction]


def test_an_edited_model_section_is_trained_at_the_next_run(passes: Passes, tmp_path: Path):
    """Seven weeks are not there, so every training ends early; that it was tried is what counts."""
    passes.deliver(write_day(tmp_path, DAYS[0]))
    passes.run()
    spec = passes.pipeline.spec
    assert spec.model is not None
    edits = (
        {"model": replace(spec.model, seed=8)},
        {"model": replace(spec.model, trainer="ct_assets_tests.training.test_recipe:small")},
        {"gates": {**spec.gates, "coverage": replace(spec.gates["coverage"], between=(0.999, 1.0))}},
        {"forecast": replace(spec.forecast, product=6.0)},
    )
    for edit in edits:
        assert passes.run().nothing_new
        passes.follow(replace(passes.pipeline.spec, **edit))
        report = passes.run()
        assert report.training is not None, edit
        assert len(report.runs) == 1, "training and nothing else"


def test_another_source_of_the_trainer_or_of_the_features_is_another_training(
    passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    passes.deliver(write_day(tmp_path, DAYS[0]))
    passes.run()
    seen = {training.inputs_version(passes.installation, passes.pipeline)}
    for module, name in ((trainers, "trainer_code"), (datasets, "features_code")):
        monkeypatch.setattr(module, name, lambda *_: "edited")
        seen.add(training.inputs_version(passes.installation, passes.pipeline))
    assert len(seen) == 3


def test_a_training_can_be_asked_for_and_makes_a_version_of_its_own(passes: Passes, tmp_path: Path):
    passes.deliver(write_day(tmp_path, DAYS[0]))
    passes.run()
    version = training.inputs_version(passes.installation, passes.pipeline)
    usual = training.job_of(passes.installation, passes.pipeline, version).run_id
    passes.installation.kept[training.RETRAIN] = "asked"
    report = passes.run()
    assert report.training is not None
    assert training.job_of(passes.installation, passes.pipeline, version).run_id != usual


def test_a_trainer_that_does_not_exist_is_refused_where_the_pipeline_is_loaded(passes: Passes):
    spec = passes.pipeline.spec
    assert spec.model is not None
    with pytest.raises(UsageError, match=r"defs\.yaml: trainer .* has no function 'recipee'") as wrong:
        build_pipeline(replace(spec, model=replace(spec.model, trainer="ct_assets.training.demand:recipee")))
    assert wrong.value.hint == "did you mean 'recipe'?"


@pytest.mark.parametrize(
    ("gate", "group"),
    [
        ("baselines_wape", "baselines"),
        ("coverage_p90", "baselines"),
        ("reload_equal", "sanity"),
        ("deviance", "promotion"),
    ],
)
def test_every_gate_is_shown_under_one_of_three_checks(gate: str, group: str):
    assert training.gate_group(gate) == group


def test_an_implausible_forecast_is_held_until_somebody_releases_it(
    passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The adapter is replaced by one that judges as the real one does: held while there are bounds, else published."""
    from ct_assets.adapters import retraining
    from ct_assets.training.plausibility import ImplausibleForecast

    asked: list[object] = []

    def publish(url: str, storage: object, job: retraining.TrainingJob, inputs: object) -> dict[str, object]:
        asked.append(job.bounds)
        if job.bounds is not None:
            raise ImplausibleForecast("900 units per open day; 100 is usual")
        return {"model_version": 1, "as_of": DAYS[0], "products": 1, "rows": 6}

    monkeypatch.setattr(retraining, "publish_forecasts", publish)
    monkeypatch.setattr(training, "read_once", lambda *_: None)
    monkeypatch.setattr(training, "train_candidate", lambda *about: trained(MODEL, *about))
    monkeypatch.setattr(training, "build_training_set", lambda *about: trained(DATASET, *about))
    passes.deliver(write_day(tmp_path, DAYS[0]))
    report = passes.run()
    assert [line.splitlines()[0] for line in report.failures] == [
        "forecast not published: 900 units per open day; 100 is usual"
    ]
    assert "ct run --pipeline sales --release-forecast YOUR_NAME" in report.failures[0]
    assert events(passes, PREDICTION) == 0
    assert incidents(passes) == [("implausible_forecast", "open")]
    passes.installation.kept[training.RELEASED] = "Ada"
    released = passes.run()
    assert released.ok, released.failures
    newest = passes.instance.fetch_materializations(PREDICTION, limit=1).records[0].asset_materialization
    assert newest is not None
    assert newest.metadata["released by"].value == "Ada"
    assert incidents(passes) == [("implausible_forecast", "closed")]
    assert [bounds is None for bounds in asked][-1]


def trained(key: dg.AssetKey, installation: Installation, pipeline: Pipeline) -> Iterator[object]:
    """What the step of a training yields, without training."""
    yield dg.MaterializeResult(key, tags={training.INPUTS_TAG: training.inputs_version(installation, pipeline)})
    if key == MODEL:
        yield from training.gate_checks(pipeline).no_evidence("not trained in this test")


def incidents(passes: Passes) -> list[tuple[str, str]]:
    with passes.installation.ledger() as conn:
        return conn.execute("select rule, state from ledger.incident order by incident_id").fetchall()

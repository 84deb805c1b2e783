"""From published days to a champion and its forecasts, against a real ledger; each way to stop leaves the old one."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest

from ct_assets.adapters import champion as pointer
from ct_assets.adapters import forecasts
from ct_assets.adapters.artefacts import ArtefactRefused
from ct_assets.adapters.folds import LedgerFolds
from ct_assets.adapters.retraining import (
    NoChampion,
    Trained,
    TrainingInputs,
    TrainingJob,
    publish_forecasts,
    read_inputs,
    train_candidate,
)
from ct_assets.adapters.storage import LocalStorage
from ct_assets.adapters.training_data import Window
from ct_assets.settings import load
from ct_assets.training.candidate import dataset
from ct_assets.training.gates import GateRules
from ct_assets.training.plausibility import Bounds, ImplausibleForecast
from ct_assets_tests.adapters.published_days import bring, corrected, day_of, sample
from ct_assets_tests.training.panels import START, evaluation, tables

JOB = TrainingJob("demand", "ct_assets.training.demand:recipe", "run-1", code_version="test-1")
NOW = dt.datetime(2011, 6, 1, tzinfo=dt.UTC)
SMALL = "ct_assets_tests.training.test_recipe:small"
WIDE = GateRules(coverage=(0.5, 1.0), artefact_margin=1.0)  # how good the models are is not the question


@pytest.fixture(scope="module")
def inputs() -> TrainingInputs:
    return TrainingInputs(dataset(*tables()), "contract", NOW)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        yield conn


def run(number: int, **changed) -> TrainingJob:
    return dataclasses.replace(JOB, run_id=f"run-{number}", **changed)


def test_a_first_model_leads_with_its_provenance(
    pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn
) -> None:
    made = train_candidate(pg_url, storage, JOB, inputs)
    assert made.promoted, made.reason
    leads = pointer.champion(conn, "demand")
    assert leads is not None
    assert (leads.version, leads.generation, leads.decided_by) == (1, 1, "run run-1")
    (version,) = pointer.versions(conn, "demand")
    found = version.provenance
    assert (found.data_digest, found.contract_digest, found.code_version) == (inputs.data.digest, "contract", "test-1")
    assert (found.cutoff, found.known_as_of, found.seed) == (inputs.data.cutoff, NOW, 7)
    assert version.decision == "promoted"
    assert version.metrics["deviance"] == made.candidate.evaluation.mean("deviance")
    assert {gate["verdict"] for gate in version.gates.values()} == {"pass"}
    assert len(version.recipe["packages"]["installed_sha256"]) == 64
    assert storage.exists(version.artefact.key)


def test_a_repeated_run_is_the_same_version_and_a_refresh_is_the_next(
    pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn
) -> None:
    first = train_candidate(pg_url, storage, JOB, inputs)
    assert train_candidate(pg_url, storage, JOB, inputs).version == first.version == 1
    second = train_candidate(pg_url, storage, run(2), inputs)
    assert (second.version, second.promoted, second.candidate.decision.kind) == (2, True, "refresh")
    assert second.candidate.evaluation.summary() == first.candidate.evaluation.summary()  # trained twice, same metrics
    assert [(m["version"], m["previous"]) for m in pointer.history(conn, "demand")] == [(1, None), (2, 1)]


def test_a_challenger_that_is_not_better_is_kept_and_does_not_lead(
    pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn
) -> None:
    train_candidate(pg_url, storage, JOB, inputs)
    same = train_candidate(pg_url, storage, run(2, seed=8), inputs)  # another seed: another recipe, the same model
    assert same.candidate.decision.kind == "challenger"
    assert not same.promoted
    assert "champion_deviance" in same.reason
    leads = pointer.champion(conn, "demand")
    assert leads is not None
    assert leads.version == 1
    assert [v.decision for v in pointer.versions(conn, "demand")] == ["promoted", "refused"]


def up_to(day: int) -> TrainingInputs:
    """The inputs of a run on day ``day`` of the panel."""
    daily, lines = tables()
    return TrainingInputs(
        dataset(daily.filter(pl.col("day") <= START + dt.timedelta(days=day)), lines), "contract", NOW
    )


def test_a_champion_of_yesterday_is_no_way_around_the_gate_on_models(
    pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn
) -> None:
    """Version 2 has seen every week that can be judged; version 1, which led before it, has not."""
    for number, day in ((1, 85), (2, 98)):
        assert train_candidate(pg_url, storage, run(number, rules=WIDE, trainer=SMALL), up_to(day)).promoted
    third = train_candidate(pg_url, storage, run(3, rules=WIDE, trainer=SMALL), inputs)
    gates = {gate.name: gate for gate in third.candidate.decision.gates}
    for name in ("artefact_deviance", "artefact_wape"):
        assert gates[name].verdict == "pass"
        assert f"against that of version 1 (cut-off {START + dt.timedelta(days=85)})" in gates[name].reason
    (first,) = pointer.versions(conn, "demand", 1)
    storage.put(first.artefact.key, b"damaged")
    fourth = train_candidate(pg_url, storage, run(4, rules=WIDE, trainer=SMALL), inputs)
    assert not fourth.promoted
    assert "the stored model of version 1 could not be judged: ArtefactRefused" in fourth.reason


def test_folds_are_kept_in_the_ledger_and_come_back_equal(conn, pg_url: str) -> None:
    folds, fold = LedgerFolds(conn, "demand"), evaluation().folds[0]
    key = f"recipe:data:{fold.origin}"
    assert key not in folds
    folds[key] = fold
    assert folds[key].rows.equals(fold.rows)
    assert list(folds) == [key]
    other = LedgerFolds(conn, "another")
    assert key not in other
    nan = dataclasses.replace(fold, rows=fold.rows.with_columns(mean=fold.rows["mean"] * float("nan")))
    other[key] = nan
    assert len(other) == 0
    del folds[key]
    assert len(folds) == 0


def test_kept_folds_are_used(pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn) -> None:
    first = train_candidate(pg_url, storage, JOB, inputs)
    assert conn.execute("select count(*) from ledger.evaluation").fetchone() == (4,)
    conn.execute(
        """update ledger.evaluation set measures = jsonb_set(measures, '{rows,mean}',
           (select jsonb_agg(0.0) from jsonb_array_elements(measures -> 'rows' -> 'mean')))"""
    )
    second = train_candidate(pg_url, storage, run(2), inputs)
    assert second.candidate.evaluation.mean("bias") == -1.0 != first.candidate.evaluation.mean("bias")
    assert not second.promoted


def test_a_pointer_that_moved_meanwhile_is_not_overwritten(
    pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_candidate(pg_url, storage, JOB, inputs)
    train_candidate(pg_url, storage, run(2), inputs)
    register = pointer.register

    def meanwhile(own: psycopg.Connection, candidate: pointer.Candidate) -> int:
        pointer.move(conn, pointer.Move("demand", 1, 2, "somebody", "rolled back"))
        return register(own, candidate)

    monkeypatch.setattr(pointer, "register", meanwhile)
    with pytest.raises(pointer.PointerMoved, match="expected generation 2"):
        train_candidate(pg_url, storage, run(3), inputs)
    leads = pointer.champion(conn, "demand")
    assert leads is not None
    assert (leads.version, leads.decided_by) == (1, "somebody")
    assert len(pointer.versions(conn, "demand")) == 2  # one transaction: no version without its decision


def test_forecasts_are_the_champions_and_stay_when_it_cannot_be_loaded(
    pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn
) -> None:
    with pytest.raises(NoChampion, match="no version passed its gates"):
        publish_forecasts(pg_url, storage, JOB, inputs)
    made: Trained = train_candidate(pg_url, storage, JOB, inputs)
    told = publish_forecasts(pg_url, storage, JOB, inputs)
    assert (told["model_version"], told["as_of"], told["rows"]) == (1, inputs.data.cutoff, 6 * told["products"])
    shown = {row["stock_code"]: row["mean"] for row in _totals(conn)}
    from ct_assets.training.candidate import forecast

    want = forecast(made.candidate.fitted, inputs.data.panel).totals
    assert shown == dict(want.select("stock_code", "mean").iter_rows())
    (version,) = pointer.versions(conn, "demand")
    storage.put(version.artefact.key, b"something else")
    with pytest.raises(ArtefactRefused, match="sha256"):
        publish_forecasts(pg_url, storage, JOB, inputs)
    assert {row["stock_code"]: row["mean"] for row in _totals(conn)} == shown
    current = forecasts.current(conn, "demand")
    assert current is not None
    assert current["model_version"] == 1


def test_a_forecast_beyond_its_bounds_is_not_published_unless_released(
    pg_url: str, storage: LocalStorage, inputs: TrainingInputs, conn
) -> None:
    train_candidate(pg_url, storage, JOB, inputs)
    assert publish_forecasts(pg_url, storage, dataclasses.replace(JOB, bounds=Bounds()), inputs)["rows"] > 0
    shown = _totals(conn)
    narrow = dataclasses.replace(JOB, bounds=Bounds(total=(0.0, 0.1)))
    with pytest.raises(ImplausibleForecast, match=r"0 to 0\.1 times that is published"):
        publish_forecasts(pg_url, storage, narrow, inputs)
    first = forecasts.current(conn, "demand")
    assert _totals(conn) == shown
    publish_forecasts(pg_url, storage, dataclasses.replace(JOB, bounds=None), inputs)
    second = forecasts.current(conn, "demand")
    assert first is not None
    assert second is not None
    assert second["forecast_id"] > first["forecast_id"]


def _totals(conn: psycopg.Connection) -> list[dict]:
    rows = conn.execute("select stock_code, mean from prediction.demand_total order by 1").fetchall()
    return [dict(zip(("stock_code", "mean"), row, strict=True)) for row in rows]


def test_the_whole_way_from_delivered_files(tmp_path: Path, pg_url: str, storage: LocalStorage) -> None:
    settings = load({"CT_HOME": str(tmp_path / "home"), "CT_DATABASE_URL": pg_url, "CT_CODE_VERSION": "test-1"})
    files = sample(tmp_path / "sample", days=75, products=80)
    bring(settings, files)
    inputs = read_inputs(pg_url)
    assert inputs.data.cutoff.isoformat() == files[-1].name[:10]
    assert len(inputs.contract_digest) == 64
    made = train_candidate(pg_url, storage, JOB, inputs)
    measured = made.candidate.evaluation
    assert measured.mean("deviance") < min(
        measured.mean("deviance", b) for b in ("mean_28", "croston_tsb", "last_week")
    )
    assert measured.mean("wape") < min(measured.mean("wape", b) for b in ("mean_28", "median_28", "last_week"))

    bring(settings, [corrected(files[20], tmp_path / "again")])  # published long after every fold's origin
    later = read_inputs(pg_url)
    assert later.data.digest != inputs.data.digest  # the refit learns from the correction
    assert [fold.digest for fold in later.data.folds] == [fold.digest for fold in inputs.data.folds]
    day, column = later.data.panel.index(day_of(files[20])), "units"
    for fold in later.data.folds:
        then, now = (panel.measures[column][:, day].sum() for panel in (fold.panel, later.data.panel))
        assert now > 2 * then  # three times the sales, but for what is no plain number
    again = train_candidate(pg_url, storage, run(2), later)
    assert again.candidate.evaluation.summary() == measured.summary()  # kept, none computed again
    asked = read_inputs(pg_url, Window(reading="corrected"))
    assert asked.data.digest == later.data.digest
    assert not {fold.digest for fold in asked.data.folds} & {fold.digest for fold in inputs.data.folds}

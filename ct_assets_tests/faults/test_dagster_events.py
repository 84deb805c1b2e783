"""F02, F40, F41 between the database and Dagster: nothing told that is not so, nothing that is so left untold."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from ct_assets.adapters import ledger
from ct_assets.adapters.storage import open_storage
from ct_assets.orchestration.instance import open_instance
from ct_assets.settings import Settings, load
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.passes import CLEAN, FEATURES, Passes
from ct_assets_tests.orchestration.test_sensors import tick

DAYS = [dt.date(2011, 1, day) for day in (7, 9, 10)]
ISO = [day.isoformat() for day in DAYS]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def passes(settings: Settings) -> Iterator[Passes]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Passes(settings, instance)


def publications(conn: psycopg.Connection) -> list[tuple[str, int]]:
    """(day, revision) of everything that was ever published."""
    rows = conn.execute("select day, revision from ledger.publication order by day, revision").fetchall()
    return [(day.isoformat(), revision) for day, revision in rows]


@pytest.mark.slow
@pytest.mark.fault("F02")
def test_f02_killed_between_commit_and_event_is_told_by_the_next_run(
    ct_home: Path, pg_url: str, conn: psycopg.Connection, tmp_path: Path
):
    environment = {"CT_HOME": str(ct_home), "CT_DATABASE_URL": pg_url, "CT_CODE_VERSION": "test-1"}
    settings = load(environment)
    Passes(settings, dg.DagsterInstance.ephemeral()).deliver(*(write_day(tmp_path, day) for day in DAYS))
    victim = subprocess.run(
        [sys.executable, "-c", "from ct_assets.cli.main import main; main(['run', '--pipeline', 'sales'])"],
        cwd=ROOT, env={**os.environ, **environment, "CT_CRASH_AT": "committed"}, capture_output=True, check=False,
    )  # fmt: skip
    assert victim.returncode == -signal.SIGKILL, victim.stderr.decode()
    assert publications(conn) == [(ISO[0], 1)], "the fault: one day is committed"
    with open_instance(settings) as instance:
        passes = Passes(settings, instance)
        assert passes.told(CLEAN) == [], "... and Dagster was not told"
        assert passes.run().ok
        assert passes.told(CLEAN) == ISO
        assert passes.green(FEATURES) == set(ISO)
    assert publications(conn) == [(day, 1) for day in ISO], "no second write"


@pytest.mark.fault("F02")
def test_f02_an_event_lost_after_everything_was_decided_is_told_although_nothing_is_pending(
    passes: Passes, settings: Settings, conn: psycopg.Connection, tmp_path: Path
):
    from ct_assets.orchestration import stages

    passes.deliver(write_day(tmp_path, DAYS[0]))
    stages.bring_in(passes.installation, passes.pipeline.spec, DAYS, lambda _: None)
    assert not ledger.deliveries(conn, "sales", "pending")
    assert passes.told(CLEAN) == []
    report = passes.run()
    assert passes.told(CLEAN) == ISO[:1]
    assert report.decided == {}
    assert passes.run().nothing_new


@pytest.mark.fault("F40")
def test_f40_duplicate_ticks_and_a_lost_cursor_ask_for_the_same_run(passes: Passes, tmp_path: Path):
    passes.deliver(*(write_day(tmp_path, day) for day in DAYS))
    first, second = (tick(passes, "sales_landing") for _ in range(2))
    assert len(first) == 1
    assert [r.run_key for r in first] == [r.run_key for r in second], "Dagster starts a run key once"
    job = passes.defs.resolve_job_def("sales_data")
    for request in (*first, *second):  # two daemons that ran it nevertheless
        assert job.execute_in_process(instance=passes.instance, tags=dict(request.tags)).success
    assert passes.told(CLEAN) == ISO
    assert tick(passes, "sales_landing") == []


@pytest.mark.fault("F40")
def test_f40_the_run_key_does_not_depend_on_the_order_and_changes_with_the_set(passes: Passes, tmp_path: Path):
    from ct_assets.adapters.landing import pending
    from ct_assets.orchestration.sensors import run_key

    passes.deliver(*(write_day(tmp_path, day) for day in DAYS))
    with passes.installation.ledger() as conn:
        found = pending(conn, "sales")
    now = found[0].received_at
    assert run_key(found, {}, now) == run_key(found[::-1], {}, now)
    assert run_key(found, {}, now) != run_key(found[:2], {}, now)


@pytest.mark.fault("F41")
def test_f41_only_the_failed_day_is_resumed_and_training_waits(
    passes: Passes, settings: Settings, conn: psycopg.Connection, tmp_path: Path
):
    delivered = passes.deliver(*(write_day(tmp_path, day) for day in DAYS))
    storage, key = open_storage(settings), ledger.raw_key(delivered[1].sha256)
    bytes_of_the_day = storage.get(key)
    storage.delete(key)
    report = passes.run()
    assert len(report.failures) >= 1, "the fault: one day could not be read"
    assert passes.green(CLEAN) == {ISO[0], ISO[2]}, "the other days are published and told"
    assert passes.green(FEATURES) == set()
    assert report.training is None, "training waits"
    assert len(report.runs) == 1
    states = "select partition, state, attempts from ledger.run_plan where step = 'publish' order by partition"
    assert [(state, attempts) for _, state, attempts in conn.execute(states).fetchall()] == [
        ("done", 1), ("failed", 1), ("done", 1)
    ]  # fmt: skip
    storage.put(key, bytes_of_the_day)
    assert passes.run().ok
    assert [(state, attempts) for _, state, attempts in conn.execute(states).fetchall()] == [
        ("done", 1), ("done", 2), ("done", 1)
    ]  # fmt: skip
    assert sorted(passes.told(CLEAN)) == ISO
    assert passes.green(FEATURES) == set(ISO)
    assert publications(conn) == [(day, 1) for day in ISO]

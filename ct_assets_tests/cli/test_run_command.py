"""`ct run` as scripts see it, `dagster asset materialize` beside it, and `ct ui` that leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psycopg
import pytest

from ct_assets.orchestration.instance import dagster_environment
from ct_assets.settings import load
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.test_run_loop import FRIDAY, MONDAY, SUNDAY

ROOT = Path(__file__).resolve().parents[2]
CT = [sys.executable, "-c", "from ct_assets.cli.main import main; main()"]


@pytest.fixture
def environment(ct_home: Path, pg_url: str) -> dict[str, str]:
    return {**os.environ, "CT_HOME": str(ct_home), "CT_DATABASE_URL": pg_url, "CT_CODE_VERSION": "test-1"}


def ct(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CT, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_ways_a_run_ends(environment: dict[str, str], tmp_path: Path):
    unknown = ct(environment, "run", "--pipeline", "sale")
    assert (unknown.returncode, "did you mean 'sales'?" in unknown.stderr) == (2, True)
    empty = ct(environment, "run", "--pipeline", "sales", "--json")
    assert empty.returncode == 0, empty.stderr
    assert json.loads(empty.stdout)["nothing_new"] is True
    wrong = write_day(tmp_path, SUNDAY)
    wrong.write_text(wrong.read_text().replace("Quantity", "Qty", 1))
    assert ct(environment, "deliver", "--pipeline", "sales", write_day(tmp_path, FRIDAY), wrong).returncode == 0
    rejected = ct(environment, "run", "--pipeline", "sales", "--json")
    assert rejected.returncode == 1
    report = json.loads(rejected.stdout)
    assert report["days"] == {"published": [FRIDAY.isoformat()], "rejected": [SUNDAY.isoformat()]}
    assert "REJECTED 2011-01-09.csv" in rejected.stderr
    assert "'Qty'" in rejected.stderr
    again = ct(environment, "run", "--pipeline", "sales")
    assert (again.returncode, "nothing new was delivered" in again.stdout) == (0, True)
    assert (
        "STANDING 1 open incidents from earlier, 1 of them rejected deliveries: 2011-01-09 missing_column"
        in again.stderr
    )
    assert "`ct status --pipeline sales`" in again.stderr
    assert "STANDING" not in rejected.stderr, "the run that rejects it says REJECTED"
    plan = ct(environment, "deliver", "--pipeline", "sales", "--rejected", "--json")
    assert [json.loads(line)["rule"] for line in plan.stdout.splitlines()] == ["missing_column"]
    assert "1 rejected deliveries would be judged again: add --yes" in plan.stderr
    assert "nothing new was delivered" in ct(environment, "run", "--pipeline", "sales").stdout, "a plan changes nothing"
    assert ct(environment, "deliver", "--pipeline", "sales", "--rejected", "--yes").returncode == 0
    assert ct(environment, "run", "--pipeline", "sales").returncode == 1, (
        "the contract is the same, and so is the verdict"
    )
    status = json.loads(ct(environment, "status", "--pipeline", "sales", "--json").stdout)
    assert [(row["day"], row["rule"]) for row in status["incidents"]] == [("2011-01-09", "missing_column")]


@pytest.mark.slow
def test_dagster_materializes_one_partition_from_the_command_line(
    environment: dict[str, str], pg_url: str, tmp_path: Path
):
    ct(environment, "deliver", "--pipeline", "sales", write_day(tmp_path, FRIDAY), write_day(tmp_path, MONDAY))
    dagster = Path(sys.executable).with_name("dagster")
    settings = load({name: value for name, value in environment.items() if name.startswith("CT_")})
    done = subprocess.run(
        [str(dagster), "asset", "materialize", "-m", "ct_assets.definitions", "--select", "clean/sales/sales_lines*", "--partition", FRIDAY.isoformat()],
        cwd=ROOT, env={**environment, **dagster_environment(settings)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with psycopg.connect(pg_url) as conn:
        days = conn.execute("select day from ledger.publication").fetchall()
        told = conn.execute(
            "select asset_key, partition from event_logs where dagster_event_type = 'ASSET_MATERIALIZATION'"
        ).fetchall()
    assert days == [(FRIDAY,)], "the other day was delivered but not asked for"
    wanted = ("clean/sales/sales_lines", "clean/sales/daily_product_sales", "feature/sales/product_daily")
    assert {("/".join(json.loads(key)), day) for key, day in told if day} == {
        (key, FRIDAY.isoformat()) for key in wanted
    }


@pytest.mark.slow
def test_the_ui_answers_and_leaves_nothing_running(environment: dict[str, str]):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*CT, "ui", "--port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as ui:
        try:
            wait_for(f"http://127.0.0.1:{port}/server_info", ui)
            group = children(ui.pid)
            assert group
        finally:
            ui.send_signal(signal.SIGTERM)
            assert ui.wait(60) == 0
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in group) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [pid for pid in group if alive(pid)] == []


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "ct ui ended"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {url}")


def children(pid: int) -> list[int]:
    """All descendants of a process, by what the kernel lists."""
    found, todo = [], [pid]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            todo += (direct := [int(word) for word in task.read_text().split()])
            found += direct
    return found


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False

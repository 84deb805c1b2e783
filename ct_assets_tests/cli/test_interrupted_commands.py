"""Commands that are interrupted, lose their database, or lose their reader: nothing is lost and one sentence says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.landing import Landing
from ct_assets.adapters.postgres.server import Server
from ct_assets.cli.interrupts import lost_connection
from ct_assets.settings import load
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.test_run_loop import FRIDAY, MONDAY, SUNDAY

ROOT = Path(__file__).resolve().parents[2]
CT = [sys.executable, "-c", "from ct_assets.cli.main import main; main()"]
DAYS = (FRIDAY, SUNDAY, MONDAY)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with an embedded server of its own, which these tests kill."""
    folder = Path(tempfile.mkdtemp(prefix="ct-killed-"))
    folder.chmod(0o755)
    yield folder
    server = Server(folder)
    base = server.base
    server.stop()
    shutil.rmtree(folder)
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CT_")}
    return {**kept, "CT_HOME": str(home), "CT_CODE_VERSION": "test-1"}


def ct(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CT, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def deliver_days(environment: dict[str, str], folder: Path) -> None:
    done = ct(environment, "deliver", "--pipeline", "sales", *[write_day(folder, day) for day in DAYS])
    assert done.returncode == 0, done.stderr


def run_until(environment: dict[str, str], line: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start `ct run` and wait until it has said ``line``."""
    process = subprocess.Popen(
        [*CT, "run", "--pipeline", "sales"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said: list[str] = []
    for text in process.stderr:
        said.append(text)
        if line in text:
            return process, said
    raise AssertionError(f"{line!r} was never said: {said}")


def ended(process: subprocess.Popen[str], said: list[str]) -> tuple[int, str]:
    _, rest = process.communicate(timeout=180)
    return process.returncode, "".join(said) + rest


def published(home: Path) -> int:
    with psycopg.connect(Server(home).ensure()) as conn:
        found = conn.execute("select count(*) from ledger.publication").fetchone()
    assert found is not None
    return found[0]


def kill_server(home: Path) -> None:
    found = Server(home).running()
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_whose_embedded_server_is_killed_goes_on(environment: dict[str, str], home: Path, tmp_path: Path):
    deliver_days(environment, tmp_path)
    process, said = run_until(environment, "3 deliveries")
    kill_server(home)
    code, text = ended(process, said)
    assert (code, published(home)) == (0, 3), text
    assert text.count("started again") == 1, text
    assert "Traceback" not in text, text
    assert "Retrying failed database connection" not in text, text


@pytest.mark.slow
def test_ctrl_c_says_what_was_reached_and_the_next_run_goes_on(environment: dict[str, str], home: Path, tmp_path: Path):
    deliver_days(environment, tmp_path)
    process, said = run_until(environment, "3 deliveries")
    process.send_signal(signal.SIGINT)
    code, text = ended(process, said)
    assert code == 130, text
    assert "of 3 deliveries are decided, nothing half is visible; `ct run --pipeline sales` goes on" in text
    assert "Traceback" not in text, text
    again = ct(environment, "run", "--pipeline", "sales")
    assert (again.returncode, published(home)) == (0, 3), again.stderr


def test_the_second_ctrl_c_ends_at_once_whoever_replaced_the_handler():
    program = (
        "import signal, sys, time\n"
        "from ct_assets.cli.interrupts import second_ends_at_once\n"
        "signal.signal(signal.SIGINT, lambda *_: print('first', flush=True))\n"
        "with second_ends_at_once():\n"
        "    print('ready', flush=True)\n"
        "    while True: time.sleep(0.05)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "first\n", "the first one is the command's own affair"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "ended at once" in process.stderr.read()


def test_a_reader_that_goes_away_does_not_stop_a_delivery(ct_home: Path, pg_url: str, tmp_path: Path):
    environment = {**os.environ, "CT_HOME": str(ct_home), "CT_DATABASE_URL": pg_url}
    files = [str(write_day(tmp_path, day)) for day in DAYS]
    with subprocess.Popen(
        [*CT, "deliver", "--pipeline", "sales", "--json", *files],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) == 0, said
    with psycopg.connect(pg_url) as conn:
        days = [row[0] for row in conn.execute("select day from ledger.delivery order by delivery_id")]
    assert days == list(DAYS), "exit 0 means that every file was delivered"


@pytest.mark.slow
def test_a_delivery_whose_embedded_server_is_killed_goes_on(
    environment: dict[str, str], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = load({name: value for name, value in environment.items() if name.startswith("CT_")})
    with Landing(settings, "sales") as landing:
        assert landing.take_in(write_day(tmp_path, FRIDAY)).new
        kill_server(home)
        assert landing.take_in(write_day(tmp_path, SUNDAY)).new
        assert not landing.take_in(tmp_path / f"{FRIDAY}.csv").new, "the first one was not lost"


@pytest.mark.slow
def test_two_runs_of_a_pipeline_take_turns(ct_home: Path, pg_url: str, tmp_path: Path):
    environment = {**os.environ, "CT_HOME": str(ct_home), "CT_DATABASE_URL": pg_url, "CT_CODE_VERSION": "test-1"}
    deliver_days(environment, tmp_path)
    with psycopg.connect(pg_url, autocommit=True) as other:
        other.execute("select pg_advisory_lock(hashtextextended('ct run sales', 0))")
        process, said = run_until(environment, "another `ct run` of sales is at work")
        assert other.execute("select count(*) from ledger.publication").fetchone() == (0,)
        other.execute("select pg_advisory_unlock_all()")
        code, text = ended(process, said)
        assert code == 0, text
        assert other.execute("select count(*) from ledger.publication").fetchone() == (3,)


def test_a_lost_connection_is_told_in_one_sentence():
    broken = RuntimeError("step failed")
    broken.__cause__ = psycopg.OperationalError("server closed the connection unexpectedly\nmore")
    told = lost_connection(broken)
    assert told is not None
    assert told.message == "the connection to PostgreSQL was lost: step failed"
    assert "run the same command again" in (told.hint or "")
    assert lost_connection(ValueError("something else")) is None
    assert lost_connection(psycopg.ProgrammingError("syntax error")) is None


@pytest.mark.slow
def test_doctor_names_a_home_that_is_a_file_once_and_still_loads_the_pipelines(tmp_path: Path):
    home = tmp_path / "home"
    home.write_text("not a folder")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CT_")}
    done = ct({**environment, "CT_HOME": str(home)}, "doctor", "--json")
    found = {row["check"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert found["home"]["state"] == "fail"
    assert f"CT_HOME is {home}, expected a folder: it is a file" in found["home"]["message"]
    assert found["schema"]["message"] == "not known: see server"
    assert found["pipelines"]["state"] == "ok"
    assert "assets" in found["pipelines"]["message"]
    status = ct({**environment, "CT_HOME": str(home)}, "status")
    assert (status.returncode, "Traceback" in status.stderr) == (1, False)
    assert "set CT_HOME to a folder you may write to" in status.stderr

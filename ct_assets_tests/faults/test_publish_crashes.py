"""Publishing while things die: processes, connections, the server, the disk. Real ones, at named points.

Why every test names the point at which the fault fires: a fault that fires before the first write proves nothing.
"""

from __future__ import annotations

import datetime as dt
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters import landing, ledger
from ct_assets.adapters.crash import DELIVERY_POINTS, UNCOMMITTED_POINTS, crash_at
from ct_assets.adapters.datasets import PublishedDataset, pipeline_dataset
from ct_assets.adapters.ledger import Delivery
from ct_assets.adapters.postgres.connect import connect, with_retry
from ct_assets.adapters.postgres.migrate import prepared_url
from ct_assets.adapters.postgres.processes import read_pid_file
from ct_assets.adapters.postgres.server import Server
from ct_assets.adapters.publish import publish_delivery
from ct_assets.adapters.storage import StorageError, open_storage
from ct_assets.errors import UsageError
from ct_assets.settings import Settings
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.faults.soak_kill import run_victim, soak, visible
from ct_assets_tests.faults.soak_sales import compare, write_file

DAY = dt.date(2011, 1, 4)


def deliver(settings: Settings, path: Path) -> Delivery:
    """Take a file in and return its ledger row."""
    delivered = landing.deliver(settings, "sales", [path])[0]
    with connect(prepared_url(settings)) as conn:
        found = ledger.delivery(conn, delivered.delivery_id)
    assert found is not None
    return found


def environ(settings: Settings) -> dict[str, str]:
    """The settings as the environment of another process."""
    assert settings.ledger_url is not None
    return {"CT_HOME": str(settings.home), "CT_DATABASE_URL": settings.ledger_url, "CT_CODE_VERSION": "test-1"}


def large_day(folder: Path, day: dt.date = DAY) -> Path:
    """A file of more than one block, so that COPY is under way when the second block comes."""
    import random

    folder.mkdir(exist_ok=True)
    path = folder / f"{day}.csv"
    write_file(path, day, 90_000, random.Random(1))
    return path


@pytest.mark.fault("F01")
@pytest.mark.parametrize("point", [p for p in DELIVERY_POINTS if p != "rejected"])
def test_f01_killed_at_any_point_a_restart_ends_the_same(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path, point: str
) -> None:
    from ct_assets.adapters.tables import ensure_tables

    ensure_tables(conn, sales)
    publish_delivery(settings, sales, deliver(settings, write_day(tmp_path / "old", DAY, good=20)))
    path = large_day(tmp_path / "new") if point == "more_rows" else write_day(tmp_path / "new", DAY, good=25)
    delivery, before = deliver(settings, path), None
    before = visible(conn)
    died = run_victim(environ(settings), delivery.delivery_id, point)
    assert (died.returncode, died.stdout.strip()) == (-signal.SIGKILL, f"killed at {point}"), died.stderr
    assert (visible(conn) == before) == (point != "committed")
    again = publish_delivery(settings, sales, delivery)
    assert (again.state, again.fresh) == ("published", point != "committed")
    assert compare(conn, {DAY: path}) == []
    assert [p.revision for p in ledger.history(conn, "sales_lines", DAY)] == [1, 2]
    orphans = (
        "select count(*) from store.sales_lines where _revision_id not in (select revision_id from ledger.publication)"
    )
    assert conn.execute(orphans).fetchone() == (0,)


@pytest.mark.fault("F01")
def test_f01_killed_after_a_rejection(settings: Settings, conn: psycopg.Connection, tmp_path: Path) -> None:
    delivery = deliver(settings, write_day(tmp_path, DAY, good=10, bad=5))
    died = run_victim(environ(settings), delivery.delivery_id, "rejected")
    assert died.returncode == -signal.SIGKILL
    assert run_victim(environ(settings), delivery.delivery_id).stdout.split() == ["rejected", "known"]
    assert conn.execute("select occurrences from ledger.incident").fetchall() == [(1,)]


@pytest.mark.fault("F01")
def test_f01_the_switch_in_the_settings_kills_and_knows_its_points(tmp_path: Path) -> None:
    code = "from ct_assets.adapters.crash import crash_at; c = crash_at('copied'); c('locked'); print('alive', flush=True); c('copied'); print('no')"
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (died.returncode, died.stdout.split()) == (-signal.SIGKILL, ["alive"])
    with pytest.raises(UsageError, match="did you mean 'copied'"):
        crash_at("copyed")
    crash_at(None)("copied")


@pytest.mark.fault("F02")
def test_f02_killed_between_commit_and_the_event(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """Whoever comes next finds the publication, may report it again, and writes nothing."""
    delivery = deliver(settings, write_day(tmp_path, DAY))
    died = run_victim(environ(settings), delivery.delivery_id, "committed")
    assert died.stdout.strip() == "killed at committed"
    after_kill = visible(conn)
    with connect(prepared_url(settings)) as other:
        assert landing.pending(other, "sales") == []
        assert ledger.publication_of(other, delivery.delivery_id) is not None
    again = publish_delivery(settings, sales, delivery)
    assert not again.fresh
    assert again.publication is not None
    assert again.verdict["rows"]["good"] == again.publication.rows["good"] == 30
    assert visible(conn) == after_kill


def _once(point: str, act: Callable[[], None]) -> tuple[Callable[[str], None], list[str]]:
    """A crash function that acts at the first passing of ``point``, and the list of what fired."""
    fired: list[str] = []

    def crash(passing: str) -> None:
        if passing == point and not fired:
            fired.append(passing)
            act()

    return crash, fired


@pytest.mark.fault("F03")
@pytest.mark.parametrize("point", ["first_rows", "copied", "recorded"])
def test_f03_the_connection_is_cut(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path, point: str
) -> None:
    path = large_day(tmp_path / "day")

    def cut() -> None:
        ended = conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'ct-assets' and datname = current_database()"
        )
        assert (True,) in ended.fetchall()

    crash, fired = _once(point, cut)
    decision = publish_delivery(settings, sales, deliver(settings, path), crash=crash)
    assert fired == [point]
    assert decision.state == "published"
    assert decision.fresh
    assert compare(conn, {DAY: path}) == []
    assert conn.execute("select count(*) from ledger.publication").fetchone() == (1,)


@pytest.mark.fault("F03")
@pytest.mark.parametrize("point", ["first_rows", "recorded"])
@pytest.mark.parametrize("how", ["restart", "kill -9"])
def test_f03_the_server_goes_away(own_server: Settings, tmp_path: Path, point: str, how: str) -> None:
    """Mid-COPY and mid-publish: rolled back, the embedded server started again, one publication."""
    server, path = Server(own_server.home), large_day(tmp_path / "day")

    def act() -> None:
        if how == "restart":
            server.stop()
            server.ensure()
        else:
            postmaster = read_pid_file(server.data)
            assert postmaster is not None
            os.kill(postmaster.pid, signal.SIGKILL)
            while server.running() is not None:
                pass

    delivery = deliver(own_server, path)
    crash, fired = _once(point, act)
    decision = publish_delivery(own_server, pipeline_dataset("sales", own_server), delivery, crash=crash)
    assert fired == [point]
    assert (decision.state, decision.fresh) == ("published", True)
    with connect(prepared_url(own_server)) as conn:
        assert compare(conn, {DAY: path}) == []
        assert conn.execute("select count(*) from ledger.publication").fetchone() == (1,)


@pytest.mark.fault("F03")
def test_f03_retries_are_bounded_and_only_for_what_passes() -> None:
    from ct_assets.adapters.clock import FixedClock

    clock, tried = FixedClock(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), []

    def broken() -> None:
        tried.append(clock.at)
        raise psycopg.OperationalError("the connection is closed")

    with pytest.raises(psycopg.OperationalError):
        with_retry(broken, attempts=4, clock=clock)
    assert len(tried) == 4
    assert len(set(tried)) == 4
    assert (tried[-1] - tried[0]).total_seconds() < 6

    def full() -> None:
        tried.append(clock.at)
        raise psycopg.errors.DiskFull("no space left on device")

    tried.clear()
    with pytest.raises(psycopg.errors.DiskFull):
        with_retry(full, clock=clock)
    assert len(tried) == 1


@pytest.mark.fault("F37")
def test_f37_two_runs_of_one_delivery_publish_once(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The second waits for the first's lock (asserted), then finds the delivery decided and does nothing."""
    delivery = deliver(settings, write_day(tmp_path, DAY))
    second: list = []
    other = threading.Thread(target=lambda: second.append(publish_delivery(settings, sales, delivery)))
    waiting: list[bool] = []

    def start_other() -> None:
        other.start()
        for _ in range(1000):
            row = conn.execute(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())"
            ).fetchone()
            if row == (1,):
                waiting.append(True)
                return
            threading.Event().wait(0.01)

    crash, fired = _once("first_rows", start_other)
    first = publish_delivery(settings, sales, delivery, crash=crash)
    other.join(30)
    assert fired
    assert waiting == [True]
    assert (first.fresh, second[0].fresh) == (True, False)
    assert first.publication == second[0].publication
    assert conn.execute("select count(*) from clean.sales_lines").fetchone() == (30,)


@pytest.mark.fault("F37")
def test_f37_two_deliveries_of_one_day_at_once_become_two_revisions(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """Each rests before it takes its revision's number; the rollup exists already (making it would queue them anyway)."""
    publish_delivery(settings, sales, deliver(settings, write_day(tmp_path / "first", DAY, good=19)))
    paths = [write_day(tmp_path / str(i), DAY, good=20 + i) for i in range(4)]
    deliveries = [deliver(settings, path) for path in paths]
    decisions: list = []
    rested: list[str] = []

    def rest(point: str) -> None:
        if point == "compared":
            rested.append(point)
            threading.Event().wait(0.3)

    threads = [
        threading.Thread(target=lambda d=d: decisions.append(publish_delivery(settings, sales, d, crash=rest)))
        for d in deliveries
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(rested) == 4
    assert sorted(d.publication.revision for d in decisions) == [2, 3, 4, 5]
    last = max(decisions, key=lambda d: d.publication.revision)
    shown = {row[0] for row in conn.execute("select distinct _revision_id from clean.sales_lines")}
    assert shown == {last.publication.revision_id}


@pytest.mark.fault("F37")
def test_f37_the_table_itself_refuses_two_visible_revisions(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    publish_delivery(settings, sales, deliver(settings, write_day(tmp_path / "a", DAY)))
    publish_delivery(settings, sales, deliver(settings, write_day(tmp_path / "b", DAY, good=31)))
    with pytest.raises(psycopg.errors.UniqueViolation, match="publication_current"):
        conn.execute("update ledger.publication set superseded_at = null")


@pytest.mark.fault("F39")
def test_f39_a_full_disk_in_the_landing_area(settings: Settings, conn: psycopg.Connection, tmp_path: Path) -> None:
    """A real limit of the operating system on file size, in a process of its own: clean failure, nothing left, resumes."""
    path = large_day(tmp_path / "day")
    code = (
        "import resource, signal, sys, pathlib; from ct_assets.adapters.landing import deliver; from ct_assets.settings import load\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "deliver(load(), 'sales', [pathlib.Path(sys.argv[1])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        env=os.environ | environ(settings),
        check=False,
    )
    assert done.returncode == 1
    assert "StorageError: cannot write 'raw/" in done.stderr
    assert conn.execute("select count(*) from ledger.delivery").fetchone() == (0,)
    root = settings.home / "storage"
    assert [p for p in root.rglob("*") if p.is_file()] == []
    assert landing.deliver(settings, "sales", [path])[0].new


@pytest.mark.fault("F39")
def test_f39_no_space_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(settings)
    storage.put("k", b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ct_assets.adapters.storage.os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full: free space"):
        storage.put("k", b"new")
    monkeypatch.undo()
    assert storage.get("k") == b"old"


def _limit_file_size(pid: int, size: int) -> None:
    """Limit a running process from a process of the same account (root may lack the right to do it across accounts)."""
    code = (
        "import os, resource, sys\n"
        "pid, size = int(sys.argv[1]), int(sys.argv[2]); owner = os.stat(f'/proc/{pid}')\n"
        "if os.geteuid() != owner.st_uid: os.setgroups([]); os.setgid(owner.st_gid); os.setuid(owner.st_uid)\n"
        "hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]\n"
        "resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))"
    )
    subprocess.run([sys.executable, "-c", code, str(pid), str(size)], check=True, capture_output=True)


@pytest.mark.fault("F39")
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process: Linux only")
@pytest.mark.parametrize(("point", "size"), [("first_rows", 1 << 20), ("copied", 1 << 13)])
def test_f39_the_database_cannot_extend_its_file(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path, point: str, size: int
) -> None:
    """The backend hits a real limit mid-COPY, or after it; nothing stays, and once there is room the same call publishes."""
    path = large_day(tmp_path / "day")
    delivery = deliver(settings, path)

    def limit() -> None:
        row = conn.execute(
            "select pid from pg_stat_activity where application_name = 'ct-assets' and datname = current_database()"
        ).fetchone()
        assert row is not None
        _limit_file_size(row[0], size)

    crash, fired = _once(point, limit)
    with pytest.raises(psycopg.Error, match=r"could not (extend|write)"):
        publish_delivery(settings, sales, delivery, crash=crash)
    assert fired
    assert conn.execute(
        "select (select count(*) from store.sales_lines), (select count(*) from ledger.publication)"
    ).fetchone() == (0, 0)
    assert publish_delivery(settings, sales, delivery).state == "published"
    assert compare(conn, {DAY: path}) == []


@pytest.mark.slow
@pytest.mark.fault("F01")
def test_f01_a_share_of_the_kill_soak(settings: Settings, sales: PublishedDataset, tmp_path: Path) -> None:
    """A dozen of the hundred kills of `make soak`, one at each point; the seed is fixed here and printed there."""
    outcome = soak(environ(settings), tmp_path, kills=len(UNCOMMITTED_POINTS), seed=20110104)
    assert outcome.differences == []
    assert outcome.kills == 13
    assert outcome.hits == dict.fromkeys(UNCOMMITTED_POINTS, 1)
    assert len(outcome.runs) >= 2
    assert len(outcome.forecasts) >= 2

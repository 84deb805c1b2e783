"""The embedded server with real processes: killed, raced, misled by stale files, run as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.postgres import location, server
from ct_assets.adapters.postgres.processes import read_pid_file, working_on
from ct_assets.adapters.postgres.server import Server

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")
ENSURE = "import sys, pathlib; from ct_assets.adapters.postgres.server import Server; print(Server(pathlib.Path(sys.argv[1])).ensure())"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home folder whose server is stopped, and whose data is removed, whatever the test did."""
    home = tmp_path / "home"
    yield home
    found = Server(home)
    base = found.base
    found.stop()
    shutil.rmtree(base, ignore_errors=True)


def _ensure_elsewhere(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _answer(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.strip().splitlines()[-1]


def _value(url: str, query: str) -> object:
    with psycopg.connect(url) as conn:
        row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_started_once_then_attached(home: Path) -> None:
    first = Server(home).ensure()
    pid = read_pid_file(Server(home).data)
    assert Server(home).ensure() == first
    assert read_pid_file(Server(home).data) == pid
    assert _value(first, "select current_database()") == "ct"
    assert _value(Server(home).ensure("dagster"), "select current_database()") == "dagster"


def test_the_url_works_in_another_process_with_every_client(home: Path) -> None:
    """It outlives the command that started it."""
    url = _answer(_ensure_elsewhere(home))
    code = (
        "import sys, psycopg, psycopg2, sqlalchemy, adbc_driver_postgresql.dbapi as adbc\n"
        "u = sys.argv[1]; got = []\n"
        "with psycopg.connect(u) as c: got.append(c.execute('select 7').fetchone()[0])\n"
        "c = psycopg2.connect(u); k = c.cursor(); k.execute('select 7'); got.append(k.fetchone()[0]); c.close()\n"
        "e = sqlalchemy.create_engine(u)\n"
        "with e.connect() as c: got.append(c.execute(sqlalchemy.text('select 7')).scalar())\n"
        "e.dispose()\n"
        "with adbc.connect(u) as c, c.cursor() as k: k.execute('select 7'); got.append(k.fetchone()[0])\n"
        "print(got)"
    )
    misled = {**os.environ, "PGPORT": "1", "PGUSER": "nobody-here", "PGHOST": "nowhere.invalid"}
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, env=misled, check=False)
    assert done.stdout.strip() == "[7, 7, 7, 7]", done.stderr


def test_durability_is_not_traded(home: Path) -> None:
    url = Server(home).ensure()
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "TimeZone": "UTC",
    }
    assert {name: _value(url, f"show {name}") for name in wanted} == wanted


def test_two_commands_at_once_make_one_server(home: Path) -> None:
    both = [_ensure_elsewhere(home) for _ in range(3)]
    assert len({_answer(process) for process in both}) == 1
    assert _value(Server(home).url(), "select count(*)::int from pg_database where datname in ('ct', 'dagster')") == 2


def test_stop_and_start_keep_the_data(home: Path) -> None:
    url = Server(home).ensure()
    with psycopg.connect(url) as conn:
        conn.execute("create table kept as select 42 as x")
    assert Server(home).stop()
    assert not Server(home).stop()
    assert Server(home).running() is None
    with pytest.raises(server.ServerError, match="not running"):
        Server(home).url()
    assert _value(Server(home).ensure(), "select x from kept") == 42


@pytest.mark.parametrize("busy", [False, True])
def test_kill_9_of_the_postmaster(home: Path, busy: bool) -> None:
    """Committed rows are there after the next start, uncommitted ones are not, whether or not a client was at work."""
    url = Server(home).ensure()
    with psycopg.connect(url) as conn:
        conn.execute("create table kept as select 42 as x")
    postmaster = read_pid_file(Server(home).data)
    assert postmaster is not None
    client = psycopg.connect(url) if busy else None
    if client is not None:
        client.execute("insert into kept select 1 from generate_series(1, 1000)")
    os.kill(postmaster.pid, signal.SIGKILL)
    _wait_until(lambda: Server(home).running() is None)
    again = Server(home).ensure()
    after = read_pid_file(Server(home).data)
    assert after is not None
    assert after.pid != postmaster.pid
    assert _value(again, "select array_agg(x) from kept") == [42]
    if client is not None:
        client.close()


def test_kill_9_of_a_backend(home: Path) -> None:
    """PostgreSQL restarts all its processes; whoever comes next is served."""
    url = Server(home).ensure()
    with psycopg.connect(url) as victim:
        pid = victim.info.backend_pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            victim.execute("select 1")
    deadline = time.monotonic() + 30
    while True:
        try:
            assert _value(Server(home).ensure(), "select 1") == 1
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def test_kill_9_during_the_first_start(home: Path) -> None:
    """A cluster is made under another name and renamed: half a cluster is never taken for a whole one."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(home)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not list(Server(home).base.glob("data.new-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not (Server(home).data / "PG_VERSION").exists()
    assert _value(Server(home).ensure(), "select 1") == 1
    Server(home).stop()  # the orphaned initdb may have written on for a moment; the next start clears up
    Server(home).ensure()
    assert not list(Server(home).base.glob("data.new-*"))


@pytest.mark.parametrize("whose", ["init", "this test", "nobody"])
def test_a_stale_pid_file_of_somebody_elses_process(home: Path, whose: str) -> None:
    """After a reboot the recorded id belongs to another process: PostgreSQL alone would refuse to start."""
    pid = {"init": 1, "this test": os.getpid(), "nobody": 2**22 - 3}[whose]
    found = Server(home)
    found.ensure()
    lines = (found.data / "postmaster.pid").read_text().splitlines()
    found.stop()
    (found.data / "postmaster.pid").write_text("\n".join([str(pid), *lines[1:]]) + "\n")
    assert found.running() is None
    assert _value(found.ensure(), "select 1") == 1
    assert os.getpid() not in working_on(found.data)


def test_a_stale_lock_does_not_hold(home: Path) -> None:
    """The lock of a killed process is freed by the kernel; the file alone means nothing."""
    home.mkdir()
    (home / "postgres.lock").write_text("left by somebody")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, time; f = open({str(home / 'postgres.lock')!r}, 'a'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    assert _value(Server(home).ensure(), "select 1") == 1


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 25) / "home"
    found = Server(home)
    try:
        url = found.ensure()
        assert _value(url, "select 1") == 1
        postmaster = found.running()
        assert postmaster is not None
        assert len(postmaster.socket_folder) < 100
    finally:
        left = read_pid_file(found.data)
        base = found.base
        found.stop()
        shutil.rmtree(base, ignore_errors=True)
        if left is not None:
            shutil.rmtree(left.socket_folder, ignore_errors=True)


def test_a_path_with_odd_characters(tmp_path: Path) -> None:
    home = tmp_path / "it's a home & more? ü%41"
    found = Server(home)
    try:
        assert _value(found.ensure(), "select 1") == 1
    finally:
        base = found.base
        found.stop()
        shutil.rmtree(base, ignore_errors=True)


def test_the_log_keeps_no_data(home: Path) -> None:
    """An error's context would quote the row that broke; the canary reaches the client, not the log."""
    url = Server(home).ensure()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create table t (n int)")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), conn.cursor().copy("copy t from stdin") as out:
            out.write("canary-4711\n")
    log = Server(home).log.read_text()
    assert "invalid input syntax" in log or "starting PostgreSQL" in log
    assert "CONTEXT" not in log
    assert "STATEMENT" not in log


@ROOT_ONLY
def test_roots_home_is_never_used_nor_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With CT_HOME below $HOME, data goes to /var/tmp and no mode of any parent changes."""
    fake_home = tmp_path / "root-home"
    (fake_home / "project").mkdir(parents=True)
    fake_home.chmod(0o755)
    monkeypatch.setenv("HOME", str(fake_home))
    home = fake_home / "project" / ".ct"
    parents = [fake_home, fake_home / "project", *tmp_path.parents]
    before = [path.stat().st_mode for path in parents]
    found = Server(home)
    try:
        assert _value(found.ensure(), "select 1") == 1
        assert found.base.parent == location.ELSEWHERE
        assert (home / "postgres.location").read_text().strip() == str(found.base)
        assert [path.stat().st_mode for path in parents] == before
    finally:
        base = found.base
        found.stop()
        shutil.rmtree(base, ignore_errors=True)


@ROOT_ONLY
def test_an_unreachable_folder_is_not_opened_up(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    who = location.account()
    assert who.uid != 0
    assert not location.reachable(closed / "home" / "postgres" / "data", who)
    assert location.base_folder(closed / "home", who).parent == location.ELSEWHERE
    assert closed.stat().st_mode & 0o777 == 0o700


@ROOT_ONLY
def test_as_an_ordinary_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same code, run by an account that is not root: data stays in its home, nothing is changed outside."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="ct-user-", dir="/var/tmp"))
    shutil.chown(folder, "nobody")
    code = (
        "import sys, pathlib, os, pwd, psycopg, subprocess, socket; from ct_assets.adapters.postgres.server import Server\n"
        "user = pwd.getpwnam('nobody'); os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)\n"
        "s = Server(pathlib.Path(sys.argv[1])); u = s.ensure(); assert os.geteuid() != 0\n"
        "print(psycopg.connect(u).execute('select 7').fetchone()[0], s.base); assert s.stop()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(folder / "home")],  # becomes nobody after its imports
            capture_output=True,
            text=True,
            cwd="/",
            env={"HOME": str(folder)},
            check=False,
        )
        assert done.stdout.split() == ["7", str(folder / "home" / "postgres")], done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@ROOT_ONLY
def test_programs_in_a_closed_folder_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment below /root cannot be entered by the server's account."""
    monkeypatch.setattr(location, "ELSEWHERE", tmp_path)
    monkeypatch.setattr(location, "reachable", lambda path, who: False)
    found = location.programs(location.account())
    assert found.parent.parent == tmp_path
    done = subprocess.run([str(found / "postgres"), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("postgres (PostgreSQL) 18")
    assert location.programs(location.account()) == found


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "ct-pg-x"
    planted.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="refusing to use it"):
        location.private_folder(planted, location.account())


@ROOT_ONLY
def test_data_of_an_account_that_was_made_anew_is_taken_over(home: Path) -> None:
    """A home kept over a new container: the server's account has another number there, its data the old one."""
    with psycopg.connect(Server(home).ensure()) as conn:
        conn.execute("create table kept as select 42 as x")
    base = Server(home).base
    Server(home).stop()
    for path in [base, *base.rglob("*")]:
        os.chown(path, 64_998, 64_998, follow_symlinks=False)
    assert _value(Server(home).ensure(), "select x from kept") == 42
    Server(home).stop()
    os.chown(base, 65_534, 65_534)  # nobody: an account that is there
    with pytest.raises(PermissionError, match="uid 65534"):
        Server(home).ensure()
    os.chown(base, 0, 0)  # so that the fixture may remove it


@ROOT_ONLY
def test_abandoned_data_of_temporary_homes_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "ELSEWHERE", tmp_path)
    monkeypatch.setattr(server.location, "ELSEWHERE", tmp_path)
    for name, home in (
        ("gone", "/tmp/no-such-ct-home"),
        ("unmounted", "/mnt/no-such-disk/home"),
        ("alive", str(tmp_path)),
    ):
        base = tmp_path / f"ct-assets-postgres-{name}"
        base.mkdir()
        (base / "home").write_text(home)
    assert [path.name for path in server.remove_abandoned(keep=tmp_path)] == ["ct-assets-postgres-gone"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ct-assets-postgres-alive",
        "ct-assets-postgres-unmounted",
    ]

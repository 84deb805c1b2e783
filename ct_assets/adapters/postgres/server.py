"""The embedded PostgreSQL 18: make it, start it, attach to it, stop it.

What goes here: the life of one server that belongs to one ``CT_HOME``. What does not: where its folders may lie
(``location``), connections (``connect``), tables (``migrate``).

The server outlives the command that started it and is shared by all commands of the same ``CT_HOME``; ``ct stop``
ends it. Durability is not traded for speed: ``fsync`` and ``synchronous_commit`` stay on.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ct_assets.adapters.postgres import location
from ct_assets.adapters.postgres.processes import Postmaster, read_pid_file, working_on
from ct_assets.adapters.postgres.soundness import sound_data, usable_home
from ct_assets.errors import CtError

DATABASES = ("ct", "dagster")
START_SECONDS = 120  # crash recovery replays up to max_wal_size before the server answers

# Written before each start. The last lines keep data out of the server's log: an error's CONTEXT and STATEMENT would
# quote the very row that broke.
CONFIGURATION = """
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 256MB
work_mem = 32MB
maintenance_work_mem = 128MB
max_wal_size = 4GB
checkpoint_timeout = 15min
fsync = on
synchronous_commit = on
full_page_writes = on
wal_level = minimal
max_wal_senders = 0
timezone = 'UTC'
log_timezone = 'UTC'
jit = off
log_min_error_statement = panic
log_error_verbosity = terse
log_checkpoints = off
"""


class ServerError(CtError):
    """The embedded server could not be made, started or stopped."""


@dataclass(frozen=True)
class Server:
    """The embedded server of one home folder. Cheap to make; nothing runs until :meth:`ensure`."""

    home: Path

    @property
    def account(self) -> location.Account:
        """Whom it runs as."""
        return location.account()

    @property
    def base(self) -> Path:
        """Folder of data, log and lock; the pointer file ``<home>/postgres.location`` wins once it exists."""
        try:
            return Path((self.home / "postgres.location").read_text().strip())
        except (FileNotFoundError, NotADirectoryError):
            return location.base_folder(usable_home(self.home), self.account)

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.base / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.base / "server.log"

    def running(self) -> Postmaster | None:
        """The server when it answers on its socket, else None. Takes well under a millisecond."""
        found = read_pid_file(self.data)
        return found if found is not None and found.ready and _answers(found) else None

    def url(self, database: str = "ct") -> str:
        """The URL of a running server; raises :class:`ServerError` when it is not running."""
        found = self.running()
        if found is None:
            raise ServerError("the embedded PostgreSQL is not running", hint="`ct url` starts it")
        return _url(found, database)

    def ensure(self, database: str = "ct") -> str:
        """Start the server unless it runs, and return the URL of ``database``. Safe from several processes at once."""
        found = self.running()
        if found is None:
            with self._lock():
                found = self.running() or self._start()
        return _url(found, database)

    def stop(self) -> bool:
        """Stop the server (clients are disconnected, open transactions rolled back). False when none ran."""
        if not self.data.is_dir():
            return False
        with self._lock():
            if not working_on(self.data):
                return False
            self._pg_ctl("stop", "-m", "fast", "-w", "-t", "60")
            if working_on(self.data):
                self._end_orphans(signal.SIGQUIT)
        return True

    def program(self, name: str) -> Path:
        """Path of one of PostgreSQL's own programs (``psql``, ``pg_dump``)."""
        return location.programs(self.account) / name

    # -- making and starting -------------------------------------------------------------------------------------

    def _start(self) -> Postmaster:
        for leftover in self.base.glob("data.new-*"):  # of a first start that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        sound_data(self.data)
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._clear_after_a_kill()
        folder = location.socket_folder(self.base, self.account)
        configuration = self.data / "ct.conf"
        configuration.write_text(f"{CONFIGURATION}unix_socket_directories = '{_conf(folder)}'\n")
        self._pg_ctl("start", "-w", "-t", str(START_SECONDS), "-l", str(self.log))
        found = self.running()
        if found is None:
            raise ServerError(f"the embedded PostgreSQL did not start\n{self._log_tail()}", hint=f"log: {self.log}")
        self._make_databases(found)
        return found

    def _initialise(self) -> None:
        """Make the cluster in a temporary folder and rename it: a killed first start leaves nothing half made."""
        who = self.account
        fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.base))
        if who.name is not None:
            os.chown(fresh, who.uid, who.gid)
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")  # the same order everywhere
        self._run("initdb", "-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8", *locale)
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists = 'ct.conf'\n")
        fresh.rename(self.data)

    def _make_databases(self, found: Postmaster) -> None:
        import psycopg

        with psycopg.connect(_url(found, "postgres"), autocommit=True) as conn:
            there = {row[0] for row in conn.execute("select datname from pg_database")}
            for name in DATABASES:
                if name not in there:
                    conn.execute(f'create database "{name}"'.encode())

    def _clear_after_a_kill(self) -> None:
        """After ``kill -9`` of the postmaster: wait for orphaned backends, then drop pid and lock files that lie.

        PostgreSQL removes stale files itself, except where the recorded id now belongs to another process (or
        is a zombie nobody reaped). While any process still works on the folder the file is left alone: starting a
        second server beside orphans would corrupt the data.
        """
        deadline = time.monotonic() + 10
        while working_on(self.data) and time.monotonic() < deadline:
            time.sleep(0.05)
        if working_on(self.data):
            self._end_orphans(signal.SIGQUIT)
        if working_on(self.data):
            raise ServerError(
                f"processes still work on {self.data}: {working_on(self.data)}", hint="end them, try again"
            )
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for left in location.socket_folder(self.base, self.account).glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)

    def _end_orphans(self, first: signal.Signals) -> None:
        for sign in (first, signal.SIGKILL):
            for pid in working_on(self.data):
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 10
            while working_on(self.data) and time.monotonic() < deadline:
                time.sleep(0.05)

    # -- processes -----------------------------------------------------------------------------------------------

    def _pg_ctl(self, *arguments: str) -> None:
        self._run("pg_ctl", *arguments, "-D", str(self.data), "-s")

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's account, in English, without any ``PG*`` variable."""
        who = self.account
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LD_PRELOAD"))} | {"LC_ALL": "C"}
        done = subprocess.run(
            [str(location.programs(who) / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be inherited by the server and never close
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            env=env,
            cwd="/",
            check=False,
            user=who.user,
            group=who.group,
            extra_groups=who.extra_groups,
        )
        if done.returncode and program == "initdb":
            said = (done.stderr or b"").decode(errors="replace").strip()
            raise ServerError(
                f"initdb failed with exit code {done.returncode} in {self.base}: {said}",
                hint="is the disk full or read-only?",
            )

    def _log_tail(self, lines: int = 12) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One starter or stopper at a time. The kernel frees the lock of a killed process, so it never goes stale."""
        self._make_base()
        with (self.home / "postgres.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _make_base(self) -> None:
        usable_home(self.home)
        if not self.home.is_dir():
            # Only folders made here get a mode that lets the server's account pass through (not list).
            mode = 0o711 if self.account.name is not None else 0o700
            self.home.mkdir(parents=True, exist_ok=True)
            self.home.chmod(mode)
        base = self.base
        location.private_folder(base, self.account)
        if base.parent != self.home and not (self.home / "postgres.location").exists():
            (self.home / "postgres.location").write_text(f"{base}\n")
            (base / "home").write_text(f"{self.home}\n")
            remove_abandoned(keep=base)


def remove_abandoned(keep: Path) -> list[Path]:
    """Remove data folders under /var/tmp whose home lay in a temporary folder and is gone; return them.

    A home elsewhere may be on a disk that is merely not mounted: its data is reported by ``ct doctor``, not removed.
    """
    removed = []
    for marker in location.ELSEWHERE.glob("ct-assets-postgres-*/home"):
        base = marker.parent
        try:
            home = Path(marker.read_text().strip())
        except OSError:
            continue
        temporary = home.is_relative_to(tempfile.gettempdir()) or home.is_relative_to(location.ELSEWHERE)
        if base != keep and temporary and not home.exists() and not working_on(base / "data"):
            shutil.rmtree(base, ignore_errors=True)
            removed.append(base)
    return removed


def _answers(found: Postmaster) -> bool:
    """Whether something accepts connections on the socket."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(2)
    try:
        client.connect(f"{found.socket_folder}/.s.PGSQL.{found.port}")
    except OSError:
        return False
    else:
        return True
    finally:
        client.close()


def _url(found: Postmaster, database: str) -> str:
    # user, host and port are all given, so that PGUSER, PGHOST and PGPORT of the shell cannot change the meaning
    return f"postgresql://postgres@/{database}?host={quote(found.socket_folder, safe='/')}&port={found.port}"


def _conf(path: Path) -> str:
    return str(path).replace("'", "''")

"""Fixtures that every test may use: one embedded PostgreSQL a session, a fresh database a test, settings, shared data.

What goes here: fixtures of more than one package. What does not: fixtures of one package (its own ``conftest.py``).
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ct_assets.settings import Settings, load
from ct_assets_tests.kafka_broker import kafka, kafka_alone, kafka_url, stop_broker
from ct_assets_tests.redis_server import redis_server, redis_url

__all__ = ["kafka", "kafka_alone", "kafka_url", "redis_server", "redis_url"]

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
_serial = itertools.count()


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """One xdist worker at a time."""
    with (folder / f"{name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all xdist workers of this session see: the parent of their own base folders."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def pytest_configure() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and so would be the commands on which tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The controlling process stops the servers and removes their data, also after a failed run."""
    if hasattr(session.config, "workerinput"):
        return
    factory = getattr(session.config, "_tmp_path_factory", None)
    stop_broker(factory)
    home = factory.getbasetemp() / "pg-home" if factory is not None else None
    if home is None or not home.exists():
        return
    from ct_assets.adapters.postgres.server import Server

    server = Server(home)
    base = server.base
    server.stop()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_settings_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own CT_ variables must not decide what a test does."""
    for name in [name for name in os.environ if name.startswith("CT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def pg_server_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of the session's embedded server (database ``postgres``), shared by all workers.

    ``TEST_POSTGRES_URL`` names one that is up already and stays up (``faults.guards`` runs pytest a hundred times).
    """
    if given := os.environ.get("TEST_POSTGRES_URL"):
        return given
    from ct_assets.adapters.postgres.server import Server

    folder = _shared_folder(tmp_path_factory)
    return Server(folder / "pg-home").ensure("postgres")


@pytest.fixture(scope="session")
def pg_template(pg_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a migrated database that tests copy; other migrations, other name."""
    import hashlib

    import psycopg

    from ct_assets.adapters.postgres import migrations
    from ct_assets.adapters.postgres.migrate import migrate

    versions = sorted((Path(str(migrations.__file__)).parent / "versions").glob("*.*"))
    name = f"ct_template_{hashlib.sha256(b''.join(path.read_bytes() for path in versions)).hexdigest()[:12]}"
    with _alone(_shared_folder(tmp_path_factory), "template"), psycopg.connect(pg_server_url, autocommit=True) as conn:
        if not conn.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
            conn.execute(f"create database {name}_new".encode())
            migrate(pg_server_url.replace("/postgres?", f"/{name}_new?"))
            conn.execute(f"alter database {name}_new rename to {name}".encode())
    return name


@contextmanager
def _fresh_database(server_url: str, template: str) -> Iterator[str]:
    import psycopg

    name = f"t_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}_{next(_serial)}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"create database {name} template {template} strategy file_copy".encode())
    try:
        yield server_url.replace("/postgres?", f"/{name}?")
    finally:
        with psycopg.connect(server_url, autocommit=True) as conn:
            conn.execute(f"drop database if exists {name} with (force)".encode())


@pytest.fixture
def pg_url(pg_server_url: str, pg_template: str) -> Iterator[str]:
    """URL of a migrated database that this test has for itself."""
    with _fresh_database(pg_server_url, pg_template) as url:
        yield url


@pytest.fixture(scope="module")
def pg_url_module(pg_server_url: str, pg_template: str) -> Iterator[str]:
    """URL of a migrated database that the tests of one module share."""
    with _fresh_database(pg_server_url, pg_template) as url:
        yield url


@pytest.fixture
def ct_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, also set as ``CT_HOME``. No server of its own until something starts one."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("CT_HOME", str(home))
    return home


@pytest.fixture
def settings(ct_home: Path, pg_url: str) -> Settings:
    """Settings with their own home and a fresh database on the session's server."""
    return load({"CT_HOME": str(ct_home), "CT_DATABASE_URL": pg_url, "CT_CODE_VERSION": "test-1"})


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of test data beside the checkout; skips where it is absent, except in CI."""
    data = SHARED / "data"
    if not data.is_dir():
        assert os.environ.get("CI") != "true", f"CI must have the test data at {data}"
        pytest.skip(f"no test data at {data} (see README: it lies beside the checkout)")
    return data


@pytest.fixture(scope="session")
def real_days(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The real sales files, one a day, in order of day; unpacked once a session."""
    folder = _shared_folder(tmp_path_factory)
    with _alone(folder, "real-days"):
        target = folder / "real-days"
        if not target.is_dir():
            part = folder / "real-days.part"
            with tarfile.open(shared_data / "online_retail" / "by_day_2010-12-01_2011-09-30.tar.xz") as archive:
                archive.extractall(part, filter="data")
            part.rename(target)
    return sorted(target.rglob("*.csv"))

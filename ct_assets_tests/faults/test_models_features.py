"""F36: a feature build that dies half-way leaves no half: readers and trainings see the versions before.

What goes here: kill -9 and broken connections inside a build. What does not: ordinary builds (``adapters``).
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.feature_tables import FeatureSource, InputsMoved, build, read_features, stale_days
from ct_assets.settings import Settings, load
from ct_assets_tests.adapters.published_days import bring, corrected, day_of, sample

SOURCE = FeatureSource(zone="Europe/London")
VICTIM = """
import os, signal, sys
import psycopg
from ct_assets.adapters.feature_tables import FeatureSource, build, stale_days

def crash(point):
    if point == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    source = FeatureSource(zone="Europe/London")
    build(conn, sys.argv[1], source, stale_days(conn, source), crash)
"""


@pytest.fixture
def settings_and_files(tmp_path: Path, pg_url: str) -> tuple[Settings, list[Path]]:
    settings = load({"CT_HOME": str(tmp_path / "home"), "CT_DATABASE_URL": pg_url, "CT_CODE_VERSION": "test-1"})
    files = sample(tmp_path / "sample", days=12)
    bring(settings, files)
    return settings, files


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        yield conn


def days_of(files: list[Path]) -> list[dt.date]:
    return [day_of(path) for path in files]


@pytest.mark.fault("F36")
@pytest.mark.parametrize("point", ["features_written", "features_complete"])
def test_f36_a_killed_build_leaves_the_versions_before(
    settings_and_files: tuple[Settings, list[Path]], conn: psycopg.Connection, pg_url: str, tmp_path: Path, point: str
) -> None:
    settings, files = settings_and_files
    days = days_of(files)
    build(conn, pg_url, SOURCE, days)
    before = read_features(pg_url, days)
    bring(settings, [corrected(files[4], tmp_path / "again")])
    stale = stale_days(conn, SOURCE)
    assert stale == days[4:]
    victim = subprocess.run([sys.executable, "-c", VICTIM, pg_url, point], capture_output=True, text=True, check=False)
    assert victim.returncode == -9, victim.stderr  # the fault fired
    assert read_features(pg_url, days).equals(before)
    assert stale_days(conn, SOURCE) == stale
    assert conn.execute("select count(*) from ledger.feature_version where superseded_at is not null").fetchone() == (
        0,
    )
    assert sorted(build(conn, pg_url, SOURCE, days)) == stale  # a restart ends where an unbroken run ends
    orphans = conn.execute(
        "select count(*) from store.product_daily where version_id not in (select version_id from ledger.feature_version)"
    ).fetchone()
    assert orphans == (0,)
    assert (
        conn.execute(
            "select count(*), count(distinct day) from ledger.feature_version where superseded_at is null"
        ).fetchone()
        == (len(days),) * 2
    )


@pytest.mark.fault("F36")
def test_f36_a_connection_lost_in_a_build_leaves_the_versions_before(
    settings_and_files: tuple[Settings, list[Path]], conn: psycopg.Connection, pg_url: str
) -> None:
    days = days_of(settings_and_files[1])
    fired = []

    def cut(point: str) -> None:
        row = conn.execute("select pg_terminate_backend(%s)", (own.info.backend_pid,)).fetchone()
        fired.append((point, row))

    with psycopg.connect(pg_url, autocommit=True) as own, pytest.raises(psycopg.OperationalError):
        build(own, pg_url, SOURCE, days, cut)
    assert fired == [("features_written", (True,))]
    assert stale_days(conn, SOURCE) == days
    assert conn.execute("select count(*) from ledger.feature_version").fetchone() == (0,)


@pytest.mark.fault("F36")
def test_f36_a_revision_published_during_a_build_undoes_it(
    settings_and_files: tuple[Settings, list[Path]], conn: psycopg.Connection, pg_url: str, tmp_path: Path
) -> None:
    settings, files = settings_and_files
    days = days_of(files)
    fired = []

    def publish(point: str) -> None:
        if point == "features_written":
            bring(settings, [corrected(files[2], tmp_path / "again")])
            fired.append(point)

    with pytest.raises(InputsMoved, match="nothing was changed"):
        build(conn, pg_url, SOURCE, days, publish)
    assert fired == ["features_written"]
    assert stale_days(conn, SOURCE) == days
    assert sorted(build(conn, pg_url, SOURCE, days)) == days

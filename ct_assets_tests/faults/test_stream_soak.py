"""A small share of the stream soak: every point is hit once, with a seed that is printed when it fails.

What goes here: the share. What does not: the soak (``soak_stream``; `make soak` runs it whole).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ct_assets.adapters.postgres.server import Server
from ct_assets_tests.faults.soak_redis import RedisFaults
from ct_assets_tests.faults.soak_stream import Services, soak


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A database of its own, and a Redis where there is one (always in CI)."""
    server, redis = Server(tmp_path / "pg"), None
    short = Path(tempfile.mkdtemp(prefix="ct-redis-"))  # the path of a socket has at most 107 bytes
    assert shutil.which("redis-server") or os.environ.get("CI") != "true", "CI must have redis-server: see .ci/run"
    if shutil.which("redis-server"):
        redis = RedisFaults(short / "r", random.Random())
    server.ensure()
    base = server.base
    yield Services(server, redis=redis)
    server.stop()
    if redis is not None:
        redis.server.stop(signal.SIGKILL)
    for folder in (base, short):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.fault("F04")
def test_f04_workers_and_services_killed_at_every_point_change_nothing(services: Services, tmp_path: Path) -> None:
    kills = 14 if services.redis else 11
    outcome = soak(tmp_path, services, kills, events=30_000, seed=random.SystemRandom().randrange(10**6))
    assert outcome.values > 1_000
    assert not outcome.differences, str(outcome)
    assert not outcome.missed, str(outcome)
    if services.redis:
        assert outcome.online["redis_non_zero"] > 50, str(outcome)
        assert outcome.online["reads"] > 50, str(outcome)

"""A small share of the stream soak: every point is hit once, with a seed that is printed when it fails.

What goes here: the share. What does not: the soak (``soak_stream``; `make soak` runs it whole).
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from ct_assets.adapters.postgres.server import Server
from ct_assets_tests.faults.soak_stream import soak


@pytest.mark.fault("F04")
def test_f04_workers_and_the_database_killed_at_every_point_change_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "pg")
    server.ensure()
    try:
        outcome = soak(tmp_path, server, kills=11, events=30_000, seed=random.SystemRandom().randrange(10**6))
    finally:
        base = server.base
        server.stop()
        shutil.rmtree(base, ignore_errors=True)
    assert outcome.values > 1_000
    assert not outcome.differences, str(outcome)
    assert not outcome.missed, str(outcome)

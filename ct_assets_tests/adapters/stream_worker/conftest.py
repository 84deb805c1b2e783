"""Fixtures that the worker's tests share; a stream of another kind (``test_worker_avro``) is a fixture of the same name there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ct_assets.sampling.arrivals import Arrivals
from ct_assets_tests.adapters.stream_worker.world import Truth, World, sample, truth_of


@pytest.fixture(params=["postgresql", "redis"])
def online_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Each online store in turn, for workers and reads alike."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    monkeypatch.setenv("CT_ONLINE_URL", url or "")
    return url


@pytest.fixture
def world(pg_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(pg_url, tmp_path / "log", tmp_path / "home")
    yield made
    made.close()


@pytest.fixture(scope="module")
def arrivals() -> Arrivals:
    return sample()


@pytest.fixture(scope="module")
def truth(arrivals: Arrivals) -> Truth:
    return truth_of(arrivals)

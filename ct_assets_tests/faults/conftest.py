"""Fixtures of the fault tests: the published dataset, a connection, an embedded server of one's own to hurt.

What goes here: fixtures. What does not: assertions.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.datasets import PublishedDataset, pipeline_dataset
from ct_assets.settings import Settings, load


@pytest.fixture
def sales(settings: Settings) -> PublishedDataset:
    """The sales dataset as a run would pin it."""
    return pipeline_dataset("sales", settings)


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    """A connection to look with."""
    with psycopg.connect(pg_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Settings]:
    """Settings of an installation with an embedded server that this test may kill."""
    from ct_assets.adapters.postgres.server import Server

    settings = load({"CT_HOME": str(tmp_path / "own"), "CT_CODE_VERSION": "test-1"})
    server = Server(settings.home)
    try:
        yield settings
    finally:
        base = server.base
        server.stop()
        shutil.rmtree(base, ignore_errors=True)

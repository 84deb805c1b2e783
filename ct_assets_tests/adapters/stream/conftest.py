"""Fixtures of the stream stores' tests."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets_tests.adapters.stream.stores import Store


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a database that this test has for itself."""
    with connect(pg_url, autocommit=True) as found:
        yield found


@pytest.fixture(params=["postgresql", "redis"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each online store in turn: what is asked of one is asked of the other."""
    return Store(request.getfixturevalue("redis_url") if request.param == "redis" else None)

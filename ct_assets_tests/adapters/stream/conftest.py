"""Fixtures of the stream stores' tests."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ct_assets.adapters.postgres.connect import connect


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a database that this test has for itself."""
    with connect(pg_url, autocommit=True) as found:
        yield found

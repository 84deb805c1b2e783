"""The champion mirrored in MLflow's registry on a real PostgreSQL, and what happens when the registry is down."""

from __future__ import annotations

import dataclasses

import psycopg
import pytest

from ct_assets.adapters import champion as pointer
from ct_assets.adapters import registry
from ct_assets.adapters.champion import Move
from ct_assets.settings import Settings
from ct_assets_tests.adapters.test_champion import candidate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.mark.fault("F44")
def test_f44_the_alias_follows_the_pointer_and_a_repeat_registers_nothing_twice(
    settings: Settings, pg_url: str
) -> None:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        pointer.register(conn, candidate("r1"))
        pointer.register(conn, candidate("r2"))
        first = pointer.move(conn, Move("demand", 1, None, "r1", "first"))
        assert registry.mirror(conn, settings, "demand") is None
        client = registry._client(settings)
        assert client.get_model_version_by_alias("demand", "champion").tags["ct_assets.run_id"] == "r1"
        conn.execute("update ledger.champion set mirrored_at = null")
        assert registry.mirror(conn, settings, "demand") is None
        assert len(client.search_model_versions("name = 'demand'")) == 1
        pointer.move(conn, Move("demand", 2, first.generation, "r2", "refresh"))
        assert registry.mirror(conn, settings, "demand") is None
        assert client.get_model_version_by_alias("demand", "champion").tags["ct_assets.version"] == "2"


@pytest.mark.fault("F44")
def test_f44_a_registry_that_is_down_leaves_the_pointer_and_is_repaired_later(settings: Settings, pg_url: str) -> None:
    down = dataclasses.replace(settings, registry_url="postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    with psycopg.connect(pg_url, autocommit=True) as conn:
        pointer.register(conn, candidate("r1"))
        pointer.move(conn, Move("demand", 1, None, "r1", "first"))
        why = registry.mirror(conn, down, "demand")
        assert why is not None
        after = pointer.champion(conn, "demand")
        assert after is not None
        assert (after.version, after.mirrored_at) == (1, None)
        assert registry.mirror(conn, settings, "demand") is None
        repaired = pointer.champion(conn, "demand")
        assert repaired is not None
        assert repaired.mirrored_at is not None


def test_a_name_with_a_slash_is_mirrored_under_a_dot(settings: Settings, pg_url: str) -> None:
    """MLflow refuses a slash; the ledger's names are the assets'."""
    with psycopg.connect(pg_url, autocommit=True) as conn:
        pointer.register(conn, dataclasses.replace(candidate("r1"), model="shop/propensity"))
        pointer.move(conn, Move("shop/propensity", 1, None, "r1", "first"))
        assert registry.mirror(conn, settings, "shop/propensity") is None
        client = registry._client(settings)
        assert client.get_model_version_by_alias("shop.propensity", "champion").tags["ct_assets.run_id"] == "r1"
        after = pointer.champion(conn, "shop/propensity")
        assert after is not None
        assert after.mirrored_at is not None

"""Fixtures of the conformance cases.

What goes here: giving live engines their database and broker. What does not: engines, cases.
"""

from __future__ import annotations

import pytest

from ct_assets_tests.conformance.live_engine import Live


@pytest.fixture(autouse=True)
def _real_parts(request: pytest.FixtureRequest) -> None:
    """A live engine works on a database of its own, in Redis too where it says so, and, where it reads Kafka, on the session's broker."""
    callspec = getattr(request.node, "callspec", None)
    engine = callspec.params.get("engine") if callspec else None
    if isinstance(engine, Live):
        engine.url = request.getfixturevalue("pg_url")
        if engine.store == "redis":
            engine.online_url = request.getfixturevalue("redis_url")
        if engine.source == "kafka":
            engine.broker = request.getfixturevalue("kafka_url")

"""The same topic on every kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ct_assets_tests.adapters.events.worlds import ON_KAFKA, KafkaWorld, LogWorld, World


@pytest.fixture(params=["log", *ON_KAFKA])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A topic that does not exist yet. Its sources are closed at the end: a consumer that is collected open hangs."""
    if request.param == "log":
        made: World = LogWorld(tmp_path / "log")
    else:
        reader = request.param.removeprefix("kafka-")
        made = KafkaWorld(request.getfixturevalue("kafka"), request.getfixturevalue("kafka_url"), reader)
    yield made
    for source in made.opened:
        source.close()

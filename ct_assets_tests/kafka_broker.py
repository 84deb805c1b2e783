"""A real Kafka broker for the tests: one a session, started by the first test that needs it, a fresh topic a test.

What goes here: the fixtures and how the broker ends. What does not: tests. Tests that use it carry
``@pytest.mark.xdist_group("kafka")``; all workers share the one broker, and the controlling process stops it.

pytest-xdist 3.8 on pytest 9.2 does not honour groups (it sets an attribute that pytest no longer reads), so a test that
harms the broker asks for ``kafka_alone``: it waits until no other test uses the broker, and none begins.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ct_assets.adapters.events.broker import Broker

_serial = itertools.count()
HOME = "kafka-home"


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all xdist workers of this session see."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def stop_broker(factory: pytest.TempPathFactory | None) -> None:
    """End the session's broker and remove its data, also after a failed run; nothing when there is none."""
    home = factory.getbasetemp() / HOME if factory is not None else None
    if home is not None and home.exists():
        Broker(home).kill()
        shutil.rmtree(home / "data", ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """The session's broker, running. Skips without Java or Maven, except in CI."""
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if missing:
        assert os.environ.get("CI") != "true", f"CI must have {missing}: see .ci/run"
        pytest.skip(f"no {' and no '.join(missing)} (Debian: default-jre-headless, maven)")
    broker = Broker(shared_folder(tmp_path_factory) / HOME)
    broker.start()
    return broker


@pytest.fixture
def kafka_alone() -> None:
    """For a test that kills or harms the broker: no other test uses it meanwhile."""


@pytest.fixture
def kafka_url(kafka: Broker, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a topic that does not exist yet and that this test has for itself."""
    with (kafka.home / "users.lock").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX if "kafka_alone" in request.fixturenames else fcntl.LOCK_SH)
        kafka.start()  # a test may have killed it
        yield f"kafka://{kafka.bootstrap}/t-{os.getpid()}-{next(_serial)}"

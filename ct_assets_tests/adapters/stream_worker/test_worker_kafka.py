"""Supervised workers in a Kafka group: one that was killed is back under its name, one that is stopped leaves at once.

Why the session is four minutes: whoever waited for its end would not be seen here.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal

import pytest

from ct_assets.adapters.events.port import open_sink
from ct_assets_tests.adapters.stream_worker.test_worker import ended, offsets, owners, wait_until
from ct_assets_tests.adapters.stream_worker.world import World, children

pytestmark = pytest.mark.xdist_group("kafka")
SESSION = {"CT_KAFKA_OPTIONS": "session.timeout.ms=240000;heartbeat.interval.ms=500"}
MANY = 60


@pytest.fixture
def shop(world: World, kafka_url: str) -> World:
    world.topic = kafka_url
    return world


def send(shop: World, tag: str) -> None:
    """``MANY`` clicks of now on two partitions, each of a user of its own."""
    now = dt.datetime.now(dt.UTC).isoformat()
    sink = open_sink(shop.source, partitions=2)
    for partition in (0, 1):
        events = [
            {"event_id": f"{tag}-{n}", "user_id": n, "event_time": now, "event_type": "click", "amount": None}
            for n in range(partition, MANY, 2)
        ]
        sink.send([json.dumps(event).encode() for event in events], partition=partition)
    sink.close()


def accepted(shop: World) -> int:
    content = shop.content()
    assert content["dead"] == []
    return len(content["places"])


def test_a_killed_worker_is_back_under_its_name_and_a_stopped_one_leaves_its_place(shop: World) -> None:
    send(shop, "first")
    parent = shop.start("--supervise", **SESSION)
    wait_until(shop, lambda conn: offsets(conn) == MANY)
    (child,) = children(parent.pid)
    os.kill(child, signal.SIGKILL)
    send(shop, "second")
    wait_until(shop, lambda conn: offsets(conn) == 2 * MANY)
    code, said = ended(parent, signal.SIGTERM)
    assert (code, "ended with signal 9" in said) == (0, True), said
    send(shop, "third")
    code, said = ended(shop.start("--until-idle", **SESSION))
    assert code == 0, said
    assert accepted(shop) == 3 * MANY


def test_two_workers_of_a_supervisor_have_names_of_their_own_and_one_hands_over_when_it_stops(shop: World) -> None:
    send(shop, "first")
    pair = shop.start("--workers", "2", **SESSION)
    wait_until(shop, lambda conn: owners(conn) == 2 and offsets(conn) == MANY)
    third = shop.start("--no-supervise", **SESSION)
    code, said = ended(pair, signal.SIGTERM)
    assert code == 0, said
    send(shop, "second")
    wait_until(shop, lambda conn: owners(conn) == 1 and offsets(conn) == 2 * MANY)
    assert ended(third, signal.SIGTERM)[0] == 0
    assert accepted(shop) == 2 * MANY

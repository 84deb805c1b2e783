"""The worker on Avro messages: the same values as from JSON, and a registry that is down or does not know loses nothing."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import fastavro
import psycopg
import pytest

from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.sampling.arrivals import Arrivals
from ct_assets_tests.adapters.events.fake_registry import Registry
from ct_assets_tests.adapters.stream_worker.test_worker import assert_equals, ended, offsets, wait_until
from ct_assets_tests.adapters.stream_worker.world import DEFINITION, ROOT, Truth, World, fill, sample, truth_of

AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
FIELDS = [
    {"name": "event_id", "type": "string"},
    {"name": "user_id", "type": "long"},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "event_type", "type": "string"},
    {"name": "amount", "type": ["null", AMOUNT], "default": None},
]
FIRST = {"type": "record", "name": "shop_event", "fields": FIELDS}
SECOND = {"type": "record", "name": "shop_event", "fields": [*FIELDS[::-1], {"name": "page", "type": "string"}]}
SMALL: Any = {"users": 120, "hours": 2}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def framed(schema_id: int, schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), record)
    return b"\0" + schema_id.to_bytes(4, "big") + body.getvalue()


def as_avro(arrivals: Arrivals, second_from: int) -> Arrivals:
    """The stream in Avro: schema 1, and 2 from message ``second_from`` on; what JSON cannot say rightly stays poison."""
    payloads, planted = list(arrivals.payload), list(arrivals.planted)
    for i, payload in enumerate(payloads):
        if payload is None:
            continue
        if planted[i] in ("poison", "null_key", "unit_error"):
            planted[i] = "poison"
            continue
        record = {"amount": None, "page": "/", **json.loads(payload, parse_float=Decimal)}
        record["event_time"] = EPOCH + dt.timedelta(microseconds=int(arrivals.event_time[i]))
        if record["amount"] is not None:
            record["amount"] = Decimal(record["amount"]).quantize(Decimal("0.01"))
        payloads[i] = framed(*((1, FIRST) if i < second_from else (2, SECOND)), record)
    return dataclasses.replace(arrivals, payload=payloads, planted=planted)


@pytest.fixture(scope="module")
def arrivals() -> Arrivals:
    found = sample(**SMALL)
    return as_avro(found, len(found) * 3 // 4)


@pytest.fixture(scope="module")
def truth(arrivals: Arrivals) -> Truth:
    return truth_of(dataclasses.replace(arrivals, payload=sample(**SMALL).payload))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    made = Registry({1: FIRST, 2: SECOND})
    monkeypatch.setenv("CT_SCHEMA_REGISTRY_URL", made.url)
    yield made
    made.stop()


def test_values_equal_the_oracle_and_each_schema_is_fetched_once(
    world: World, arrivals: Arrivals, truth: Truth, registry: Registry
) -> None:
    fill(world.folder, arrivals)
    done = world.run("--until-idle", "--format", "avro")
    assert done.returncode == 0, done.stderr
    assert_equals(world, truth)
    assert registry.asked == {1: 1, 2: 1}


@pytest.mark.fault("F34")
def test_f34_registry_down_known_schemas_go_on_new_ones_wait(
    world: World, arrivals: Arrivals, truth: Truth, registry: Registry
) -> None:
    half, new = len(arrivals) // 2, len(arrivals) * 3 // 4
    fill(world.folder, arrivals, 0, half)
    assert world.run("--until-idle", "--format", "avro").returncode == 0
    registry.stop()
    fill(world.folder, arrivals, half, new)
    known = world.run("--until-idle", "--format", "avro")
    assert known.returncode == 0, known.stderr
    assert json.loads(known.stdout)["messages"] == new - half, "schema 1 is kept: another process goes on"
    fill(world.folder, arrivals, new)
    worker = world.start("--no-supervise", "--format", "avro")
    assert worker.stderr is not None
    said = next(line for line in worker.stderr if "RegistryDown" in line)
    assert "beginning again from the database after RegistryDown: schema registry http://127.0.0.1" in said
    with connect(world.url) as conn:
        assert offsets(conn) < len(arrivals), "nothing is committed past a message that nobody could read"
        assert conn.execute("select count(*) from stream.dead_letter where error like '%schema%'").fetchone() == (0,)
    assert registry.asked[2] == 0
    registry.start()
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    assert ended(worker, signal.SIGTERM)[0] == 0
    assert_equals(world, truth)


def stranger(world: World, last_append: int) -> None:
    """One more message, of a schema that no registry knows yet."""
    record = {
        "event_id": "e-new", "user_id": 7, "event_type": "click", "amount": None,
        "event_time": EPOCH + dt.timedelta(microseconds=last_append),
    }  # fmt: skip
    sink = LogSink(str(world.folder), 4)
    sink.send([framed(99, FIRST, record)], partition=0, append_time=last_append + 1)
    sink.close()


def dead_of_99(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    return conn.execute("select reason, error from stream.dead_letter where error like '%schema id 99%'").fetchall()


@pytest.mark.fault("F32")
def test_f32_unknown_schema_id_is_tried_again_then_dead_and_can_be_replayed(
    world: World, arrivals: Arrivals, truth: Truth, registry: Registry
) -> None:
    fill(world.folder, arrivals)
    stranger(world, int(max(arrivals.append_time)))
    done = world.run("--until-idle", "--format", "avro")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert registry.asked[99] == 3
    assert summary["dead"]["poison"] == truth.dead["poison"] + 1
    assert summary["events"] == len(truth.accepted), "the consumer went on"
    with connect(world.url) as conn:
        assert dead_of_99(conn) == [("poison", "unknown schema id 99")]
        (letter,) = conn.execute(
            "select dead_letter_id from stream.dead_letter where error = 'unknown schema id 99'"
        ).fetchone() or (None,)
    registry.schemas[99] = FIRST
    command = [
        "dead-letter",
        "replay",
        "--definition",
        str(DEFINITION),
        "--format",
        "avro",
        "--id",
        str(letter),
        "--json",
    ]
    replayed = subprocess.run(
        [sys.executable, "-m", "ct_assets.cli", *command],
        cwd=ROOT, env=world.environ(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["outcomes"] == {"accepted": 1}


@pytest.mark.fault("F32")
def test_f32_unknown_schema_id_may_be_waited_for(
    world: World, arrivals: Arrivals, truth: Truth, registry: Registry
) -> None:
    fill(world.folder, arrivals)
    stranger(world, int(max(arrivals.append_time)))
    worker = world.start("--no-supervise", "--format", "avro", "--unknown-schema", "wait")
    assert worker.stderr is not None
    assert next(line for line in worker.stderr if "has no schema 99" in line)
    registry.schemas[99] = FIRST
    wait_until(world, lambda conn: offsets(conn) == len(arrivals) + 1)
    assert ended(worker, signal.SIGTERM)[0] == 0
    with connect(world.url) as conn:
        assert dead_of_99(conn) == []
        assert conn.execute("select sum(events) from stream.partition").fetchone() == (len(truth.accepted) + 1,)

"""What a producer, a clock or a hung process can do to a worker: dead letters and one incident, never a stop or a loss.

What goes here: faults F31, F33, F35, F50 on worker processes. What does not: kills and lost connections
(``test_worker``), a registry that is away (``test_worker_avro``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream.dead_letters import REASONS
from ct_assets.adapters.stream_worker.alarm import LEAST
from ct_assets.adapters.stream_worker.metrics import Liveness, Metrics, MetricsServer
from ct_assets.streaming.definition import load_definition
from ct_assets_tests.adapters.events.fake_registry import Registry
from ct_assets_tests.adapters.stream_worker.test_worker import assert_equals, ended, offsets, owners, wait_until
from ct_assets_tests.adapters.stream_worker.test_worker_avro import FIELDS, FIRST, as_avro, framed
from ct_assets_tests.adapters.stream_worker.world import DEFINITION, World, children, fill, sample, truth_of

SMALL: Any = {"users": 120, "hours": 2}
CLEAN = 300  # messages without a dead one after which the alarm is over
WORSE = {**FIRST, "fields": [{"name": "user_id", "type": "string"} if f["name"] == "user_id" else f for f in FIELDS]}


def incidents(world: World) -> list[tuple[str, str]]:
    with connect(world.url) as conn:
        return conn.execute("select rule, state from ledger.incident order by incident_id").fetchall()


def send(world: World, payloads: list[bytes], append: int) -> None:
    sink = LogSink(str(world.folder), 4)
    sink.send(payloads, partition=0, append_time=append)
    sink.close()


@pytest.mark.fault("F31")
def test_f31_poison_is_kept_with_coordinates_raises_one_alarm_and_stops_nothing(world: World) -> None:
    arrivals = sample(**SMALL)
    fill(world.folder, arrivals)
    assert world.run("--until-idle").returncode == 0
    assert incidents(world) == [], "the sample's dirt is no alarm"
    with connect(world.url) as conn:
        before = offsets(conn)
        (first,) = conn.execute("select next_offset from stream.partition where partition = 0").fetchone() or (0,)
    garbage = [b"\xff\x00 garbage %d" % i for i in range(LEAST)]
    send(world, garbage, int(max(arrivals.append_time)) + 1)
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    assert f"{LEAST} of {LEAST} messages were set aside ({LEAST} poison)" in done.stderr
    assert f"partition 0, offset {first}." in done.stderr
    assert f"`ct dead-letter replay --definition {DEFINITION}` takes them again" in done.stderr
    assert incidents(world) == [("dead_letter_rate", "open")]
    digest = load_definition(DEFINITION).acceptance.contract_digest
    with connect(world.url) as conn:
        assert offsets(conn) == before + LEAST, "the worker went on"
        kept = conn.execute(
            'select "offset", raw, contract_digest from stream.dead_letter where partition = 0 and "offset" >= %s order by 1',
            (first,),
        ).fetchall()
    assert kept == [(first + i, raw, digest) for i, raw in enumerate(garbage)]
    last = int(max(arrivals.append_time))
    now = (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=last)).isoformat()
    event = {"user_id": 1, "event_time": now, "event_type": "click", "amount": None}
    send(world, [json.dumps({**event, "event_id": f"good-{i}"}).encode() for i in range(CLEAN)], last + 2)
    recovered = world.run("--until-idle")
    assert json.loads(recovered.stdout)["events"] == CLEAN
    assert incidents(world) == [("dead_letter_rate", "closed")]


@pytest.mark.fault("F33")
def test_f33_a_producer_with_another_schema_is_an_incident_and_its_messages_wait_aside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusing it in CI is the registry's compatibility mode; this is the producer that got past it."""
    plain = sample(**SMALL)
    arrivals, truth = as_avro(plain, len(plain)), truth_of(plain)
    registry = Registry({1: FIRST, 3: WORSE})
    monkeypatch.setenv("CT_SCHEMA_REGISTRY_URL", registry.url)
    try:
        fill(world.folder, arrivals)
        assert world.run("--until-idle", "--format", "avro").returncode == 0
        assert incidents(world) == []
        record = {"event_time": 1_767_225_600_000_000, "event_type": "click", "amount": None, "user_id": "u-1"}
        bad = [framed(3, WORSE, {**record, "event_id": f"bad-{i}"}) for i in range(LEAST)]
        send(world, bad, int(max(arrivals.append_time)) + 1)
        done = world.run("--until-idle", "--format", "avro")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["events"] == 0
        assert incidents(world) == [("dead_letter_rate", "open")]
        with connect(world.url) as conn:
            errors = conn.execute("select distinct reason, error from stream.dead_letter where raw = any(%s)", (bad,))
            ((reason, error),) = errors.fetchall()
        assert (reason, "user_id" in error) == ("contract", True), error
    finally:
        registry.stop()
    assert registry.asked == {1: 1, 3: 1}
    with connect(world.url) as conn:
        conn.execute("delete from stream.dead_letter where raw = any(%s)", (bad,))
    assert_equals(world, truth)


@pytest.mark.fault("F35")
def test_f35_late_out_of_order_and_repeated_events_are_judged_as_specified(world: World) -> None:
    arrivals = sample(hours=6)
    truth = truth_of(arrivals)
    fill(world.folder, arrivals)
    done = json.loads(world.run("--until-idle", "--max-messages", "97").stdout)
    assert done["late"] > 0, "late ones that correct a value"
    assert done["dead"]["late"] > 0, "and some that are too late"
    assert done["duplicates"] > 0
    newest, backwards = dict.fromkeys(range(4), 0), 0
    for partition, at in zip(arrivals.partition, arrivals.event_time, strict=True):
        backwards += at < newest[int(partition)]
        newest[int(partition)] = max(newest[int(partition)], int(at))
    assert backwards > 0, "out of order within a partition"
    assert_equals(world, truth)


@pytest.mark.fault("F50")
def test_f50_a_worker_that_hangs_with_messages_waiting_is_killed_and_started_again(world: World) -> None:
    arrivals = sample(**SMALL)
    truth = truth_of(arrivals)
    fill(world.folder, arrivals, 0, 200)
    parent = world.start("--supervise", "--stall-seconds", "4")
    wait_until(world, lambda conn: offsets(conn) == 200)
    (child,) = children(parent.pid)
    os.kill(child, signal.SIGSTOP)  # it lives, and does nothing
    fill(world.folder, arrivals, 200)
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    code, said = ended(parent, signal.SIGTERM)
    assert code == 0, said
    assert "no sign of progress" in said
    assert "ended with signal 9" in said
    assert_equals(world, truth)


@pytest.mark.fault("F50")
def test_f50_liveness_fails_when_messages_wait_and_nothing_moves() -> None:
    now = [100.0]
    liveness = Liveness(stall_seconds=60, clock=lambda: now[0])
    metrics = Metrics("shop", liveness)
    server = MetricsServer(metrics, 0)
    try:
        metrics.lag({0: 0})
        now[0] += 1_000
        assert health(server.port) == 200, "nothing waits: nothing has to move"
        metrics.lag({0: 0})
        metrics.lag({0: 7})
        now[0] += 60
        assert health(server.port) == 200
        now[0] += 1
        assert health(server.port) == 503
        liveness.moved()
        assert health(server.port) == 200
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10).read().decode()
        assert 'ct_stream_lag_messages{partition="0",stream="shop"} 7.0' in text
        for count in ("events_late_accepted", "events_duplicate", "tombstones", "session_restarts"):
            assert f'ct_stream_{count}_total{{stream="shop"}} 0.0' in text, "rate() needs the 0 before the first"
        for reason in REASONS:
            assert f'ct_stream_dead_letters_total{{reason="{reason}",stream="shop"}} 0.0' in text
    finally:
        server.close()


def test_each_of_several_workers_has_a_port_and_a_killed_one_is_no_worker(world: World) -> None:
    from ct_assets.adapters.stream import overview

    arrivals = sample(**SMALL)
    fill(world.folder, arrivals)
    port = free_ports(2)
    parent = world.start("--workers", "2", "--metrics-port", str(port))
    wait_until(world, lambda conn: owners(conn) == 2 and offsets(conn) == len(arrivals))  # one may read all alone
    assert [health(port), health(port + 1)] == [200, 200]
    taken = world.start("--no-supervise", "--metrics-port", str(port))
    code, said = ended(taken)
    assert (code, f"port {port} for metrics cannot be opened" in said) == (2, True), said
    with connect(world.url) as conn:
        assert overview.streams(conn)[0]["owners"] >= 1
    workers = children(parent.pid)
    parent.kill()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    with connect(world.url, autocommit=True) as conn:
        conn.execute("update stream.partition set updated_at = updated_at - interval '16 seconds'")
        found = overview.streams(conn)[0]
        assert (found["owners"], found["silent"] >= 1) == (0, True)


def test_what_nobody_foresaw_is_a_crash_to_the_supervisor_and_a_decision_is_not() -> None:
    from click.exceptions import Exit

    from ct_assets.adapters.events.port import LostData
    from ct_assets.adapters.postgres.connect import DatabaseUnreachable
    from ct_assets.adapters.stream_worker.supervise import CRASHED, DECIDED
    from ct_assets.cli.stream_run import as_child

    def raising(error: Exception):
        def work():
            raise error

        return work

    assert CRASHED not in DECIDED
    for error in (ValueError("a bug"), DatabaseUnreachable("away for 120 s")):
        with pytest.raises(Exit) as crashed:
            as_child(raising(error), supervised=True)
        assert crashed.value.exit_code == CRASHED
        with pytest.raises(type(error)):
            as_child(raising(error), supervised=False)
    with pytest.raises(LostData):
        as_child(raising(LostData("offsets are gone")), supervised=True)


def test_a_child_that_is_told_to_stop_before_it_can_listen_did_not_fail(tmp_path: Path) -> None:
    from ct_assets.adapters.stream_worker.supervise import Supervisor

    begun = tmp_path / "begun"
    deaf = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(600)"  # SIGTERM has its own action

    def tell() -> None:
        while not begun.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    teller = threading.Thread(target=tell)
    teller.start()
    assert Supervisor([sys.executable, "-c", deaf], 1, lambda text: None).run() == 0
    teller.join()


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that are free."""
    while True:
        with contextlib.ExitStack() as opened:
            first = opened.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for n in range(1, count):
                    opened.enter_context(socket.socket()).bind(("127.0.0.1", port + n))
            except OSError:
                continue
            return port


def health(port: int) -> int:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code

"""What only a live stream has: tombstones, partitions that come and fall silent, a broker's own clock, order online.

What goes here: cases that no engine of ``all_engines`` can say. What does not: kills and hand-overs (cases 11 and 12:
``adapters/stream_worker/test_worker.py``), Avro (19: ``test_worker_avro.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from ct_assets.adapters.events.log_sink import LogSink, add_partitions
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.storage import open_storage
from ct_assets.adapters.stream import online, online_read
from ct_assets.adapters.stream.hop_rows import emitted
from ct_assets.adapters.stream.snapshots import position
from ct_assets.adapters.stream_worker.wiring import open_worker
from ct_assets.settings import load
from ct_assets_tests.conformance.all_engines import LIVE_LOG
from ct_assets_tests.conformance.live_engine import LATER, Live, newest_stream
from ct_assets_tests.conformance.stream_engines import HEAD, SECOND, Case, Sent, event, us

sizes = pytest.mark.parametrize("engine", LIVE_LOG.values(), ids=LIVE_LOG)
MINUTE = 60 * SECOND


@sizes
@pytest.mark.case(19)
def test_case_19_a_tombstone_is_counted_and_no_poison(engine: Live, tmp_path: Path) -> None:
    sent = [event("01:00"), Sent(None, None), event("01:01")]
    assert engine(Case(tmp_path), sent, [(1, "02:00")]) == ([{"n": 2}], [])
    with connect(engine.url) as conn:
        assert conn.execute("select sum(tombstones) from stream.partition").fetchone() == (1,)


@sizes
@pytest.mark.case(6)
def test_case_06_hops_are_emitted_up_to_completeness(engine: Live, tmp_path: Path) -> None:
    """HOP(size 5 min, slide 1 min): counted by hand. The watermark is 08:50, so ends 01:00 to 08:00 are complete."""
    case = Case(tmp_path, head=HEAD + "emit: {hop: 1m}\n")
    sent = [event(at, user) for at, user in [("00:00", 1), ("00:30", 1), ("01:00", 2), ("04:59.999", 1), ("09:00", 2)]]
    engine(case, sent, [(1, "02:00")])
    settings = load({"CT_HOME": str(tmp_path / "home"), "CT_DATABASE_URL": engine.url})
    with connect(engine.url, autocommit=True) as conn:
        stream = newest_stream(conn)
        (name,) = conn.execute("select max(name) from stream.definition").fetchone() or ("",)
        table = online.ensure(conn, stream, replace(case.definition, name=name))
        frames = list(emitted(conn, table, (None, None), LATER, open_storage(settings)))
        part = list(emitted(conn, table, (us("02:00"), us("03:00")), LATER, open_storage(settings)))
    rows = {(row["user_id"], row["window_end"].minute): row["n"] for frame in frames for row in frame.to_dicts()}
    first = {(1, 1): 2, (1, 2): 2, (1, 3): 2, (1, 4): 2, (1, 5): 3, (1, 6): 1, (1, 7): 1, (1, 8): 1}
    assert rows == {**first, **{(2, minute): 1 for minute in range(2, 7)}}
    assert {(row["user_id"], row["window_end"].minute) for f in part for row in f.to_dicts()} == {(1, 3), (2, 3)}
    assert_command_writes(engine.url, name, tmp_path, len(rows))


def assert_command_writes(url: str, view: str, folder: Path, rows: int) -> None:
    """`ct stream hops` writes the same rows."""
    out = folder / "hops.parquet"
    environment = {**os.environ, "CT_HOME": str(folder / "home"), "CT_DATABASE_URL": url}
    command = [sys.executable, "-m", "ct_assets.cli", "stream", "hops", "--view", view, "--out", str(out), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == rows == pl.read_parquet(out).height


@sizes
@pytest.mark.case(10)
def test_case_10_a_silent_partition_holds_nobody_up_and_is_judged_by_itself(engine: Live, tmp_path: Path) -> None:
    sent = [
        event("00:30", partition=1, append=us("00:30")),
        event("10:00", partition=0, append=us("10:00")),
    ]
    engine(Case(tmp_path), sent, [(1, "01:00")])
    with connect(engine.url, autocommit=True) as conn:
        stream = newest_stream(conn)
        (name,) = conn.execute("select max(name) from stream.definition").fetchone() or ("",)
        table = online.ensure(conn, stream, replace(Case(tmp_path).definition, name=name))
        conn.execute("update stream.partition set caught_up = true")  # what the heartbeat of a living worker says
        assert position(conn, table, us("10:01")).watermark == us("09:50")
        looked = "update stream.partition set updated_at = timestamptz 'epoch' + %s * interval '1 microsecond'"
        conn.execute(looked, (us("00:50"),))
        assert position(conn, table, us("10:01")).watermark == us("00:20"), (
            "nobody looked since: nobody knows that it is silent"
        )
        conn.execute(looked, (us("10:01"),))
        conn.execute("update stream.partition set caught_up = false where partition = 1")  # messages still to read
        assert position(conn, table, us("10:01")).watermark == us("00:20")
    resumed = [*sent, event("00:40", partition=1, append=us("10:05"))]
    assert engine(Case(tmp_path), resumed, [(1, "01:00")]) == ([{"n": 2}], [])


@sizes
@pytest.mark.case(22)
def test_case_22_an_older_event_never_wins_and_a_correction_does(engine: Live, tmp_path: Path) -> None:
    case = Case(tmp_path, "  - {name: newest, function: last, column: amount, window: 2h}\n")
    older = [event("10:00", amount=100), event("09:10", amount=1)]
    assert engine(case, older, [(1, "10:01")]) == ([{"newest": Decimal(100)}], [])
    corrected = [event("10:00", amount=2), event("10:00", amount=3)]
    assert engine(case, corrected, [(1, "10:01")]) == ([{"newest": Decimal(3)}], [])


@sizes
@pytest.mark.case(24)
def test_case_24_a_removed_or_retyped_field_is_a_dead_letter(engine: Live, tmp_path: Path) -> None:
    removed = Sent(None, b'{"event_id":"r","event_time":"2026-01-01T00:01:00Z"}')
    retyped = Sent(None, b'{"event_id":"s","user_id":1,"event_time":"2026-01-01T00:01:00Z","amount":true}')
    sent = [removed, retyped, event("01:00")]
    assert engine(Case(tmp_path), sent, [(1, "02:00")]) == ([{"n": 1}], [(0, "null_key"), (1, "contract")])


@pytest.mark.case(26)
def test_case_26_partitions_added_while_the_worker_runs(pg_url: str, tmp_path: Path) -> None:
    """The same user lands elsewhere from then on: nothing is lost, nothing counts twice."""
    case, folder = Case(tmp_path), tmp_path / "growing"
    settings = load({"CT_HOME": str(tmp_path / "home"), "CT_DATABASE_URL": pg_url})
    options = {"message_format": "json", "unknown_schema": "dead-letter", "stall_seconds": 60.0, "metrics_port": 0}
    sink = LogSink(str(folder), 2)
    sink.send([event("01:00").payload], partition=0, append_time=LATER)
    sink.flush()
    worker, _, close = open_worker(
        settings, [case.definition], f"log://{folder}", {**options, "until_idle": False, "max_messages": 100}, print
    )
    running = threading.Thread(target=worker.run)
    running.start()
    try:
        wait_for(pg_url, 1)
        sink.close()
        add_partitions(folder, 4)
        grown = LogSink(str(folder), None)
        same = event("01:30")
        for partition, message in ((3, event("01:20")), (2, same), (2, same), (0, event("01:40"))):
            grown.send([message.payload], partition=partition, append_time=LATER)
        grown.close()
        wait_for(pg_url, 5)
    finally:
        worker.stop()
        running.join(60)
        close()
    with connect(pg_url, autocommit=True) as conn:
        table = online.ensure(conn, newest_stream(conn), case.definition)
        assert online_read.read(conn, table, [1], us("02:00")).values[0] == {"n": 4}
        assert conn.execute("select sum(duplicates) from stream.partition").fetchone() == (1,)


@pytest.mark.xdist_group("kafka")
@pytest.mark.case(14)
@pytest.mark.case(27)
def test_case_14_and_27_on_a_broker_that_stamps_the_arrival(pg_url: str, kafka_url: str, tmp_path: Path) -> None:
    """An hour ahead of the broker's clock is `future`; four minutes ahead is taken and makes nobody else late."""
    now = time.time_ns() // 1_000
    sent = [
        event(now - 20 * SECOND, user=1),
        event(now + 3_600 * SECOND, user=1),
        event(now + 4 * MINUTE, user=2),
        event(now - 5 * SECOND, user=3),
        event(now - 25 * SECOND, user=1),
    ]
    engine = Live("kafka", 1, url=pg_url, broker=kafka_url)
    rows, dead = engine(Case(tmp_path), sent, [(1, now), (2, now + 5 * MINUTE), (3, now)])
    assert ([row["n"] for row in rows], dead) == ([2, 1, 1], [(1, "future")])


def wait_for(url: str, messages: int) -> None:
    deadline, row = time.monotonic() + 60, None
    with connect(url, autocommit=True) as conn:
        while time.monotonic() < deadline:
            row = conn.execute("select coalesce(sum(greatest(next_offset, 0)), 0) from stream.partition").fetchone()
            if row == (messages,):
                return
            time.sleep(0.05)
    raise AssertionError(f"{messages} messages were never committed: {row}")

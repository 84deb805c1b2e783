"""What is known of a stream's progress when its workers have ended: as much as while they ran, and no more.

Why by killing and by stopping: a killed worker leaves its partitions as they were, one that is stopped gives them back.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import state, versions
from ct_assets.adapters.stream.online_reads import OnlineReads
from ct_assets.adapters.stream.snapshots import position
from ct_assets_tests.adapters.stream_worker.test_worker import ended, wait_until
from ct_assets_tests.adapters.stream_worker.world import World

T = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
S = 1_000_000


def send(world: World, partition: int, second: int, value: bytes | None = None) -> None:
    at = f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}Z"
    event = {"event_id": f"{partition}-{second}", "user_id": 1, "event_time": at, "event_type": "click", "amount": None}
    event |= {"session_id": "s", "product_id": "p"}
    sink = LogSink(str(world.folder), 3)
    sink.send([value or json.dumps(event).encode()], partition=partition, append_time=T + second * S)
    sink.close()


def told(world: World, at: int, online_url: str | None) -> tuple[int | None, ...]:
    """The watermark as a read, a snapshot and `ct stream status` have it, which are one (seconds after T)."""
    with connect(world.url, autocommit=True) as conn:
        table = versions.find_table(conn, "user_activity")
        read = OnlineReads(online_url).read(conn, table, [1], at)
        seen = position(conn, table, at)
    assert (read.watermark_us, None if read.staleness_us is None else at - read.staleness_us) == (
        seen.watermark,
        None if seen.fresh_as_of is None else min(seen.fresh_as_of, at),
    )
    return seen.watermark and (seen.watermark - T) // S


def shown(world: World) -> Any:
    command = [sys.executable, "-m", "ct_assets.cli", "stream", "status", "--json"]
    done = subprocess.run(command, env=world.environ(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["streams"][0]["watermark"]


LATER = T + 3_600 * S


@pytest.mark.parametrize("end", ["until_idle", "stopped", "killed"])
def test_a_partition_of_dead_letters_does_not_erase_the_watermark(
    world: World, online_url: str | None, end: str
) -> None:
    send(world, 0, 600)
    send(world, 1, 605, b"no JSON")  # partition 2 never had a message
    if end == "until_idle":
        done = world.run("--until-idle")
        assert (done.returncode, json.loads(done.stdout)["events"]) == (0, 1), done.stderr
    else:
        worker = world.start("--no-supervise")
        wait_until(
            world,
            lambda conn: (
                conn.execute("select bool_and(caught_up), count(*) from stream.partition").fetchone() == (True, 3)
            ),
        )
        assert told(world, LATER, online_url) == 590
        assert ended(worker, signal.SIGTERM if end == "stopped" else signal.SIGKILL)[0] in (0, -signal.SIGKILL)
    assert told(world, LATER, online_url) == 590
    assert shown(world).startswith("2026-01-01T00:09:50")


def test_an_idle_partition_stays_idle_and_none_becomes_so_after_the_end(world: World, online_url: str | None) -> None:
    send(world, 0, 600)
    send(world, 1, 30)
    assert world.run("--until-idle").returncode == 0
    assert told(world, T + 601 * S, online_url) == 590, "silent at that moment, as a reader during the run was told"
    with connect(world.url, autocommit=True) as conn:  # the last look came 5 s after the newest message of partition 1
        conn.execute(
            "update stream.partition set updated_at = timestamptz 'epoch' + %s * interval '1 microsecond'",
            (T + 35 * S,),
        )
        table = versions.find_table(conn, "user_activity")
        assert position(conn, table, LATER).watermark == T + 20 * S, "nobody looked since: it may have messages"
        conn.execute("update stream.partition set updated_at = clock_timestamp()")
        assert position(conn, table, LATER).watermark == T + 590 * S
        stream = state.find_stream(conn, table.stream_id)
        state.claim(conn, stream, [1], "another")
        assert position(conn, table, LATER).watermark == T + 20 * S, "it is about to be read: it may have messages"
        state.claim(conn, stream, [9], "another")
        assert position(conn, table, LATER).watermark is None, (
            "an added partition that nobody looked into holds back all"
        )
        state.heartbeat(conn, stream, "another", {1: 0, 9: 0})
        assert position(conn, table, LATER).watermark == T + 590 * S
        state.release(conn, stream, [1, 9], "another")
        assert position(conn, table, LATER).watermark == T + 590 * S
        state.claim(conn, stream, [9], "another")
        state.heartbeat(conn, stream, "another", {9: 4})
        state.release(conn, stream, [9], "another")
        assert position(conn, table, LATER).watermark is None, "left with messages to read"

"""Retention and the windows that are asked later: no registered window loses events, and what a new one lacks is said.

Why the events end now: retention counts days from the clock. Why each is counted by hand: the number of events of a user
after a moment is the whole oracle that a count needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.postgres.migrate import VERSIONS
from ct_assets_tests.adapters.stream_worker.test_moved_topic import ct
from ct_assets_tests.adapters.stream_worker.world import World

DAY = 86_400_000_000
EVENTS, DAYS, USERS = 2_000, 20, 3
CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: t
name: t
version: 1.0.0
status: active
schema:
  - name: visits
    logicalType: object
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: who, logicalType: integer, required: true}
      - {name: at_time, logicalType: timestamp, required: true, logicalTypeOptions: {timezone: true}}
"""
DEFINITION = """\
apiVersion: ct_assets/v1
kind: StreamAggregates
name: NAME
source: {contract: c.odcs.yaml, event_id: id, event_time: at_time}
entity: who
out_of_orderness: 10s
allowed_lateness: 60s
ttl: 60d
aggregates:
  - {name: n, function: count, window: WINDOW}
"""


def defined(folder: Path, name: str, window: str) -> Path:
    (folder / "c.odcs.yaml").write_text(CONTRACT)
    path = folder / f"{name}-{window}.yaml"
    path.write_text(DEFINITION.replace("NAME", name).replace("WINDOW", window))
    return path


def sent(world: World) -> list[tuple[int, int]]:
    """(user, time) of events over twenty days up to now, one partition, in order; they are in the log."""
    now = round(time.time() * 1e6)
    times = [now - (EVENTS - i) * DAYS * DAY // EVENTS for i in range(EVENTS)]
    events = [(i % USERS, t) for i, t in enumerate(times)]
    payloads = [
        json.dumps({"id": f"e{i}", "who": who, "at_time": (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t)).isoformat()}).encode()
        for i, (who, t) in enumerate(events)
    ]  # fmt: skip
    sink = LogSink(str(world.folder), 1)
    sink.send(payloads, partition=0, append_time=times)
    sink.close()
    return events


def read(world: World, view: str, *more: str, code: int = 0) -> list[dict[str, Any]]:
    """`ct features get` of every user now."""
    keys = [word for user in range(USERS) for word in ("--entity", f"who={user}")]
    command = [sys.executable, "-m", "ct_assets.cli", "features", "get", "--view", view, *keys, "--json", *more]
    done = subprocess.run(command, env=world.environ(), capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def counted(events: list[tuple[int, int]], rows: list[dict[str, Any]], days: float, kept_from: int = 0) -> None:
    """Every user's ``n`` is the number of its events in the window that ends at the moment of the read."""
    for row in rows:
        at = round(datetime.fromisoformat(row["at"]).timestamp() * 1e6)
        there = Counter(who for who, t in events if max(at - round(days * DAY), kept_from) <= t < at)
        assert row["n"] == there[row["who"]], row


def stored_from(world: World) -> tuple[int, int]:
    """(time of the first event that is still stored, how many are)."""
    with connect(world.url, autocommit=True) as conn:
        row = conn.execute("select min(min_event_time), sum(rows)::bigint from stream.chunk").fetchone()
    assert row is not None
    return row


def checked(world: World, view: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ct_assets.cli", "features", "check", "--view", view, "--json"]
    done = subprocess.run(command, env=world.environ(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_no_window_of_a_definition_loses_events(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_STREAM_RETENTION_DAYS", "3")
    events = sent(world)
    world.definition = defined(tmp_path, "visits", "10d")
    done = world.run("--until-idle", "--max-messages", "50")
    assert done.returncode == 0, done.stderr
    assert "CT_STREAM_RETENTION_DAYS=3 is less than windows of visits need: its events are kept for" in done.stderr
    assert stored_from(world)[1] == EVENTS, "twice the longest window lies behind every read that anybody may make"
    counted(events, read(world, "visits"), 10)
    new = ("--definition", str(defined(tmp_path, "visits", "9d")))
    assert ct(world, "plan", *new)["whole_from"] is None
    assert ct(world, "deploy", *new)["switched"] is True
    counted(events, read(world, "visits"), 9)
    found = checked(world, "visits")
    assert (found["reads"], found["mismatches"], found["left_out"]) == (USERS, 0, 0)


def test_what_a_longer_window_lacks_is_said_and_switched_to_only_with_yes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online_url: str | None
) -> None:
    monkeypatch.setenv("CT_STREAM_RETENTION_DAYS", "3")
    events = sent(world)
    world.definition = defined(tmp_path, "visits", "12h")
    assert world.run("--until-idle", "--max-messages", "50").returncode == 0
    first, left = stored_from(world)
    assert 200 < left < 400, "three days of twenty, to a whole chunk"
    gone = EVENTS - left
    last_gone = max(t for _, t in events if t < first)
    whole_from = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=last_gone + 1 + 9 * DAY)).isoformat()

    new = ("--definition", str(defined(tmp_path, "visits", "9d")))
    planned = ct(world, "plan", *new)
    assert (planned["action"], planned["events_removed"], planned["whole_from"]) == ("build", gone, whole_from)
    refused = ct(world, "deploy", *new, code=1)["said"]
    assert f"retention has removed {gone:,} events" in refused
    assert f"are whole from {whole_from[:10]}" in refused
    assert "nothing was switched" in refused
    assert "--yes" in refused
    counted(events, read(world, "visits"), 0.5)
    assert read(world, "visits")[0]["whole_from"] is None
    assert ct(world, "plan", *new)["whole_from"] == whole_from, "built beside by now, and not whole either"
    assert ct(world, "deploy", *new, "--yes")["switched"] is True
    rows = read(world, "visits")
    counted(events, rows, 9, kept_from=first)
    assert {row["whole_from"] for row in rows} == {whole_from}
    found = checked(world, "visits")
    assert (found["reads"], found["mismatches"], found["left_out"]) == (USERS, 0, 0)
    versions = ct(world, "status")["definitions"]
    assert {d["answers"]: d["whole_from"] for d in versions} == {False: None, True: whole_from}


def test_a_second_definition_says_what_it_lacks(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_STREAM_RETENTION_DAYS", "3")
    events = sent(world)
    world.definition = defined(tmp_path, "visits", "12h")
    assert world.run("--until-idle", "--max-messages", "50").returncode == 0
    first, left = stored_from(world)
    world.definition = defined(tmp_path, "second", "10d")
    planned = ct(world, "plan", "--definition", str(world.definition), "--source", world.source)
    assert (planned["action"], planned["events_removed"]) == ("first", EVENTS - left)
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    assert f"second: retention has removed {EVENTS - left:,} events" in done.stderr
    rows = read(world, "second")
    counted(events, rows, 10, kept_from=first)
    assert rows[0]["whole_from"] == planned["whole_from"] is not None
    found = checked(world, "second")
    assert (found["reads"], found["mismatches"]) == (USERS, 0)
    again = world.run("--until-idle")
    assert "retention has removed" not in again.stderr
    assert stored_from(world) == (first, left), "from now on its window keeps them"


def test_values_that_differ_because_history_is_gone_are_called_so(world: World, tmp_path: Path) -> None:
    """Releases before this one let retention remove what windows reach: the version that answers still has it."""
    events = sent(world)
    world.definition = defined(tmp_path, "visits", "10d")
    assert world.run("--until-idle", "--max-messages", "50").returncode == 0
    with connect(world.url) as conn:
        before = events[-300][1]
        conn.execute("delete from stream.chunk where max_event_time < %s", (before,))
        conn.execute("update stream.stream set removed_before = %s", (before,))
    more = defined(tmp_path, "visits", "11d")
    more.write_text(more.read_text().replace("n, f", "m, f") + "  - {name: n, function: count, window: 10d}\n")
    refused = ct(world, "deploy", "--definition", str(more), code=1)["said"]
    assert "retention has removed 1,700 events" in refused
    assert "3 values that should be the same differ between the versions; nothing was switched" in refused
    assert "must not happen" not in refused
    done = ct(world, "deploy", "--definition", str(more), "--yes")
    assert (done["switched"], done["different"]) == (True, 3)
    counted(events, read(world, "visits"), 10, kept_from=before)


def test_versions_of_before_the_upgrade_are_not_taken_for_whole(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_STREAM_RETENTION_DAYS", "3")
    sent(world)
    world.definition = defined(tmp_path, "visits", "12h")
    assert world.run("--until-idle", "--max-messages", "50").returncode == 0
    world.definition = defined(tmp_path, "second", "10d")
    assert world.run("--until-idle").returncode == 0
    said = {d["name"]: d["whole_from"] for d in ct(world, "status")["definitions"]}
    assert said["second"] is not None
    with connect(world.url) as conn:
        conn.execute("alter table stream.definition drop column lacks_before")
        conn.execute("drop table stream.accepted_loss")
        conn.execute("update stream.stream set created_at = created_at - interval '1 hour'")
        conn.execute(
            "update stream.definition set created_at = created_at - interval '1 hour' where name = 'visits'",
        )
        conn.execute((VERSIONS / "0005_coverage.sql").read_bytes())  # later migrations have nothing to do with it
    assert {d["name"]: d["whole_from"] for d in ct(world, "status")["definitions"]} == said | {"visits": None}
    with connect(world.url) as conn:
        rows = conn.execute("select name, lacks_before from stream.definition order by name").fetchall()
    assert [(name, lacks is None) for name, lacks in rows] == [("second", False), ("visits", True)]

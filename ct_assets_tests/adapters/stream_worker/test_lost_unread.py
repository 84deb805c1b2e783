"""Messages that a topic deleted unread (F47) are given up by a person: every command that a message names is run.

Why a third of one partition is lost in the middle: what was read before and what comes after must count, nothing else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import polars as pl
import pytest

from ct_assets.adapters.events import log_segments
from ct_assets.adapters.events.port import LogTruncated, OffsetOutOfRange, TopicRecreated, open_sink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream.training_frames import LossInReach, training_frame
from ct_assets.adapters.stream.versions import find_table
from ct_assets.cli.stream import stream as commands
from ct_assets_tests.adapters.stream_worker.test_after_retention import USERS, checked, counted, defined, read
from ct_assets_tests.adapters.stream_worker.test_moved_topic import ct
from ct_assets_tests.adapters.stream_worker.world import World

MANY = 30
Sent = dict[int, list[tuple[int, int]]]


def send(world: World, tag: str) -> Sent:
    """``MANY`` events of the last minutes on each of two partitions: partition -> (user, time), a frame each in a log."""
    sink = open_sink(world.source, partitions=2)
    now, sent = round(time.time() * 1e6), {0: [], 1: []}
    for partition, n in ((p, n) for p in (0, 1) for n in range(MANY)):
        who, at = n % USERS, now - (MANY - n) * 1_000_000
        text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).isoformat()
        sink.send(
            [json.dumps({"id": f"{tag}{partition}-{n}", "who": who, "at_time": text}).encode()], partition=partition
        )
        sink.flush()
        sent[partition].append((who, at))
    sink.close()
    return sent


def expire(world: World, before: int) -> None:
    """The messages of partition 0 before an offset go, as the topic's retention takes them."""
    if world.topic is None:
        for base in log_segments.segments(world.folder / "p00000"):
            if base < before:
                log_segments.segment_path(world.folder / "p00000", base).unlink()
        return
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    place, _, name = world.topic.removeprefix("kafka://").partition("/")
    admin = AdminClient({"bootstrap.servers": place})
    for asked in admin.delete_records([TopicPartition(name, 0, before)]).values():
        asked.result(30)


def commanded(world: World, said: str, *more: str, code: int = 0) -> dict[str, Any]:
    """The command that a message names between backticks, as it stands there."""
    (named,) = re.findall(r"`ct (stream accept-loss .*?)`", said)
    command = [sys.executable, "-m", "ct_assets.cli", *named.split(), "--json", *more]
    done = subprocess.run(command, env=world.environ(), capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if code == 0 else {"said": done.stderr}


@pytest.fixture(params=["log", pytest.param("kafka", marks=pytest.mark.xdist_group("kafka"))])
def lossy(
    request: pytest.FixtureRequest, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[World, list[tuple[int, int]]]:
    """A stream of which a third of partition 0 expired before it was read, and the events that can be read."""
    if request.param == "kafka":
        world.topic = request.getfixturevalue("kafka_url")
    monkeypatch.setattr(log_segments, "SEGMENT_BYTES", 1)
    world.definition = defined(tmp_path, "visits", "1h")
    first = send(world, "a")
    assert world.run("--until-idle").returncode == 0
    second, third = send(world, "b"), send(world, "c")
    expire(world, 2 * MANY)
    return world, [*first[0], *first[1], *second[1], *third[0], *third[1]]


@pytest.mark.fault("F47")
def test_what_was_lost_unread_is_given_up_by_name_and_the_rest_counts(
    lossy: tuple[World, list[tuple[int, int]]], online_url: str | None
) -> None:
    world, left = lossy
    stopped = world.run("--until-idle")
    assert stopped.returncode == 1
    assert f"offsets [{MANY}, {2 * MANY}) were deleted unread" in stopped.stderr
    assert f"ct stream accept-loss --definition {world.definition} --source {world.source}`" in stopped.stderr
    planned = commanded(world, stopped.stderr)
    (loss,) = planned["losses"]
    assert (loss["partition"], loss["from"], loss["to"], loss["offsets"]) == (0, MANY, 2 * MANY, MANY)
    assert planned["accepted"] is False
    after, before = (datetime.fromisoformat(loss[key]) for key in ("appended_after", "appended_before"))
    assert after < before <= datetime.now(UTC)
    assert world.run("--until-idle").returncode == 1, "a plan changes nothing"
    assert incidents(world) == ["open"]

    assert commanded(world, stopped.stderr, "--yes")["accepted"] is True
    assert incidents(world) == ["closed"]
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    rows = read(world, "visits")
    counted(left, rows, 1 / 24)
    whole_from = datetime.fromisoformat(rows[0]["whole_from"])
    assert before + timedelta(hours=1) <= whole_from <= before + timedelta(hours=1, minutes=5)
    assert checked(world, "visits")["mismatches"] == 0
    status = ct(world, "status")
    (kept,) = status["losses"]
    assert (kept["partition"], kept["from"], kept["to"], kept["accepted_by"] != "") == (0, MANY, 2 * MANY, True)
    assert datetime.fromisoformat(kept["accepted_at"]) <= datetime.now(UTC)
    assert status["definitions"][0]["whole_from"] == rows[0]["whole_from"]
    trained(world, whole_from)
    assert "nothing was lost" in commanded(world, stopped.stderr, "--yes", code=2)["said"]
    fresh = send(world, "d")
    assert world.run("--until-idle").returncode == 0
    counted([*left, *fresh[0], *fresh[1]], read(world, "visits"), 1 / 24)


def test_what_other_streams_read_or_give_up_closes_no_incident_of_a_loss(
    lossy: tuple[World, Any], tmp_path: Path
) -> None:
    """One contract over this topic with another lateness, and over another topic: both read on, this stream is stuck."""
    world, _ = lossy
    assert world.run("--until-idle").returncode == 1
    more_patient = defined(tmp_path, "patient", "1h")
    more_patient.write_text(more_patient.read_text().replace("lateness: 60s", "lateness: 90s"))
    patient = replace(world, definition=more_patient)
    assert patient.run("--until-idle").returncode == 0, "it begins where the topic begins"
    elsewhere = replace(world, definition=defined(tmp_path, "elsewhere", "1h"), topic=None, folder=tmp_path / "other")
    send(elsewhere, "e")
    assert elsewhere.run("--until-idle").returncode == 0
    assert incidents(world) == ["open"]
    with connect(world.url) as conn:
        conn.execute(
            """update stream.partition p set next_offset = 1 from stream.definition d
               where d.name = 'patient' and d.stream_id = p.stream_id and partition = 0"""
        )
    assert patient.run("--until-idle").returncode == 1
    assert incidents(world) == ["open", "open"]
    ct(world, "accept-loss", "--definition", str(more_patient), "--source", world.source, "--yes")
    assert incidents(world) == ["open", "closed"]
    assert world.run("--until-idle").returncode == 1
    assert incidents(world) == ["open", "closed"]
    ct(world, "accept-loss", "--definition", str(world.definition), "--source", world.source, "--yes")
    assert incidents(world) == ["closed", "closed"]


def test_a_loss_that_grows_between_plan_and_yes_is_given_up_as_it_is_then(lossy: tuple[World, Any]) -> None:
    world, _ = lossy
    words = ("--definition", str(world.definition), "--source", world.source)
    assert ct(world, "accept-loss", *words)["losses"][0]["to"] == 2 * MANY
    expire(world, 2 * MANY + 10)
    assert ct(world, "accept-loss", *words, "--yes")["losses"][0]["to"] == 2 * MANY + 10
    assert world.run("--until-idle").returncode == 0
    with connect(world.url, autocommit=True) as conn:
        row = conn.execute("select next_offset from stream.partition where partition = 0").fetchone()
    assert row == (3 * MANY,)


def test_a_worker_that_still_holds_the_partition_is_fenced(lossy: tuple[World, Any]) -> None:
    from ct_assets.adapters.stream import state

    world, _ = lossy
    with connect(world.url, autocommit=True) as conn:
        stream = state.find_stream(conn, 1)
        claim = state.claim(conn, stream, [0], "late")[0]
        ct(world, "accept-loss", "--definition", str(world.definition), "--source", world.source, "--yes")
        late = state.PartitionProgress(0, claim.epoch, claim.next_offset, claim.next_offset + 5)
        with pytest.raises(state.Fenced):
            state.commit(conn, stream, progress=[late], events=pl.DataFrame())


def test_a_stream_that_is_not_there_and_a_log_that_lost_its_end_are_no_such_loss(world: World, tmp_path: Path) -> None:
    world.definition = defined(tmp_path, "visits", "1h")
    words = ("accept-loss", "--definition", str(world.definition), "--source", world.source, "--yes")
    send(world, "a")
    assert "never read" in ct(world, *words, code=2)["said"]
    assert world.run("--until-idle").returncode == 0
    assert "nothing was lost" in ct(world, *words, code=2)["said"]
    with connect(world.url) as conn:
        conn.execute("update stream.partition set next_offset = 1000 where partition = 1")
    assert "no longer in the log" in ct(world, *words, code=1)["said"]


@pytest.mark.parametrize("lost", [OffsetOutOfRange(0, 1, 2), TopicRecreated("a", "b"), LogTruncated(0, 2, 1)])
def test_every_hint_names_commands_that_are_there(lost: Any) -> None:
    named = re.findall(r"`ct stream ([\w-]+)(.*?)`", lost.hint)
    assert named, lost.hint
    for name, words in named:
        command = commands.commands[name]
        known = {
            option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts
        }
        assert set(re.findall(r"--[\w-]+", words)) <= known, words


def trained(world: World, whole_from: datetime) -> None:
    """A training set says which of its labels' windows reach the gap."""
    at = [whole_from - timedelta(days=1), whole_from - timedelta(microseconds=1), whole_from]
    labels = pl.DataFrame({"who": [0, 0, 0], "at": at}, schema_overrides={"at": pl.Datetime("us", "UTC")})
    with connect(world.url, autocommit=True) as conn:
        table = find_table(conn, "visits")
        with pytest.warns(LossInReach, match="windows of 1 of 3 labels of visits reach messages that were given up"):
            training_frame(conn, table, labels)


def incidents(world: World) -> list[str]:
    with connect(world.url) as conn:
        query = "select state from ledger.incident where rule = 'offset_out_of_range' order by incident_id"
        return [row[0] for row in conn.execute(query)]

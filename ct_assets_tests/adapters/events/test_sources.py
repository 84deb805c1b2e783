"""One suite for every source: order, offsets, tombstones, resuming, back-pressure, and the losses that must stop a reader."""

from __future__ import annotations

import re
import time

import pytest

from ct_assets.adapters.events import log_segments as files
from ct_assets.adapters.events.port import (
    BEGINNING,
    EventSource,
    LogTruncated,
    OffsetOutOfRange,
    Position,
    TopicRecreated,
    check_identity,
)
from ct_assets_tests.adapters.events.reading import PATIENCE, payloads, read_all, read_to, rows
from ct_assets_tests.adapters.events.worlds import World


def _fill(world: World, count: int, partition: int = 0, first: int = 0) -> list[bytes]:
    values = [b'{"n": %d}' % n for n in range(first, first + count)]
    sink = world.sink()
    sink.send(values, partition=partition)
    sink.close()
    return values


def _until_raised(source: EventSource, error: type[Exception]) -> pytest.ExceptionInfo:
    """Read on until ``error`` comes."""

    def read_on() -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            source.poll(100, 0.1)

    with pytest.raises(error) as found:
        read_on()
    return found


def test_order_offsets_times_and_tombstones(world: World) -> None:
    world.create(2)
    before = time.time_ns() // 1000
    values = {0: [b"a", None, b"", b"x" * 5000, b"\x00\n\xff"], 1: [b"only"]}
    sink = world.sink()
    for p, some in values.items():
        sink.send(some, partition=p)
    sink.close()
    source = world.source()
    assert source.identity().append_time
    assert source.partitions() == [0, 1]
    assert source.begin_offsets() == {0: 0, 1: 0}
    assert source.end_offsets() == {0: 5, 1: 1}
    source.assign({0: 0, 1: BEGINNING})
    assert source.positions() == {0: 0, 1: 0}
    found = read_to(source, {0: 5, 1: 1})
    assert [row for row in found if row[0] == 0] == [(0, i, v) for i, v in enumerate(values[0])]
    assert [row for row in found if row[0] == 1] == [(1, 0, b"only")]
    assert source.positions() == {0: 5, 1: 1}
    source.assign({0: 0})
    messages = source.poll(1, 10)
    source.close()
    assert len(messages) == 1
    assert bytes(messages.take([0]).data) == b"a\n"
    assert before - 2_000 <= messages.append_time[0] <= time.time_ns() // 1000 + 2_000  # Kafka stamps milliseconds


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_every_step_gives_the_same(world: World, step: int) -> None:
    world.create(1)
    values = _fill(world, 200)
    source = world.source()
    assert read_all(source, {0: 0}, step) == values
    assert read_all(source, {0: 137}, step) == values[137:]
    assert read_all(source, {0: 200}) == []
    source.close()


def test_a_poll_of_thousands_keeps_its_limit_and_loses_nothing(world: World) -> None:
    """More than a reader takes out of its client at a time, with tombstones, from two partitions that end meanwhile."""
    world.create(2)
    sink = world.sink()
    sent = [[None if n % 700 == 3 else b"%d of %d" % (n, p) for n in range(9_000 + p)] for p in (0, 1)]
    for p in (0, 1):
        sink.send(sent[p], partition=p)
    sink.close()
    source = world.source()
    source.assign({0: 0, 1: 0})
    found: list[tuple[int, int, bytes | None]] = []
    deadline = time.monotonic() + PATIENCE
    while source.positions() != {0: 9_000, 1: 9_001} and time.monotonic() < deadline:
        messages = source.poll(4_999, 0.2)
        assert len(messages) <= 4_999
        found += rows(messages)
    source.close()
    for p in (0, 1):
        assert [row for row in found if row[0] == p] == [(p, n, value) for n, value in enumerate(sent[p])]


def test_a_reader_that_waits_gets_what_comes(world: World) -> None:
    world.create(1)
    source = world.source()
    source.assign({0: 0})
    assert len(source.poll(10, 0.2)) == 0
    values = _fill(world, 3)
    assert [value for _, _, value in read_to(source, {0: 3})] == values
    assert len(source.poll(10, 0.2)) == 0
    source.close()


def test_resume_goes_on_where_the_last_reader_stopped(world: World) -> None:
    world.create(1)
    values = _fill(world, 50)
    first = world.source()
    first.assign({0: 0})
    half = read_to(first, {0: 20}, step=20)
    position, epoch = first.positions()[0], first.leader_epochs().get(0, -1)
    first.close()
    second = world.source()
    check_identity(first.identity(), second.identity())
    second.assign({0: Position(position, epoch)})
    rest = read_to(second, {0: 50})
    second.close()
    assert [value for _, _, value in half + rest] == values


def test_paused_partitions_are_silent_and_lose_nothing(world: World) -> None:
    world.create(2)
    _fill(world, 20, 0)
    _fill(world, 20, 1)
    source = world.source()
    source.assign({0: 0, 1: 0})
    source.pause([1])
    quiet = read_to(source, {0: 20}, step=4)
    quiet += rows(source.poll(100, 0.3))
    assert {p for p, _, _ in quiet} == {0}
    source.resume([1])
    assert [offset for _, offset, _ in read_to(source, {1: 20})] == list(range(20))
    source.close()


def test_assigning_again_takes_no_message_of_before(world: World) -> None:
    world.create(2)
    _fill(world, 500, 0)
    values = _fill(world, 500, 1)
    source = world.source()
    source.assign({0: 0, 1: 0})
    source.poll(3, 10)
    source.assign({1: 490})
    assert [(p, v) for p, _, v in read_to(source, {1: 500})] == [(1, value) for value in values[490:]]
    source.close()


@pytest.mark.fault("F47")
def test_f47_offsets_that_retention_deleted_stop_the_reader(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)  # a log's segment a frame
    world.create(1)
    _fill(world, 10)
    values = _fill(world, 10, first=10)
    world.expire(0, 10)
    source = world.source()
    assert source.begin_offsets() == {0: 10}  # the fault happened
    with pytest.raises(OffsetOutOfRange) as lost:
        source.assign({0: 4})
    assert (lost.value.partition, lost.value.committed, lost.value.available_from) == (0, 4, 10)
    assert "6 offsets [4, 10)" in lost.value.message
    assert read_all(source, {0: BEGINNING}) == values
    source.close()


@pytest.mark.fault("F47")
def test_f47_retention_that_overtakes_a_paused_reader_stops_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)
    world.create(1)
    _fill(world, 10)
    source = world.source()
    source.assign({0: 0})
    assert len(read_to(source, {0: 10})) == 10
    source.pause([0])
    _fill(world, 10, first=10)
    _fill(world, 10, first=20)
    world.expire(0, 20)
    assert source.begin_offsets() == {0: 20}  # the fault happened
    source.resume([0])
    if (
        world.kind == "log"
    ):  # an open file outlives its name: what was open is still read, the gap behind it is not jumped
        with pytest.raises(files.LogCorrupt, match="next segment begins at 20"):
            read_to(source, {0: 30})
    else:
        lost = _until_raised(source, OffsetOutOfRange)
        assert (lost.value.committed, lost.value.available_from) == (10, 20)
        with pytest.raises(OffsetOutOfRange):
            source.poll(1, 0)  # and there is no going on
    source.close()


@pytest.mark.fault("F48")
def test_f48_a_recreated_topic_stops_a_running_reader_and_a_new_one(world: World) -> None:
    world.create(1)
    _fill(world, 10)
    running = world.source()
    old = running.identity()
    running.assign({0: 0})
    read_to(running, {0: 10})
    world.recreate(1)
    _fill(world, 40, first=1000)
    new = world.source()
    assert new.identity().topic_id != old.topic_id  # the fault happened
    assert (new.identity().cluster_id, new.identity().topic) == (old.cluster_id, old.topic)
    with pytest.raises(TopicRecreated, match=re.escape(old.topic_id)):
        check_identity(old, new.identity())
    found = _until_raised(running, TopicRecreated)
    assert (found.value.old_id, found.value.new_id) == (old.topic_id, new.identity().topic_id)
    with pytest.raises(TopicRecreated):
        running.assign({0: 10})
    running.close()
    new.close()


@pytest.mark.fault("F49")
@pytest.mark.usefixtures("kafka_alone")
def test_f49_a_truncated_log_stops_a_new_reader_and_a_running_one(world: World) -> None:
    world.create(1)
    for first in range(0, 30, 10):
        _fill(world, 10, first=first)
    running = world.source()
    running.assign({0: 0})
    read_to(running, {0: 30})
    epoch = running.leader_epochs().get(0, -1)
    world.truncate(0, 20)
    late = world.source()
    assert late.end_offsets() == {0: 20}  # the fault happened
    with pytest.raises(LogTruncated) as lost:
        late.assign({0: Position(30, epoch)})
    assert (lost.value.partition, lost.value.committed, lost.value.end) == (0, 30, 20)
    found = _until_raised(running, LogTruncated)
    assert (found.value.committed, found.value.end) == (30, 20)
    late.close()
    running.close()
    if world.kind != "log":  # a log has one writer and no elections
        _other_messages_on_the_old_offsets(world, Position(30, epoch))


def _other_messages_on_the_old_offsets(world: World, position: Position) -> None:
    """The log was cut and has grown past the reader again: no offset is out of range, yet what was read is gone."""
    _fill(world, 40, first=1000)
    source = world.source()
    assert source.end_offsets() == {0: 60}  # the range alone does not show it
    assert position.leader_epoch >= 0
    source.assign({0: position})
    lost = _until_raised(source, LogTruncated)
    assert (lost.value.partition, lost.value.committed, lost.value.end) == (0, 30, 20)
    source.close()


def test_payloads_survive_a_broker_that_batches_and_compresses(world: World) -> None:
    world.create(1)
    sink = world.sink()
    values = [b"%d:" % n + b"abc" * (n % 50) for n in range(5000)]
    for low in range(0, 5000, 999):
        sink.send(values[low : low + 999], partition=0)
    sink.close()
    source = world.source()
    source.assign({0: 0})
    parts = []
    while sum(map(len, parts)) < 5000:
        parts.append(source.poll(10_000, 5))
    source.close()
    assert [value for part in parts for value in payloads(part)] == values
    for part in parts:  # laid out for a decoder that takes the buffer whole
        assert bytes(part.take(range(len(part))).data).split(b"\n")[:-1] == payloads(part)

"""Readers that share a topic, on every kind of source: nobody reads twice, nothing is left out, also as the topic grows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ct_assets_tests.adapters.events.reading import PATIENCE, payloads
from ct_assets_tests.adapters.events.worlds import ON_KAFKA, QUICK, KafkaWorld, World


class Progress(dict[int, int]):
    """The committed offset of each partition, and who may move it: as in the database, the last one who claimed it."""

    def __init__(self) -> None:
        super().__init__()
        self.owner: dict[int, Member] = {}


class Member:
    """A worker in small: commits with every poll, begins where the last owner committed, is refused once another owns."""

    def __init__(self, world: World, committed: Progress, further: str = "") -> None:
        self.source = world.source(further)
        self.committed = committed
        self.refused = 0
        self.owned: set[int] = set()
        self.lost: list[int] = []
        self.seen: list[tuple[int, int, bytes | None]] = []
        self.interruptions = 0
        self.source.subscribe(world.group, self.on_assign, self.on_revoke, self.on_lost)

    def on_assign(self, partitions: list[int]) -> dict[int, int]:
        self.owned |= set(partitions)
        self.committed.owner |= dict.fromkeys(partitions, self)
        return {p: self.committed.get(p, 0) for p in partitions}

    def on_revoke(self, partitions: list[int]) -> None:
        self.interruptions += 1
        self.owned -= set(partitions)

    def on_lost(self, partitions: list[int]) -> None:
        self.owned -= set(partitions)
        self.lost += partitions

    def step(self) -> None:
        """Read, fold, commit."""
        messages = self.source.poll(50, 0.05)
        for p, offset, value in zip(
            messages.partition.tolist(), messages.offset.tolist(), payloads(messages), strict=True
        ):
            assert p in self.owned, "a message of a partition that went away came out of poll"
            if self.committed.owner[p] is not self:  # fetched before it was lost
                self.refused += 1
                continue
            assert offset == self.committed.get(p, 0), "a gap or a repetition"
            self.seen.append((p, offset, value))
            self.committed[p] = offset + 1
        self.source.commit_offsets({p: self.committed[p] for p in set(messages.partition.tolist())})


ANOTHER_PROCESS = """
import sys
from pathlib import Path
from ct_assets.adapters.events.kafka_batches import open_kafka_source
from ct_assets.settings import KafkaSettings, Secret

brokers, topic, group, reader, options, told = sys.argv[1:]
source, owned = open_kafka_source(brokers, topic, KafkaSettings(reader=reader, options=Secret(options))), set()

def on_assign(partitions):
    owned.update(partitions)
    Path(told).write_text(str(owned))
    return dict.fromkeys(partitions, 0)

def on_revoke(partitions):
    owned.difference_update(partitions)
    Path(told).write_text(str(owned))

source.subscribe(group, on_assign, on_revoke, on_revoke)
while True:
    source.poll(50, 0.05)
"""


def _turns(members: list[Member], until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, [(m.owned, m.committed) for m in members]
        for member in members:
            member.step()


def _send(world: World, rounds: int, partitions: int, tag: str) -> set[bytes]:
    sink = world.sink()
    sent = set()
    for number in range(rounds):
        for p in range(partitions):
            value = f"{tag}-{p}-{number}".encode()
            sink.send([value], partition=p)
            sent.add(value)
    sink.close()
    return sent


def test_two_members_share_and_lose_nothing_when_one_joins_and_leaves(world: World) -> None:
    world.create(4)
    committed = Progress()
    sent = _send(world, 40, 4, "a")
    first = Member(world, committed)
    _turns([first], lambda: len(first.owned) == 4 and len(first.seen) > 20)
    second = Member(world, committed)
    _turns([first, second], lambda: len(first.owned) == len(second.owned) == 2)
    assert not first.owned & second.owned
    kept = set(first.owned)
    sent |= _send(world, 40, 4, "b")
    _turns([first, second], lambda: sum(committed.values()) == len(sent))
    assert {p for p, _, value in second.seen if value and value.startswith(b"b")} == second.owned
    before = first.interruptions
    second.source.close()
    assert second.owned == set()  # close tells its callbacks
    sent |= _send(world, 20, 4, "c")
    _turns([first], lambda: len(first.owned) == 4 and sum(committed.values()) == len(sent))
    assert first.interruptions == before  # cooperative: what stayed was not interrupted
    assert kept <= first.owned
    first.source.close()
    assert first.refused == second.refused == 0  # nobody stalled: each let go in good order
    values = [value for member in (first, second) for _, _, value in member.seen]
    assert len(values) == len(sent)
    assert set(values) == sent


def test_added_partitions_are_found_and_shared(world: World) -> None:
    world.create(2)
    committed = Progress()
    first, second = Member(world, committed), Member(world, committed)
    _turns([first, second], lambda: len(first.owned) == len(second.owned) == 1)
    sent = _send(world, 10, 2, "a")
    world.grow(4)
    sent |= _send(world, 10, 4, "b")
    _turns([first, second], lambda: first.owned | second.owned == {0, 1, 2, 3} and sum(committed.values()) == len(sent))
    assert len(first.owned) == len(second.owned) == 2
    assert first.refused == second.refused == 0  # nobody stalled: each let go in good order
    values = [value for member in (first, second) for _, _, value in member.seen]
    assert len(values) == len(sent)
    assert set(values) == sent
    assert first.source.end_offsets() == committed
    first.source.close()
    second.source.close()


@pytest.mark.parametrize("world", ON_KAFKA, indirect=True)  # a log's partition is lost with its process alone
def test_a_member_that_stalls_loses_its_partitions_and_is_told(world: World) -> None:
    world.create(2)
    committed = Progress()
    stalled, other = Member(world, committed, "max.poll.interval.ms=3000"), Member(world, committed)
    _turns([stalled, other], lambda: len(stalled.owned) == len(other.owned) == 1)
    theirs = set(stalled.owned)
    sent = _send(world, 10, 2, "a")
    _turns([other], lambda: other.owned == {0, 1} and sum(committed.values()) == len(sent))
    assert {value for _, _, value in other.seen} == sent
    assert stalled.owned == theirs  # it does not know yet
    _turns([stalled], lambda: bool(stalled.lost))
    assert set(stalled.lost) == theirs
    assert stalled.seen == []
    other.source.close()
    stalled.source.close()


@pytest.mark.parametrize("world", ON_KAFKA, indirect=True)
def test_a_named_member_takes_its_place_again_after_a_kill_and_leaves_it_when_it_closes(
    world: KafkaWorld, tmp_path: Path
) -> None:
    """Sessions are longer than anybody here waits. A process is killed: a member that is only asked no more still answers
    the broker, and may fence the one that comes back under its name."""
    world.create(2)
    committed, named = Progress(), "session.timeout.ms=200000;group.instance.id="
    told = tmp_path / "owned"
    arguments = [world.brokers, world.name, world.group, world.reader, f"{QUICK};{named}a", str(told)]
    killed = subprocess.Popen([sys.executable, "-c", ANOTHER_PROCESS, *arguments])
    try:
        other = Member(world, committed, f"{named}b")
        _turns(
            [other], lambda: len(other.owned) == 1 and told.exists() and told.read_text() == str({0, 1} - other.owned)
        )
    finally:
        killed.kill()
        killed.wait()
    sent, before = _send(world, 10, 2, "a"), other.interruptions
    back = Member(world, committed, f"{named}a")
    _turns([other, back], lambda: str(back.owned) == told.read_text() and sum(committed.values()) == len(sent))
    assert other.interruptions == before
    world.grow(4)
    sent |= _send(world, 10, 4, "b")
    _turns([other, back], lambda: back.owned | other.owned == {0, 1, 2, 3} and sum(committed.values()) == len(sent))
    back.source.close()
    assert back.owned == set()
    sent |= _send(world, 10, 4, "c")
    _turns([other], lambda: other.owned == {0, 1, 2, 3} and sum(committed.values()) == len(sent))
    other.source.close()
    values = [value for member in (other, back) for _, _, value in member.seen]
    assert len(values) == len(sent)
    assert set(values) == sent


@pytest.mark.parametrize("world", ON_KAFKA, indirect=True)
def test_who_closes_takes_no_partition_on_the_way_out(world: KafkaWorld) -> None:
    """Partitions that were given before the first poll wait in the client, and closing it delivers them: who took them
    would fence those that read on, and fail where the database is away."""
    from confluent_kafka import ConsumerGroupState

    world.create(2)
    leaving = Member(world, Progress())
    deadline = time.monotonic() + PATIENCE
    while world.group_state() != ConsumerGroupState.STABLE:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    leaving.source.close()
    assert leaving.committed.owner == {}

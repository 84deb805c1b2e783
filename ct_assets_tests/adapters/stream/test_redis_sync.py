"""Redis follows what PostgreSQL committed: repeats, disorder, kills, a Redis that is empty, older, ahead or away.

Why values are compared with the oracle after each fault: a batch applied twice, or not at all, shows in a sum.
"""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from ct_assets.adapters.stream import dead_letters, redis_log, redis_online, state
from ct_assets.adapters.stream.online import OnlineTable
from ct_assets.adapters.stream.packed_rows import Range, pack
from ct_assets.adapters.stream.redis_online import (
    Delta,
    OnlineBehind,
    OnlineNotLoaded,
    OnlineUnreachable,
    Progress,
    RedisTable,
    connect,
)
from ct_assets.adapters.stream.redis_sync import OnlineAway, Twin
from ct_assets.adapters.stream.stored_form import fitted
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream import victim, worlds
from ct_assets_tests.adapters.stream.test_online_values import random_events, ready
from ct_assets_tests.adapters.stream.worlds import DAY, START, SUMMARISED, UNPACKED, Given, H, M, Writer
from ct_assets_tests.redis_server import RedisServer

USERS = [0, 1, 2, 3, 99]
MOMENTS = [START + 30 * M, START + 61 * M + 17, START + 2 * H]


def twin_of(writer: Writer, url: str, **more: Any) -> Twin:
    return Twin.opened(url, writer.stream, reads_back_us=DAY, **more)


def assert_equal(place: RedisTable, events: Sequence[Event], users: Sequence[Any] = USERS) -> None:
    for at in MOMENTS:
        for user, values in zip(users, place.read(users, at).values, strict=True):
            assert worlds.shown(values) == worlds.expected(place.table.definition, events, user, at), (user, at - START)


@pytest.fixture
def made(conn: psycopg.Connection, tmp_path: Path, redis_url: str) -> tuple[Writer, Twin, RedisTable]:
    writer, table = ready(conn, worlds.definition(tmp_path))
    twin = twin_of(writer, redis_url)
    return writer, twin, twin.place(conn, table)


class Recorder:
    """Remembers what a worker would have applied, instead of applying it."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[state.PartitionProgress], pl.DataFrame]] = []

    def committed(
        self, conn: psycopg.Connection, progress: Sequence[state.PartitionProgress], events: pl.DataFrame
    ) -> None:
        self.batches.append((list(progress), events))


def test_nothing_loaded_is_refused_and_never_read_as_empty(conn, made) -> None:
    _, twin, place = made
    with pytest.raises(OnlineNotLoaded, match="has nothing of visits"):
        place.read([1], START)
    twin.level(conn)
    assert place.read([1], START + M).values[0]["n"] == 0
    assert place.read([], START).values == []


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
@pytest.mark.parametrize("seed", range(3))
def test_batches_out_of_order_and_repeated_change_nothing(
    conn, tmp_path: Path, redis_url: str, aggregates: str, seed: int
) -> None:
    """At every step the values are those of exactly the version that the read names."""
    rng = random.Random(seed)
    writer, table = ready(conn, worlds.definition(tmp_path, aggregates))
    recorder = Recorder()
    writer.twin = recorder  # pyright: ignore[reportAttributeAccessIssue]
    events = worlds.accepted(random_events(seed, 160))
    for start in range(0, 160, 20):
        writer.commit(events[start : start + 20])
    twin = twin_of(writer, redis_url)
    place = twin.place(conn, table)
    order = recorder.batches * 2
    rng.shuffle(order)
    labels = pl.DataFrame({"who": USERS, "at": [MOMENTS[1]] * len(USERS)})
    for progress, frame in order:
        twin.committed(conn, progress, frame)
        read = place.read(USERS, MOMENTS[1])
        again = training_frame(conn, table, labels, Request(version=read.version))
        assert again.drop("who", "at").to_dicts() == read.values
    assert_equal(place, events)


def test_a_batch_applied_in_part_is_completed_by_another_range(conn, made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker died after the first of several calls; the next one catches up over that batch and the one after it."""
    writer, twin, place = made
    twin.level(conn)
    monkeypatch.setattr(redis_online, "MESSAGE_BYTES", 200)
    events = worlds.accepted(random_events(7, 120, partitions=1))
    recorder = Recorder()
    writer.twin = recorder  # pyright: ignore[reportAttributeAccessIssue]
    writer.commit(events[:80])
    rows = pack(place.packing, worlds.frame(events[:80]), {0: Range(-2, 80)})
    assert rows is not None
    messages = list(rows.messages(200))
    assert len(messages) > 2
    cut = int((rows.ends <= len(messages[0])).sum())
    half = replace(rows, data=rows.data[: len(messages[0])], ends=rows.ends[:cut])
    generation = place.generation()
    assert generation is not None
    assert place.send(half, generation, Delta({0: Range(-2, 80)}, {0: -2})) == []
    monkeypatch.setattr(redis_online, "TORN_SECONDS", 0.05)
    with pytest.raises(OnlineBehind, match="half a commit"):  # values and version would not belong together
        place.read(USERS, MOMENTS[0])
    assert place.read(USERS, MOMENTS[0], version=False).version == {}
    writer.commit(events[80:])
    whole = {0: Range(-2, 120)}
    overlapping = place.send(pack(place.packing, worlds.frame(events), whole), generation, Delta(whole, {0: -2}))  # pyright: ignore[reportArgumentType]
    assert {version for _, _, version in overlapping} == {80}
    # what overlapped was left out: those entities have the first batch only, and a catch-up mends them
    twin.level(conn)
    assert_equal(place, events)


@pytest.mark.parametrize("point", ["acknowledged", "twin_sent", "twin_sent*2"])
def test_killed_between_commit_and_apply_then_restarted_is_equal(
    conn, pg_url: str, redis_url: str, tmp_path: Path, point: str
) -> None:
    """A batch is committed, or is in Redis without Redis saying so, when the process dies; nothing is lost or doubled."""
    writer, table = ready(conn, worlds.definition(tmp_path))
    writer.twin = twin_of(writer, redis_url)
    first = worlds.accepted([Given(u, u * M, partition=u % 2) for u in range(10)])
    writer.commit(first)
    place = writer.twin.place(conn, table)
    before = place.progress()
    command = [sys.executable, "-m", "ct_assets_tests.adapters.stream.victim", pg_url, str(tmp_path), point, redis_url]
    died = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (place.progress() == before) == (point != "twin_sent*2")  # the second partition's turn
    twin_of(writer, redis_url).level(conn)
    assert {p: found.next_offset for p, found in (place.progress() or {}).items()} == {0: 30, 1: 30}
    assert_equal(place, [*first, *victim.second_batch()], list(range(10)))


def test_an_emptied_redis_is_loaded_again(conn, made) -> None:
    writer, twin, place = made
    writer.twin = twin
    events = worlds.accepted(random_events(1, 90))
    writer.commit(events[:30])
    place.client.flushdb()
    with pytest.raises(OnlineNotLoaded):
        place.read([1], START)
    writer.commit(events[30:60])  # the next commit notices
    assert_equal(place, events[:60])
    place.client.flushdb()
    twin.level(conn)  # so does the next look, without any commit
    writer.commit(events[60:])
    assert_equal(place, events)


def test_a_load_in_several_pieces_has_every_event(conn, made, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entity has events in many chunks, and a piece ends between them: each piece adds to what the one before wrote."""
    writer, twin, place = made
    events = worlds.accepted(random_events(6, 120))
    for start in range(0, 120, 10):
        writer.commit(events[start : start + 10])
    monkeypatch.setattr(redis_log, "EVENTS_AT_ONCE", 30)
    twin.level(conn)
    assert_equal(place, events)


def test_a_load_whose_answer_was_lost_is_sent_again_and_counts_once(conn, made) -> None:
    """The client sends a pipeline again when its connection breaks after Redis wrote it."""
    place = made[2]
    events = worlds.accepted(random_events(8, 60, partitions=1))
    ranges = {0: Range(float("inf"), 60)}
    rows = pack(place.packing, worlds.frame(events), ranges)
    assert rows is not None
    for _ in range(2):
        assert place.send(rows, b"g", Delta(ranges, numbers=itertools.count(1))) == []
    place.publish(b"g", {0: Progress(60)})
    assert_equal(place, events)
    assert place.sweep(b"g") == 1  # the count of messages


def test_replays_that_redis_missed_are_applied_each_once(conn, made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one entity, in several pieces; then the process that applied one died before the rest."""
    writer, twin, place = made
    definition = place.table.definition
    texts = [f'{{"id": "x{n}", "who": 1, "at_time": "2026-01-01T00:01:5{n}Z", "kind": "a"}}' for n in range(6)]
    dead = [
        state.DeadLetterRow(0, 5 + n, "poison", "torn", definition.acceptance.contract_digest, text.encode(), None)
        for n, text in enumerate(texts)
    ]
    writer.commit(worlds.accepted([Given(1, 2 * M)]), dead=dead)
    twin.level(conn)
    letters = [row[0] for row in conn.execute("select dead_letter_id from stream.dead_letter order by 1").fetchall()]
    decoder = fitted(conn, writer.stream, definition, JsonDecoder(definition.schema, definition.acceptance))

    def replay(some: Sequence[int]) -> None:
        for letter in some:
            found = dead_letters.replay(conn, writer.stream, decoder, dead_letters.Chosen(ids=(letter,)), START + H)
            assert found.outcomes == {"accepted": 1}

    def n() -> int:
        return place.read([1], START + 2 * M + 1).values[0]["n"]

    replay(letters[:3])
    monkeypatch.setattr(redis_log, "EVENTS_AT_ONCE", 1)
    twin.level(conn)
    assert n() == 4
    replay(letters[3:4])
    before = place.progress()
    twin.level(conn)
    assert before is not None
    place.client.hset(place.base, "0", before[0].text)  # as if it had died before it said so
    replay(letters[4:])
    twin.level(conn)
    assert n() == 7


def test_an_older_redis_catches_up_and_one_that_is_ahead_is_loaded_again(conn, made) -> None:
    """Restored from a dump of before; then a database that lost its last commits (a failover) under a Redis that has them."""
    writer, twin, place = made
    writer.twin = twin
    events = worlds.accepted(random_events(2, 90))
    writer.commit(events[:30])
    dump = {name: place.client.dump(name) for name in place.client.scan_iter()}
    writer.commit(events[30:])
    place.client.flushdb()
    for name, value in dump.items():
        place.client.restore(name, 0, value)  # pyright: ignore[reportArgumentType]
    assert_equal(place, events[:30])
    twin.level(conn)
    assert_equal(place, events)
    generation = place.generation()
    progress = place.progress()
    assert progress is not None
    place.client.hset(place.base, "0", replace(progress[0], next_offset=10_000).text)
    twin.level(conn)
    assert place.generation() != generation
    assert place.progress() == progress
    assert_equal(place, events)
    assert all(place.generation() in name for name in place.client.scan_iter(match=f"{place.base}:*"))


def test_two_workers_and_a_lost_partition(conn, made, redis_url: str) -> None:
    """Each applies its own partition; one takes over the other's, whose last batch never reached Redis."""
    writer, twin, place = made
    other = Writer(conn, writer.stream, writer.tables, owner="w2")
    events = worlds.accepted(random_events(4, 120, partitions=2))
    mine, theirs = ([e for e in events if e.partition == p] for p in (0, 1))
    writer.twin, other.twin = twin, twin_of(writer, redis_url)
    writer.commit(mine[:20])
    other.commit(theirs[:20])
    writer.commit(mine[20:])
    assert_equal(place, [*mine, *theirs[:20]])
    other.twin = None
    other.commit(theirs[20:40])
    writer.take([1])
    writer.commit(theirs[40:])
    assert_equal(place, events)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="ct-redis-") as folder:
        server = RedisServer(Path(folder))
        yield server
        server.stop(signal.SIGKILL)


def test_commits_go_on_while_redis_is_away_up_to_the_patience(conn, tmp_path: Path, redis_server, own_redis) -> None:
    now = [1_000.0]
    said: list[str] = []
    own_redis.start()
    writer, table = ready(conn, worlds.definition(tmp_path))
    twin = twin_of(writer, own_redis.url(), say=said.append, clock=lambda: now[0])
    writer.twin = twin
    place = twin.place(conn, table)
    events = worlds.accepted(random_events(5, 80))
    writer.commit(events[:20])
    own_redis.stop(signal.SIGKILL)
    for start in (20, 40):
        writer.commit(events[start : start + 20])
        now[0] += 30
    assert ["does not answer" in sentence for sentence in said] == [False, True]  # loaded; then said once
    with pytest.raises(OnlineUnreachable, match="does not answer"):
        place.read([1], START)
    own_redis.start()  # without persistence: empty
    writer.commit(events[60:])
    assert said[-1].startswith("Redis is back after 60 s")
    assert_equal(place, events)
    own_redis.stop(signal.SIGKILL)
    twin.level(conn)
    now[0] += 121
    with pytest.raises(OnlineAway, match="was away for more than 120 s"):
        twin.level(conn)


def test_rows_out_of_every_window_go_and_keys_end_with_the_ttl(conn, tmp_path: Path, redis_url: str) -> None:
    writer, table = ready(conn, worlds.definition(tmp_path, "  - {name: n, function: count, window: 1m}\n"))
    writer.twin = Twin.opened(redis_url, writer.stream)
    place = writer.twin.place(conn, table)
    writer.twin.level(conn)
    events = worlds.accepted([Given(1, n * M) for n in range(300)])
    for start in range(0, 300, 10):
        writer.commit(events[start : start + 10])
    name = f"{place.base}:{(place.generation() or b'').decode()}:1"
    assert place.client.strlen(name) < 20 * 100  # bytes: some ten rows, not the 150 that were written
    thirty_days = 30 * 86_400_000 + 2 * 60_000  # and a tile
    assert thirty_days - 600_000 < place.client.pttl(name) <= thirty_days  # pyright: ignore[reportOperatorIssue]
    newest = events[-1].time
    for at in (newest, newest + 1, newest + M, newest + M + 1):
        assert place.read([1], at).values[0] == worlds.expected(table.definition, events, 1, at)


@pytest.mark.parametrize("aggregates", [SUMMARISED, UNPACKED], ids=["summarised", "unpacked"])
def test_rows_that_fill_up_bit_by_bit_are_closed_in_redis(
    conn, tmp_path: Path, redis_url: str, aggregates: str
) -> None:
    """Redis then makes the sums of a closed row: of windows that hold it whole, and beside those that do not."""
    writer, table = ready(conn, worlds.definition(tmp_path, aggregates))
    writer.twin = twin_of(writer, redis_url)
    place = writer.twin.place(conn, table)
    given = [replace(e, t=M + number * M // 1_000) for number, e in enumerate(random_events(3, 1_600, 2, 2))]
    events = worlds.accepted(given)
    for start in range(0, 1_600, 40):
        writer.commit(events[start : start + 40])
    name = f"{place.base}:{(place.generation() or b'').decode()}:1"
    assert {key.rsplit(b":", 1)[1] for key in place.client.scan_iter(match=f"{name}:*")} >= {b"1", b"2"}
    for at in (START + 5 * M, START + 6 * M + 17, START + 61 * M + 17, START + 3 * H):
        for user, values in zip((0, 1), place.read([0, 1], at).values, strict=True):
            assert worlds.shown(values) == worlds.expected(table.definition, events, user, at), (user, at - START)


def test_events_that_were_evicted_are_noticed(conn, tmp_path: Path, redis_url: str) -> None:
    import redis

    writer, table = ready(conn, worlds.definition(tmp_path))
    writer.twin = twin_of(writer, redis_url)
    writer.commit(worlds.accepted([Given(1, n * M // 10, paid=Decimal(1)) for n in range(600)]))
    place = writer.twin.place(conn, table)
    name = f"{place.base}:{(place.generation() or b'').decode()}:1"
    place.client.unlink(f"{name}:1", f"{name}:2")
    with pytest.raises(redis.ResponseError, match="are gone: was a key evicted"):
        place.read([1], START + 6 * M)


def test_versions_of_another_database_are_apart(conn, made, redis_url: str) -> None:
    """The same definition registered again (another database) must not find the rows of before."""
    writer, twin, place = made
    writer.twin = twin
    writer.commit(worlds.accepted([Given(1, M)]))
    conn.execute("update stream.definition set created_at = created_at + interval '1 second'")
    table: OnlineTable = place.table
    again = RedisTable.of(connect(redis_url), conn, table)
    with pytest.raises(OnlineNotLoaded):
        again.read([1], START)
    assert place.sweep(None) > 0
    assert place.generation() is None

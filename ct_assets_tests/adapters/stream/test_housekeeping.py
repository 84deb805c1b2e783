"""Housekeeping changes where events lie, never which there are: compaction, garbage, retention, and crashes in between.

Why readers are stopped half-way here: a reader that lists chunks and fetches them later would lose those that were merged.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import psycopg
import pytest

from ct_assets.adapters.clock import SystemClock
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.storage import LocalStorage
from ct_assets.adapters.stream import compaction, consistency, dead_letters, housekeeping, online, state
from ct_assets.adapters.stream.chunks import ChunkDamaged, EventQuery, event_frames
from ct_assets.adapters.stream.housekeeping import Housekeeper, Rules, tidy
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.errors import UsageError
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import assert_values, random_events, ready
from ct_assets_tests.adapters.stream.worlds import START, Given, H, M, S, Writer

LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)  # every chunk is old enough for a small file
ORDER = ["_partition", "_offset"]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


def filled(conn: psycopg.Connection, folder: Path) -> tuple[Writer, online.OnlineTable, list[Event]]:
    """Twelve commits over three partitions and six hours, one commit every half hour."""
    writer, table = ready(conn, worlds.definition(folder))
    events: list[Event] = []
    for number in range(12):
        given = [
            Given(g.who, number * 30 * M + g.t % (20 * M), g.kind, g.paid, partition=g.partition)
            for g in random_events(number, 40)
        ]
        batch = worlds.accepted(sorted(given, key=lambda g: g.t), first_offset=1000 * number)
        writer.commit(batch)
        events += batch
    return writer, table, events


def stored(
    conn: psycopg.Connection, writer: Writer, storage: LocalStorage, query: EventQuery | None = None
) -> pl.DataFrame:
    return state.events(conn, writer.stream, query, storage).sort(ORDER)


def test_compacted_events_are_the_same_events(conn, tmp_path: Path, storage: LocalStorage) -> None:
    writer, table, events = filled(conn, tmp_path)
    queries = [
        EventQuery(),
        EventQuery(since=START + H, until=START + 4 * H),
        EventQuery(known_by=START + 2 * H),
        EventQuery(version={0: (3005, 0), 2: (2000, 0)}),
        EventQuery(after={0: (1003, 0), 1: (5000, 0)}),
        EventQuery(columns=("who", "paid"), since=START + 2 * H),
        EventQuery(partitions=(1,)),
    ]
    before = [stored(conn, writer, storage, query) for query in queries]
    moved = compaction.compact(conn, writer.stream, storage, LATER)
    assert moved.files == 3
    assert moved.chunks > 20
    for query, frame in zip(queries, before, strict=True):
        assert stored(conn, writer, storage, query).equals(frame), query
        assert len(frame)
    assert len(before[0]) == len(events)
    labels = pl.DataFrame({"who": [0, 1, 2, 3], "at": [START + 5 * H + 1] * 4})
    found = training_frame(conn, table, labels, Request("corrected", storage=storage)).to_dicts()
    for row in found:
        expected = worlds.expected(table.definition, events, row["who"], START + 5 * H + 1)
        assert {k: row[k] for k in ("n", "s_paid_1h")} == {k: expected[k] for k in ("n", "s_paid_1h")}


def test_what_recovery_needs_stays_in_the_database(conn, tmp_path: Path, storage: LocalStorage) -> None:
    writer, _, events = filled(conn, tmp_path)
    compaction.compact(conn, writer.stream, storage, LATER)
    rules = writer.stream.acceptance
    for partition in range(3):
        top = max(e.time for e in events if e.partition == partition)
        since = top - rules.out_of_orderness_us - rules.dedup_horizon_us
        kept = pl.concat(state.replay_frames(conn, writer.stream, partition, since))  # without the storage
        assert len(kept) == sum(e.partition == partition and e.time >= since for e in events)
    assert conn.execute("select count(*) > 0 from stream.chunk where location is not null").fetchone() == (True,)


def test_small_runs_wait_until_they_are_old(conn, tmp_path: Path, storage: LocalStorage) -> None:
    writer, _, _ = filled(conn, tmp_path)
    assert compaction.compact(conn, writer.stream, storage, LATER - dt.timedelta(days=2)).files == 0


def test_a_full_file_does_not_wait(
    conn, tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _, events = filled(conn, tmp_path)
    monkeypatch.setattr(compaction, "FILE_ROWS", 30)
    moved = compaction.compact(conn, writer.stream, storage, LATER - dt.timedelta(days=2))
    assert moved.files > 3
    assert moved.rows >= 30 * moved.files
    assert len(stored(conn, writer, storage)) == len(events)


def test_many_small_commits_do_not_wait(
    conn, tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _, events = filled(conn, tmp_path)
    monkeypatch.setattr(compaction, "RUN_CHUNKS", 4)
    moved = compaction.compact(conn, writer.stream, storage, LATER - dt.timedelta(days=2))
    assert moved.files >= 3
    assert moved.chunks == 4 * moved.files
    assert len(stored(conn, writer, storage)) == len(events)


@pytest.mark.parametrize("frames_before", range(0, 30, 3))
def test_a_reader_in_the_middle_of_a_compaction_sees_each_event_once(
    conn, tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, frames_before: int
) -> None:
    from ct_assets.adapters.stream import chunks

    monkeypatch.setattr(chunks, "_AT_ONCE", 2)
    writer, _, events = filled(conn, tmp_path)
    reader = event_frames(conn, writer.stream, EventQuery(), storage)
    frames = [next(reader) for _ in range(frames_before)]
    assert compaction.compact(conn, writer.stream, storage, LATER).files == 3
    frames += list(reader)
    found = pl.concat(frames).select(ORDER).sort(ORDER).rows()
    assert found == sorted((e.partition, e.offset) for e in events)


@pytest.mark.parametrize("point", compaction.COMPACTION_POINTS)
def test_a_crash_anywhere_loses_nothing_and_leaves_no_file(
    conn, tmp_path: Path, storage: LocalStorage, point: str
) -> None:
    class Killed(Exception):
        pass

    def crash(at: str) -> None:
        if at == point:
            raise Killed

    writer, _, events = filled(conn, tmp_path)
    with pytest.raises(Killed):
        compaction.compact(conn, writer.stream, storage, LATER, crash)
    assert len(stored(conn, writer, storage)) == len(events)
    assert compaction.compact(conn, writer.stream, storage, LATER).files >= 2
    assert len(stored(conn, writer, storage)) == len(events)
    swept = compaction.sweep(conn, writer.stream, storage, LATER)
    assert swept == (0 if point == "chunks_exchanged" else 1)
    named = {row[0] for row in conn.execute("select location from stream.chunk where location is not null")}
    assert set(storage.list()) == named
    assert len(stored(conn, writer, storage)) == len(events)


def test_a_damaged_file_is_noticed(conn, tmp_path: Path, storage: LocalStorage) -> None:
    writer, _, _ = filled(conn, tmp_path)
    compaction.compact(conn, writer.stream, storage, LATER)
    key = next(iter(storage.list()))
    data = bytearray(storage.get(key))
    data[len(data) // 2] ^= 1
    storage.put(key, bytes(data))
    with pytest.raises(ChunkDamaged, match="is not what was committed"):
        stored(conn, writer, storage)


def test_retention_removes_what_is_old_and_refuses_to_read_it_as_nothing(
    conn, tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FILE_ROWS", 20)
    writer, table, events = filled(conn, tmp_path)
    compaction.compact(conn, writer.stream, storage, LATER)
    removed = compaction.remove_before(conn, writer.stream, START + 6 * H)
    rest = stored(conn, writer, storage)
    assert removed > 100
    assert len(rest) == len(events) - removed
    assert compaction.sweep(conn, writer.stream, storage, LATER) > 2
    named = {row[0] for row in conn.execute("select location from stream.chunk where location is not null")}
    assert set(storage.list()) == named
    newest = max(e.time for e in events)
    old = pl.DataFrame({"who": [1], "at": [START + 2 * H]})
    with pytest.raises(UsageError, match="retention has removed events that labels of visits need"):
        training_frame(conn, table, old, Request(storage=storage))
    late = pl.DataFrame({"who": [1], "at": [newest + H]})
    assert training_frame(conn, table, late, Request("corrected", storage=storage)).height == 1
    # recovery and windows find all they need, also when more was asked to be removed
    places = set(rest.select(ORDER).rows())
    for partition in range(3):
        reached = max(e.time for e in events if e.partition == partition) - 2 * H - 70 * S
        assert all((partition, e.offset) in places for e in events if e.partition == partition and e.time >= reached)
    assert removed >= sum(e.time < newest - 3 * H for e in events) - 3 * 20, "no more is kept than that and whole files"


def test_hops_whose_events_retention_removed_are_not_written_as_if_nothing_had_happened(
    conn, tmp_path: Path, storage: LocalStorage
) -> None:
    from ct_assets.adapters.stream.hop_rows import emitted

    aggregates = "  - {name: n, function: count, window: 20m}\n"
    writer, table = ready(conn, worlds.definition(tmp_path, aggregates, more="emit: {hop: 10m}\n"))
    events = worlds.accepted([Given(1, n * M) for n in range(6 * 60)])
    for begin in range(0, len(events), 7):
        writer.commit(events[begin : begin + 7])
    now = START + 7 * H

    def rows(since: int | None = None) -> set[tuple[dt.datetime, int]]:
        frames = list(emitted(conn, table, (since, None), now, storage))
        return set(pl.concat(frames).select("window_end", "n").rows())

    before = rows()
    assert compaction.remove_before(conn, writer.stream, START + 2 * H) > 100
    removed = conn.execute("select removed_before from stream.stream").fetchone()[0]
    whole = removed + 20 * M
    kept = {row for row in before if round(row[0].timestamp() * 1e6) >= whole}
    assert rows() == kept
    assert 10 < len(kept) < len(before)
    assert rows(whole - 1) == kept
    with pytest.raises(UsageError, match="retention has removed events that windows of visits need"):
        rows(whole - 2)


def test_retention_in_the_middle_of_a_read_is_noticed(
    conn, tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ct_assets.adapters.stream import training_frames

    writer, table, _ = filled(conn, tmp_path)
    whole = training_frames.event_frames

    def interrupted(*given: object):
        compaction.remove_before(conn, writer.stream, START + 6 * H)
        return whole(*given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(training_frames, "event_frames", interrupted)
    with pytest.raises(UsageError, match="retention has removed events"):
        training_frame(conn, table, pl.DataFrame({"who": [1], "at": [START + 2 * H]}), Request("corrected"))


def test_one_turn_does_it_all_and_values_stay(conn, pg_url: str, tmp_path: Path, storage: LocalStorage) -> None:
    writer, table, events = filled(conn, tmp_path)
    done = tidy(conn, writer.stream, storage, LATER)
    assert done is not None
    assert (done.compacted.files, done.events_removed) == (3, 0)
    assert done.online_rows > 0
    assert "moved to 3 files" in done.sentence
    newest = max(e.time for e in events)
    assert_values(Store(), conn, table, events, [0, 1, 2, 3], [newest - H // 2, newest + 1, newest + 30 * M])
    again = tidy(conn, writer.stream, storage, LATER)
    assert again is not None
    assert again.sentence == ""
    with connect(pg_url, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s, %s)", (housekeeping._LOCK, writer.stream.stream_id))
        assert tidy(conn, writer.stream, storage, LATER) is None


def test_garbage_goes_by_each_partitions_own_watermark(conn, tmp_path: Path, storage: LocalStorage) -> None:
    """A partition that fell silent long ago holds nothing back, and one that lags loses nothing."""
    writer, table = ready(conn, worlds.definition(tmp_path))
    events = worlds.accepted([Given(1, M, partition=0), *(Given(2, h * H, partition=1) for h in range(12))])
    writer.commit(events)
    done = tidy(conn, writer.stream, storage, LATER)
    assert done is not None
    assert (
        done.online_rows == 4
    )  # a row is a tile of 2 h: those that end at 1, 3, 5, 7 h; the limit is 11 h - 2 h - 70 s
    assert_values(Store(), conn, table, events, [1], [START + M + 1])
    assert_values(Store(), conn, table, events, [1, 2], [START + 10 * H, START + 11 * H + 1])


def test_retention_days_remove_letters_too(conn, tmp_path: Path, storage: LocalStorage) -> None:
    writer, _, events = filled(conn, tmp_path)
    state.insert_dead_letters(conn, writer.stream, [state.DeadLetterRow(0, 7, "poison", "x", "d", b"{", None)])
    kept = tidy(conn, writer.stream, storage, dt.datetime.now(dt.UTC), Rules(retention_days=36_500))
    assert kept is not None
    assert (kept.events_removed, kept.letters_removed) == (0, 0)
    done = tidy(conn, writer.stream, storage, LATER + dt.timedelta(days=2), Rules(retention_days=1))
    assert done is not None
    assert done.letters_removed == 1
    assert 0 < done.events_removed < len(events)
    assert dead_letters.summary(conn) == []


def test_the_thread_works_and_a_failure_does_not_end_it(
    conn, pg_url: str, tmp_path: Path, storage: LocalStorage
) -> None:
    import threading

    writer, _, events = filled(conn, tmp_path)
    said: list[str] = []
    heard = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if "moved to" in text:
            heard.set()

    class Ahead(SystemClock):
        def now(self) -> dt.datetime:
            if not said:
                raise OSError("the clock is away")
            return LATER

    keeper = Housekeeper(pg_url, writer.stream, storage, say, Rules(every_seconds=0.01), Ahead())
    try:
        assert heard.wait(30)
    finally:
        keeper.close()
    assert said[0] == "housekeeping failed and is tried again: OSError: the clock is away"
    assert len(stored(conn, writer, storage)) == len(events)


def test_compaction_waits_while_a_worker_catches_up(
    conn, pg_url: str, tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the chunks take too much room; then it moves them all the same."""
    writer, _, events = filled(conn, tmp_path)
    rules = Rules(small_files_after=dt.timedelta(days=-1))  # small files at once
    keeper = Housekeeper(pg_url, writer.stream, storage, lambda _: None, rules, catching_up=lambda: True)
    inside = compaction.waiting_bytes(conn, writer.stream)
    assert inside > 0
    keeper.close(last_turn=True)
    assert compaction.waiting_bytes(conn, writer.stream) == inside
    monkeypatch.setattr(housekeeping, "MOST_WAITING", inside)
    keeper.close(last_turn=True)
    assert compaction.waiting_bytes(conn, writer.stream) < inside
    assert len(stored(conn, writer, storage)) == len(events)


def test_every_turn_of_a_run_that_keeps_its_past_readable_keeps_it(
    conn, pg_url: str, tmp_path: Path, storage: LocalStorage
) -> None:
    """Such a run may last longer than a minute: its turns on the way spare what its last turn spares."""
    import threading

    writer, table = ready(conn, worlds.definition(tmp_path))
    events = worlds.accepted([Given(2, h * H) for h in range(12)])
    writer.commit(events)
    turned = threading.Event()

    class Counted(SystemClock):
        turns = 0

        def now(self) -> dt.datetime:
            self.turns += 1
            if self.turns == 3:  # two turns are over
                turned.set()
            return LATER

    rules = Rules(every_seconds=0.01)
    keeper = Housekeeper(pg_url, writer.stream, storage, lambda _: None, rules, Counted(), rules.run_reads_back)
    try:
        assert turned.wait(30)
    finally:
        keeper.close(last_turn=True)
    assert_values(Store(), conn, table, events, [2], [START + h * H + M for h in range(12)])


def test_commits_reads_and_housekeeping_at_once(
    conn, pg_url: str, tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker commits and reads are sampled while another connection tidies without a pause: nothing may differ."""
    import threading

    monkeypatch.setattr(compaction, "FILE_ROWS", 50)
    monkeypatch.setattr(housekeeping, "PAGES", 1)
    writer, table = ready(conn, worlds.definition(tmp_path))
    ended = threading.Event()
    done: list[housekeeping.Tidied] = []

    def tidies() -> None:
        with connect(pg_url, autocommit=True) as other:
            while True:
                last = ended.is_set()
                turn = tidy(other, writer.stream, storage, LATER)
                assert turn is not None
                done.append(turn)
                if last:
                    return

    thread = threading.Thread(target=tidies)
    thread.start()
    events: list[Event] = []
    try:
        for number in range(40):
            given = [
                Given(g.who, number * 10 * M + g.t % (10 * M), g.kind, g.paid, partition=g.partition, flag=g.flag)
                for g in random_events(number, 40)
            ]
            batch = worlds.accepted(sorted(given, key=lambda g: g.t), first_offset=1000 * number)
            writer.commit(batch)
            events += batch
            consistency.sample_reads(conn, table, [0, 1, 2, 3], START + (number + 1) * 10 * M)
    finally:
        ended.set()
        thread.join()
    assert sum(turn.compacted.files for turn in done) >= 10
    assert sum(turn.online_rows for turn in done) > 0
    found = stored(conn, writer, storage).select(ORDER).rows()
    assert found == sorted((e.partition, e.offset) for e in events)
    newest = max(e.time for e in events)
    assert_values(Store(), conn, table, events, [0, 1, 2, 3], [newest - 30 * M, newest + 1, newest + 30 * M])
    report = consistency.recompute(conn, storage, table, START)
    assert (report.reads, report.mismatches) == (160, 0)

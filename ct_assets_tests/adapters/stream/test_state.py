"""One transaction a batch: all or nothing at every point, only by the owner, and everything comes back as it was.

Why the crash tests compare the whole of five tables: a part that is committed on its own is what must not exist.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import chunks, online, state
from ct_assets.adapters.stream.chunks import EventQuery
from ct_assets_tests.adapters.stream import victim, worlds
from ct_assets_tests.adapters.stream.worlds import START, Given, M, S, Writer


def everything(conn: psycopg.Connection) -> dict[str, list]:
    """All that a commit writes."""
    tables = [row[0] for row in conn.execute("select table_name from stream.definition order by 1")]
    queries = {
        "partition": "select partition, next_offset, top, frontier, events, dead from stream.partition order by 1",
        "chunk": "select partition, first_offset, next_offset, rows, digest from stream.chunk order by 1, 2",
        "dead": 'select partition, "offset", reason, raw from stream.dead_letter order by 1, 2',
        **{
            t: f'select entity, part, tile, seq, n, first_t, last_t, t, n0 from online."{t}" order by 1, 2, 3, 4'
            for t in tables
        },
    }
    return {name: conn.execute(query.encode()).fetchall() for name, query in queries.items()}


@pytest.fixture
def writer(conn: psycopg.Connection, tmp_path: Path) -> Writer:
    definition = worlds.definition(tmp_path)
    stream = state.open_stream(conn, "visits", definition.acceptance, worlds.identity())
    return Writer(conn, stream, [online.ensure(conn, stream, definition)])


def first(writer: Writer) -> list[worlds.Event]:
    events = worlds.accepted([Given(u, u * M, partition=u % 2) for u in range(10)])
    writer.commit(events)
    return events


def test_opening_twice_is_one_stream_and_a_new_topic_another(conn, tmp_path: Path) -> None:
    acceptance = worlds.definition(tmp_path).acceptance
    one = state.open_stream(conn, "visits", acceptance, worlds.identity())
    assert state.open_stream(conn, "visits", acceptance, worlds.identity()) == one
    assert one.acceptance == acceptance
    assert state.open_stream(conn, "visits", acceptance, worlds.identity("again")).stream_id != one.stream_id
    assert state.find_stream(conn, one.stream_id) == one


def test_a_claim_begins_at_the_first_offset_there_is(writer: Writer) -> None:
    claims = writer.take([3, 1])
    assert claims == {1: state.Claim(1, 1, -2, None, None), 3: state.Claim(3, 1, -2, None, None)}
    assert writer.take([1])[1].epoch == 2


def test_a_claim_gives_back_what_was_committed(conn, writer: Writer) -> None:
    events = first(writer)
    claim = state.claim(conn, writer.stream, [1], "w2")[1]
    last = max(e.time for e in events if e.partition == 1)
    assert (claim.epoch, claim.next_offset, claim.top, claim.frontier) == (2, 5, last, last)
    kept = list(state.replay_frames(conn, writer.stream, 1, START + 4 * M))
    assert_frame_equal(
        pl.concat(kept), worlds.frame([e for e in events if e.partition == 1 and e.time >= START + 4 * M])
    )


@pytest.mark.fault("F04")
def test_f04_the_old_owner_writes_nothing(conn, writer: Writer) -> None:
    """Case 11: A read on, B claimed; A's commit is refused whole, also for the partition that is still its own."""
    first(writer)
    before = everything(conn)
    state.claim(conn, writer.stream, [1], "w2")
    with pytest.raises(state.Fenced, match=r"partitions \[1\] of stream 'visits' belong to another worker") as refused:
        writer.commit(victim.second_batch())
    assert refused.value.partitions == (1,)
    assert everything(conn) == before


def test_a_commit_that_repeats_offsets_is_refused(conn, writer: Writer) -> None:
    first(writer)
    before = everything(conn)
    writer.next = {0: 0, 1: 0}
    with pytest.raises(state.Fenced):
        writer.commit(worlds.accepted([Given(1, M)]))
    assert everything(conn) == before


def test_a_claim_waits_for_the_commit_under_way(conn, pg_url: str, writer: Writer) -> None:
    """Either the commit is in and the claim sees its offset, or it is fenced: never both."""
    first(writer)
    reached, claims = threading.Event(), []

    def take() -> None:
        with connect(pg_url, autocommit=True) as other:
            reached.set()
            claims.append(state.claim(other, writer.stream, [0, 1], "w2"))

    thread = threading.Thread(target=take)

    def crash(point: str) -> None:
        if point == "fenced":
            thread.start()
            reached.wait(10)
            thread.join(0.3)
            assert not claims

    writer.commit(victim.second_batch(), crash=crash)
    thread.join(10)
    assert {p: c.next_offset for p, c in claims[0].items()} == {0: 30, 1: 30}


@pytest.mark.parametrize("point", state.COMMIT_POINTS[:-1])
def test_an_error_at_any_point_leaves_nothing(conn, writer: Writer, point: str) -> None:
    first(writer)
    before, fired = everything(conn), []

    def crash(here: str) -> None:
        if here == point:
            fired.append(here)
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        writer.commit(victim.second_batch(), crash=crash)
    assert fired == [point]
    assert everything(conn) == before
    writer.commit(victim.second_batch())
    assert everything(conn)["partition"][0][1] == 30


@pytest.mark.fault("F36")
@pytest.mark.parametrize("point", [*state.COMMIT_POINTS, "-"])
def test_f36_killed_at_any_point_a_restart_ends_the_same(
    conn, pg_url: str, writer: Writer, tmp_path: Path, point: str
) -> None:
    """The fault-free run (`-`) and a run that was killed and repeated end in the same tables."""
    first(writer)
    before = everything(conn)
    command = [sys.executable, "-m", "ct_assets_tests.adapters.stream.victim", pg_url, str(tmp_path)]
    died = subprocess.run([*command, point], capture_output=True, text=True, timeout=120)
    assert died.returncode == (0 if point == "-" else -signal.SIGKILL), died.stderr
    committed = everything(conn) != before
    assert committed == (point in ("acknowledged", "-"))
    if not committed:
        assert {k: v for k, v in everything(conn).items() if k != "partition"} == {
            k: v for k, v in before.items() if k != "partition"
        }
        again = subprocess.run([*command, "-"], capture_output=True, text=True, timeout=120)
        assert again.returncode == 0, again.stderr
    found = everything(conn)
    assert [row[1] for row in found["partition"]] == [30, 30]
    assert [row[1:3] for row in found["dead"]] == [(30, "poison")]
    events = [*worlds.accepted([Given(u, u * M, partition=u % 2) for u in range(10)]), *victim.second_batch()]
    assert_frame_equal(
        state.events(conn, writer.stream).sort("_partition", "_offset"),
        worlds.frame(events).sort("_partition", "_offset"),
    )
    table = writer.tables[0]
    for at in (START + 5 * M, START + 9 * M + 1):
        for entity, values in zip(range(10), online.read(conn, table, list(range(10)), at).values, strict=True):
            assert worlds.shown(values) == worlds.expected(table.definition, events, entity, at)


def test_events_by_time_knowledge_and_version(conn, writer: Writer) -> None:
    events = first(writer)
    writer.commit(victim.second_batch())
    both = worlds.frame([*events, *victim.second_batch()])

    def expect(query: EventQuery, condition: pl.Expr) -> None:
        found = state.events(conn, writer.stream, query).sort("_partition", "_offset")
        assert len(found)
        assert_frame_equal(found, both.filter(condition).sort("_partition", "_offset"))

    time = pl.col("at_time").dt.epoch("us")
    expect(EventQuery(), pl.lit(True))
    expect(EventQuery(since=START + 3 * M, until=START + 4 * M), (time >= START + 3 * M) & (time < START + 4 * M))
    expect(EventQuery(known_by=START + 2 * M + S), pl.col("_known_at") <= START + 2 * M + S)
    expect(EventQuery(partitions=(1,)), pl.col("_partition") == 1)
    below = pl.when(pl.col("_partition") == 0).then(7).otherwise(5)
    expect(EventQuery(version={0: (7, 0), 1: (5, 0)}), pl.col("_offset") < below)
    narrow = state.events(conn, writer.stream, EventQuery(columns=("who",)))
    assert narrow.columns == ["who", "_partition", "_offset", "_append_time", "_known_at"]


def test_a_damaged_chunk_is_noticed(conn, writer: Writer) -> None:
    first(writer)
    conn.execute("update stream.chunk set payload = payload || '\\x00' where partition = 0")
    with pytest.raises(chunks.ChunkDamaged, match="is not what was committed"):
        state.events(conn, writer.stream)


def test_a_batch_without_events_moves_the_offset(conn, writer: Writer) -> None:
    first(writer)
    progress = [state.PartitionProgress(0, writer.epoch[0], 5, 9, duplicates=3, tombstones=1)]
    state.commit(conn, writer.stream, progress=progress, events=worlds.frame([]), definitions=writer.tables)
    row = conn.execute(
        "select next_offset, top, duplicates, tombstones from stream.partition where partition = 0"
    ).fetchone()
    assert row == (9, START + 8 * M, 3, 1)


def test_release_leaves_what_another_took(conn, writer: Writer) -> None:
    writer.take([0, 1])
    state.claim(conn, writer.stream, [1], "w2")
    state.release(conn, writer.stream, [0, 1], "w1")
    owners = conn.execute("select owner from stream.partition order by partition").fetchall()
    assert owners == [(None,), ("w2",)]

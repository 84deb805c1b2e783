"""State of a stream: who may write which partition, and the one transaction that a batch becomes.

What goes here: opening a stream, claims and their fence, the commit, heartbeats. What does not: the form of chunks
(``chunks``), online rows (``online``), dead letters after the commit (``dead_letters``), semantics (``streaming``).

Effectively once: offsets, accepted events, dead letters and online rows commit together or not at all. A claim raises
the partition's epoch; a commit names epoch and expected offset, so an owner that lost a partition writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.stream.chunks import (
    KNOWN,
    OFFSET,
    PARTITION,
    ChunkPlace,
    EventQuery,
    event_frames,
    events,
    insert_chunk,
    replay_frames,
)
from ct_assets.adapters.stream.records import Claim, DeadLetterRow, Fenced, PartitionProgress, Stream
from ct_assets.errors import UsageError
from ct_assets.streaming.definition import Acceptance

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.events.port import SourceIdentity
    from ct_assets.adapters.stream.online import OnlineTable

__all__ = [
    "COMMIT_POINTS",
    "KNOWN",
    "OFFSET",
    "Claim",
    "DeadLetterRow",
    "EventQuery",
    "Fenced",
    "PartitionProgress",
    "Stream",
    "claim",
    "commit",
    "event_frames",
    "events",
    "find_stream",
    "has_accepted",
    "heartbeat",
    "open_stream",
    "open_stream_beside",
    "release",
    "replay_frames",
    "stream_over",
]

# Between the beginning and the end of a commit, in order; after the last one everything is there, before it nothing.
COMMIT_POINTS = ("fenced", "chunks_written", "dead_letters_written", "online_midway", "online_written", "acknowledged")


_STREAM = """select stream_id, name, acceptance, topic, topic_id, cluster_id, source_kind, ingestion_lag_us
    from stream.stream"""


def open_stream(conn: psycopg.Connection, name: str, acceptance: Acceptance, identity: SourceIdentity) -> Stream:
    """The stream of this acceptance over this topic, registered on first use. Idempotent; safe from two processes.

    A topic that was made again has another id and is therefore another stream; the source refuses the old offsets.
    """
    key = _key(acceptance, identity)
    conn.execute(
        """insert into stream.stream
               (name, acceptance, contract_digest, source_kind, acceptance_digest, cluster_id, topic, topic_id)
           values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing""",
        (name, json.dumps(asdict(acceptance)), acceptance.contract_digest, identity.kind, *key),
    )
    found = stream_over(conn, acceptance, identity)
    assert found is not None
    return found


def stream_over(conn: psycopg.Connection, acceptance: Acceptance, identity: SourceIdentity) -> Stream | None:
    """The stream of this acceptance over this topic if there is one; registers nothing."""
    row = conn.execute(
        f"{_STREAM} where (acceptance_digest, cluster_id, topic, topic_id) = (%s, %s, %s, %s)".encode(),
        _key(acceptance, identity),
    ).fetchone()
    return _stream(row) if row else None


def _key(acceptance: Acceptance, identity: SourceIdentity) -> tuple[str, str, str, str]:
    return acceptance.digest, identity.cluster_id, identity.topic, identity.topic_id


def open_stream_beside(conn: psycopg.Connection, old: Stream, acceptance: Acceptance) -> Stream:
    """The stream of another acceptance over the topic of ``old``: every event is judged again."""
    from ct_assets.adapters.events.port import SourceIdentity

    return open_stream(
        conn, old.name, acceptance, SourceIdentity(old.source_kind, old.cluster_id, old.topic, old.topic_id, True)
    )


def find_stream(conn: psycopg.Connection, stream_id: int) -> Stream:
    """The stream of that id. Raises UsageError."""
    row = conn.execute(f"{_STREAM} where stream_id = %s".encode(), (stream_id,)).fetchone()
    if row is None:
        raise UsageError(f"no stream {stream_id}", hint="`ct stream status` lists them")
    return _stream(row)


def _stream(row: tuple[Any, ...]) -> Stream:
    return Stream(row[0], row[1], Acceptance(**row[2]), *row[3:])


def has_accepted(conn: psycopg.Connection, stream: Stream) -> bool:
    """Whether the stream ever accepted an event."""
    query = "select exists (select from stream.partition where stream_id = %s and events > 0)"
    return conn.execute(query, (stream.stream_id,)).fetchone() == (True,)


def claim(conn: psycopg.Connection, stream: Stream, partitions: Sequence[int], owner: str) -> dict[int, Claim]:
    """Take partitions: from here on older owners are fenced. Waits for a commit of theirs that is under way.

    Partitions that were never seen are added. The caller restores what was remembered (``replay_frames``) and reads on
    at ``next_offset``.
    """
    with conn.transaction():
        conn.execute(
            """insert into stream.partition (stream_id, partition) select %s, unnest(%s::integer[])
               on conflict do nothing""",
            (stream.stream_id, list(partitions)),
        )
        _lock(conn, stream, partitions)
        rows = conn.execute(
            """update stream.partition set epoch = epoch + 1, owner = %s, caught_up = false, updated_at = clock_timestamp()
               where stream_id = %s and partition = any(%s)
               returning partition, epoch, next_offset, top, frontier, leader_epoch""",
            (owner, stream.stream_id, list(partitions)),
        ).fetchall()
    return {row[0]: Claim(*row) for row in sorted(rows)}


def release(conn: psycopg.Connection, stream: Stream, partitions: Sequence[int], owner: str) -> None:
    """Give partitions back in order; those that another owner has by now stay theirs. What was read to its end by the
    last look stays known to be so as of then (``updated_at``): the end of a worker makes nobody forget it."""
    with conn.transaction():
        conn.execute(
            """update stream.partition set owner = null
               where stream_id = %s and partition = any(%s) and owner = %s""",
            (stream.stream_id, list(partitions), owner),
        )


def heartbeat(conn: psycopg.Connection, stream: Stream, owner: str, lag: Mapping[int, int]) -> None:
    """Say how many messages each partition of ``owner`` has still to read: 0 means caught up as of now.

    Freshness and idleness follow from it, so it comes about once a second while nothing is being committed.
    """
    with conn.transaction():
        conn.execute(
            """update stream.partition p set caught_up = lag.messages = 0, updated_at = clock_timestamp()
               from unnest(%s::integer[], %s::bigint[]) as lag (partition, messages)
               where p.stream_id = %s and p.partition = lag.partition and p.owner = %s""",
            (list(lag), list(lag.values()), stream.stream_id, owner),
        )


def commit(  # noqa: PLR0913 - one transaction has these parts
    conn: psycopg.Connection,
    stream: Stream,
    *,
    progress: Sequence[PartitionProgress],
    events: pl.DataFrame,
    dead: Sequence[DeadLetterRow] = (),
    late: pl.DataFrame | None = None,
    definitions: Sequence[OnlineTable] = (),
    crash: Crash | None = None,
) -> int:
    """Commit one batch and return its commit id. All of it or nothing, also when this process dies in between.

    ``events``: accepted events as ``Acceptor.accept`` gives them, in order of offset within a partition. A batch without
    events still moves the offsets. ``late``: those that are letters because they came too late. Which online tables are written is decided by the database inside the transaction
    (every version of the stream that is ready, so a deployment needs no restart of workers); ``definitions`` only spares
    reading those that the caller has. Raises :class:`Fenced` when a partition is no longer this owner's.
    """
    from ct_assets.adapters.stream.late import insert_late
    from ct_assets.adapters.stream.online import write_rows
    from ct_assets.adapters.stream.versions import ready_tables

    act = crash or no_crash
    with conn.transaction():
        commit_id = _fence(conn, stream, progress, events)
        act("fenced")
        _write_chunks(conn, stream, progress, events, commit_id)
        act("chunks_written")
        if dead:
            insert_dead_letters(conn, stream, dead)
        if late is not None and len(late):
            insert_late(conn, stream, late)
        act("dead_letters_written")
        for number, table in enumerate(ready_tables(conn, stream, definitions)):
            write_rows(conn, table, events, commit_id)
            if number == 0:
                act("online_midway")
        act("online_written")
    act("acknowledged")
    return commit_id


def _lock(conn: psycopg.Connection, stream: Stream, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Lock the rows in one order, so that two workers never wait for each other; epoch and offset of each."""
    rows = conn.execute(
        """select partition, epoch, next_offset from stream.partition
           where stream_id = %s and partition = any(%s) order by partition for no key update""",
        (stream.stream_id, list(partitions)),
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def _fence(
    conn: psycopg.Connection, stream: Stream, progress: Sequence[PartitionProgress], events: pl.DataFrame
) -> int:
    """Move the partitions on, or raise; the next commit id."""
    found = _lock(conn, stream, [p.partition for p in progress])
    lost = [p.partition for p in progress if found.get(p.partition) != (p.epoch, p.expected_offset)]
    if lost:
        raise Fenced(stream.name, lost)
    accepted = dict(events[PARTITION].value_counts().iter_rows()) if len(events) else {}
    with conn.cursor() as cursor:
        cursor.executemany(
            """update stream.partition set next_offset = %s, top = coalesce(%s, top), frontier = coalesce(%s, frontier),
                   last_append = greatest(last_append, %s), leader_epoch = coalesce(%s, leader_epoch), caught_up = false,
                   events = events + %s, late_accepted = late_accepted + %s, late_dead = late_dead + %s,
                   duplicates = duplicates + %s, dead = dead + %s, tombstones = tombstones + %s,
                   updated_at = clock_timestamp()
               where stream_id = %s and partition = %s""",
            [
                (
                    p.next_offset,
                    p.top,
                    p.frontier,
                    p.last_append,
                    p.leader_epoch,
                    accepted.get(p.partition, 0),
                    p.late_accepted,
                    p.late_dead,
                    p.duplicates,
                    p.dead,
                    p.tombstones,
                    stream.stream_id,
                    p.partition,
                )
                for p in progress
            ],
        )
    return next_commit_id(conn)


def next_commit_id(conn: psycopg.Connection) -> int:
    """A number for one commit; later commits of a partition have higher ones."""
    row = conn.execute("select nextval('stream.commit_id')").fetchone()
    assert row is not None
    return row[0]


def _write_chunks(
    conn: psycopg.Connection,
    stream: Stream,
    progress: Sequence[PartitionProgress],
    events: pl.DataFrame,
    commit_id: int,
) -> None:
    if events.is_empty():
        return
    by_partition = {p.partition: p for p in progress}
    for (partition,), part in events.partition_by(PARTITION, as_dict=True, maintain_order=True).items():
        p = by_partition[int(partition)]
        first = p.expected_offset if p.expected_offset >= 0 else int(part[OFFSET][0])
        place = ChunkPlace(p.partition, first, p.next_offset, commit_id, p.top)
        insert_chunk(conn, stream, place, part)


def insert_dead_letters(conn: psycopg.Connection, stream: Stream, dead: Sequence[DeadLetterRow]) -> None:
    """Write dead letters inside the open transaction."""
    with (
        conn.cursor() as cursor,
        cursor.copy(
            'copy stream.dead_letter (stream_id, partition, "offset", reason, error, contract_digest, raw, append_time)'
            " from stdin (format binary)"
        ) as copy,
    ):
        copy.set_types(["int4", "int4", "int8", "text", "text", "text", "bytea", "int8"])
        for d in dead:
            error = d.error.replace("\x00", "\u2400")
            copy.write_row(
                (stream.stream_id, d.partition, d.offset, d.reason, error, d.contract_digest, d.raw, d.append_time)
            )

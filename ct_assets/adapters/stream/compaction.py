"""Compaction and retention of accepted events: old chunks become Parquet files behind the storage port; very old ones go.

What goes here: which chunks are merged, the files, what may be removed. What does not: when it happens
(``housekeeping``), reading (``chunks``).

Only chunks that no recovery needs are moved (behind watermark - dedup horizon), so a worker begins again from the database
alone, whatever the storage does. A file's name is noted before it is written and the chunks are exchanged in one
transaction: killed anywhere, readers see the old chunks or the new one, and a file without chunk is removed later.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.stream.chunks import EventQuery, event_frames
from ct_assets.adapters.stream.late import remove_late
from ct_assets.adapters.stream.online import garbage_limit
from ct_assets.adapters.stream.versions import DDL_LOCK, registered_tables

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.records import Stream

FILE_ROWS = 500_000  # a file holds so many events or a little more: about 6 MB, and 100 MB while it is made
RUN_CHUNKS = 5_000  # or so many chunks, where commits are small: their rows in the table cost more than a small file
COMPACTION_POINTS = ("file_noted", "file_written", "chunks_exchanged")


@dataclass(frozen=True)
class Compacted:
    """What one call did."""

    files: int = 0
    chunks: int = 0
    rows: int = 0
    bytes: int = 0

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(
            self.files + other.files, self.chunks + other.chunks, self.rows + other.rows, self.bytes + other.bytes
        )


@dataclass(frozen=True)
class _Run:
    """Consecutive chunks of a partition that become one file."""

    partition: int
    ids: list[int]
    first_offset: int
    next_offset: int
    rows: int
    oldest: datetime


def compact(
    conn: psycopg.Connection, stream: Stream, storage: Storage, small_before: datetime, crash: Crash | None = None
) -> Compacted:
    """Move what no recovery needs to files of about :data:`FILE_ROWS` events or :data:`RUN_CHUNKS` chunks; fewer where the oldest event of a file was
    committed before ``small_before`` (so a slow stream is moved too, once a while). One caller a stream at a time."""
    total = Compacted()
    for partition, settled_before in _settled(conn, stream):
        while (run := _next_run(conn, stream, partition, settled_before)) is not None:
            if run.rows < FILE_ROWS and len(run.ids) < RUN_CHUNKS and run.oldest >= small_before:
                break
            total += _move(conn, stream, storage, run, crash or no_crash)
    return total


def waiting_bytes(conn: psycopg.Connection, stream: Stream) -> int:
    """How much of the stream lies in the table of chunks."""
    row = conn.execute(
        "select coalesce(sum(bytes), 0)::bigint from stream.chunk where stream_id = %s and location is null",
        (stream.stream_id,),
    ).fetchone()
    assert row is not None
    return row[0]


def remove_before(conn: psycopg.Connection, stream: Stream, before_us: int) -> int:
    """Retention: remove chunks whose events are all before ``before_us``, that no recovery needs and that no window of a
    registered definition reaches; events removed.

    From then on a question that needs them is refused (``training_frames``), not answered as if nothing had happened.
    The lock is that of making a version: one that is made before this looks keeps its events, one that is made later
    knows what it lacks.
    """
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
        unneeded = _unneeded(conn, stream)
        rows = [
            row
            for partition, settled_before in unneeded
            for row in conn.execute(
                """delete from stream.chunk where stream_id = %s and partition = %s and max_event_time < %s
                   returning rows, max_event_time""",
                (stream.stream_id, partition, min(before_us, settled_before)),
            ).fetchall()
        ]
        if rows:
            conn.execute(
                "update stream.stream set removed_before = greatest(removed_before, %s) where stream_id = %s",
                (max(row[1] for row in rows) + 1, stream.stream_id),
            )
        remove_late(conn, stream)
    return sum(row[0] for row in rows)


def sweep(conn: psycopg.Connection, stream: Stream, storage: Storage, noted_before: datetime) -> int:
    """Remove files that no chunk names and that were noted before a moment; how many."""
    rows = conn.execute(
        """select location from stream.chunk_file f where stream_id = %s and created_at < %s
             and not exists (select from stream.chunk c where c.stream_id = f.stream_id and c.location = f.location)""",
        (stream.stream_id, noted_before),
    ).fetchall()
    for (location,) in rows:
        storage.delete(location)
        with conn.transaction():
            conn.execute("delete from stream.chunk_file where location = %s", (location,))
    return len(rows)


def _settled(conn: psycopg.Connection, stream: Stream) -> list[tuple[int, int]]:
    """Per partition the event time before which neither recovery nor a retry of a dead letter looks."""
    rules = stream.acceptance
    return conn.execute(
        """select partition, top - %s from stream.partition where stream_id = %s and top is not null
           order by partition""",
        (rules.out_of_orderness_us + rules.dedup_horizon_us, stream.stream_id),
    ).fetchall()


def _unneeded(conn: psycopg.Connection, stream: Stream) -> list[tuple[int, int]]:
    """Per partition the event time before which no window can be read or corrected either: what its online rows keep."""
    tables, late = registered_tables(conn, stream), stream.acceptance.out_of_orderness_us
    tops = conn.execute("select partition, top from stream.partition where stream_id = %s", (stream.stream_id,))
    top = dict(tops.fetchall())
    return [
        (partition, min([settled, *(garbage_limit(table, top[partition] - late) for table in tables)]))
        for partition, settled in _settled(conn, stream)
    ]


def _next_run(conn: psycopg.Connection, stream: Stream, partition: int, settled_before: int) -> _Run | None:
    """The oldest chunks in the table that are settled, up to a file's worth."""
    ids: list[int] = []
    first = following = rows = 0
    oldest: datetime | None = None
    for row in conn.execute(
        """select chunk_id, first_offset, next_offset, rows, created_at, max_event_time from stream.chunk
           where stream_id = %s and partition = %s and replay is null and location is null order by next_offset
           limit %s""",
        (stream.stream_id, partition, RUN_CHUNKS),
    ):
        if row[5] >= settled_before or rows >= FILE_ROWS:
            break
        first = first if ids else row[1]
        oldest = row[4] if oldest is None else min(oldest, row[4])
        ids.append(row[0])
        following, rows = row[2], rows + row[3]
    return None if oldest is None else _Run(partition, ids, first, following, rows, oldest)


def _move(conn: psycopg.Connection, stream: Stream, storage: Storage, run: _Run, crash: Crash) -> Compacted:
    import polars as pl

    version = {run.partition: (run.next_offset, -1)}
    query = EventQuery(version=version, after={run.partition: (run.first_offset, -1)}, partitions=(run.partition,))
    frames = [frame for frame in event_frames(conn, stream, query, storage) if len(frame)]
    data = _parquet(pl.concat(frames))
    key = f"{run.first_offset:020d}-{run.next_offset:020d}-{uuid.uuid4().hex[:12]}.parquet"
    location = f"stream/{stream.stream_id}/{run.partition}/{key}"
    with conn.transaction():
        conn.execute(
            "insert into stream.chunk_file (location, stream_id) values (%s, %s)", (location, stream.stream_id)
        )
    crash("file_noted")
    storage.put(location, data)
    crash("file_written")
    _exchange(conn, run, location, data)
    crash("chunks_exchanged")
    return Compacted(1, len(run.ids), run.rows, len(data))


def _exchange(conn: psycopg.Connection, run: _Run, location: str, data: bytes) -> None:
    """The run's chunks out, the file's in, at once."""
    with conn.transaction():
        conn.execute(
            """with gone as (delete from stream.chunk where chunk_id = any(%s) returning *)
               insert into stream.chunk (stream_id, partition, first_offset, next_offset, commit_id, rows,
                   min_event_time, max_event_time, min_known_at, max_known_at, top_after, location, digest, bytes,
                   created_at)
               select stream_id, partition, min(first_offset), max(next_offset), max(commit_id), sum(rows),
                   min(min_event_time), max(max_event_time), min(min_known_at), max(max_known_at), max(top_after), %s,
                   %s, %s, max(created_at)
               from gone group by stream_id, partition having count(*) = %s""",
            (run.ids, location, hashlib.sha256(data).hexdigest(), len(data), len(run.ids)),
        )
        row = conn.execute("select count(*) from stream.chunk where location = %s", (location,)).fetchone()
        if row != (1,):  # another housekeeper was faster: its files stand, ours is swept
            raise RuntimeError(f"the chunks of {location} were moved by somebody else")


def _parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(
        out, compression="zstd", compression_level=1, statistics=True
    )  # a little larger, and cheaper to make
    return out.getvalue()

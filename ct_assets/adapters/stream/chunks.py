"""Accepted events as compressed Arrow chunks: written with each commit, read back for training, replay and recovery.

What goes here: the form of a chunk, which chunks a question needs, events in order. What does not: the transaction that
writes them (``state``), moving them to Parquet (``compaction``).

A chunk holds accepted events of one partition in order of offset: the contract's columns and ``_offset``,
``_append_time`` (-1: absent), ``_known_at`` (microseconds). Offsets and times are stored as differences, which zstd
makes a third of the size.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.errors import CtError

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.state import Stream

OFFSET, APPEND, KNOWN, PARTITION = "_offset", "_append_time", "_known_at", "_partition"


class ChunkDamaged(CtError):
    """The bytes of a chunk are not those that were committed."""


@dataclass(frozen=True)
class EventQuery:
    """Which accepted events: all conditions that are given hold. Times in microseconds.

    ``since`` <= event time < ``until``; known at or before ``known_by``; ``version``: those that a reader saw whose
    version was ``{partition: (next offset, replays)}``; ``partitions`` and ``columns`` (of the contract) narrow the read.
    """

    since: int | None = None
    until: int | None = None
    known_by: int | None = None
    version: Mapping[int, tuple[int, int]] | None = None
    after: Mapping[int, tuple[int, int]] | None = None
    partitions: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None


def encode_chunk(events: pl.DataFrame) -> bytes:
    """Events of one partition, in order of offset, as Arrow IPC in zstd."""
    import polars as pl

    offset, append, known = pl.col(OFFSET), pl.col(APPEND), pl.col(KNOWN)
    packed = events.drop(PARTITION, strict=False).with_columns(
        offset.diff().fill_null(offset), append.diff().fill_null(append), known.diff().fill_null(known)
    )
    out = io.BytesIO()
    packed.write_ipc_stream(out, compression="zstd", compat_level=pl.CompatLevel.newest())
    return out.getvalue()


def decode_chunk(payload: bytes | memoryview, partition: int) -> pl.DataFrame:
    """The events of a chunk, with ``_partition``, in order of offset."""
    import polars as pl

    frame = pl.read_ipc_stream(io.BytesIO(payload))
    places = [pl.col(name).cum_sum() for name in (OFFSET, APPEND, KNOWN)]
    return frame.select(pl.exclude(OFFSET, APPEND, KNOWN), pl.lit(partition, pl.Int32).alias(PARTITION), *places)


@dataclass(frozen=True)
class ChunkPlace:
    """To which range of which partition a chunk belongs. ``replay``: see the table's comment."""

    partition: int
    first_offset: int
    next_offset: int
    commit_id: int
    top: int | None = None
    replay: int | None = None


def insert_chunk(conn: psycopg.Connection, stream: Stream, place: ChunkPlace, events: pl.DataFrame) -> int:
    """Write one chunk inside the open transaction; bytes written."""
    import polars as pl

    payload = encode_chunk(events)
    time = pl.col(stream.event_time).dt.epoch("us")
    bounds = events.select(
        time.min().alias("a"), time.max().alias("b"), pl.col(KNOWN).min().alias("c"), pl.col(KNOWN).max().alias("d")
    ).row(0)
    conn.execute(
        """insert into stream.chunk (stream_id, partition, first_offset, next_offset, commit_id, replay, rows,
               min_event_time, max_event_time, min_known_at, max_known_at, top_after, payload, digest, bytes)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            stream.stream_id,
            place.partition,
            place.first_offset,
            place.next_offset,
            place.commit_id,
            place.replay,
            len(events),
            *bounds,
            place.top,
            payload,
            hashlib.sha256(payload).hexdigest(),
            len(payload),
        ),
        binary=True,
    )
    return len(payload)


def event_frames(
    conn: psycopg.Connection, stream: Stream, query: EventQuery, storage: Storage | None = None
) -> Iterator[pl.DataFrame]:
    """The accepted events that ``query`` asks for, a frame a chunk, ascending by partition and offset.

    Memory is one chunk at a time. ``storage`` is needed once chunks were compacted. Raises :class:`ChunkDamaged`.
    """
    for chunk_id, partition, next_offset, replay, payload, location, digest in _chunks(conn, stream, query):
        data = payload if location is None else _fetched(storage, location)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ChunkDamaged(
                f"chunk {chunk_id} of stream {stream.name!r} is not what was committed",
                hint="restore the database or the storage from a backup; no event of it was used",
            )
        frame = decode_chunk(data, partition) if location is None else _parquet(data)
        frame = _filtered(frame, stream, query, next_offset, replay)
        if len(frame):
            yield frame


def events(
    conn: psycopg.Connection, stream: Stream, query: EventQuery | None = None, storage: Storage | None = None
) -> pl.DataFrame:
    """All events that ``query`` asks for in one frame; no columns when there is none."""
    import polars as pl

    frames = list(event_frames(conn, stream, query or EventQuery(), storage))
    return pl.concat(frames) if frames else pl.DataFrame()


def replay_frames(
    conn: psycopg.Connection, stream: Stream, partition: int, since_event_time: int, storage: Storage | None = None
) -> Iterator[pl.DataFrame]:
    """Accepted events of one partition at or after an event time, in order: what ``Acceptor.restore`` needs."""
    query = EventQuery(since=since_event_time, partitions=(partition,))
    return event_frames(conn, stream, query, storage)


def _chunks(conn: psycopg.Connection, stream: Stream, query: EventQuery) -> Iterator[tuple[Any, ...]]:
    conditions = ["stream_id = %s"]
    values: list[Any] = [stream.stream_id]
    for condition, value in (
        ("max_event_time >= %s", query.since),
        ("min_event_time < %s", query.until),
        ("min_known_at <= %s", query.known_by),
        (
            "(replay is not null or next_offset > coalesce((%s::jsonb -> partition::text -> 0)::bigint, -1))",
            _as_json(query.after),
        ),
        ("partition = any(%s)", list(query.partitions) if query.partitions is not None else None),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    ids = conn.execute(
        f"select chunk_id from stream.chunk where {' and '.join(conditions)}"
        " order by partition, first_offset, chunk_id".encode(),
        values,
    ).fetchall()
    for start in range(0, len(ids), 16):  # bounded memory without a server-side cursor, which would need a transaction
        part = [row[0] for row in ids[start : start + 16]]
        yield from conn.execute(
            """select chunk_id, partition, next_offset, replay, payload, location, digest from stream.chunk
               where chunk_id = any(%s) order by partition, first_offset, chunk_id""",
            (part,),
            binary=True,
        ).fetchall()


def _as_json(version: Mapping[int, tuple[int, int]] | None) -> str | None:
    return None if version is None else json.dumps({str(p): list(v) for p, v in version.items()})


def _fetched(storage: Storage | None, location: str) -> bytes:
    if storage is None:
        raise CtError(f"the chunk {location} was compacted; the storage must be given to read it")
    with storage.open(location) as stream:
        return stream.read()


def _parquet(data: bytes) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(io.BytesIO(data))


def _filtered(
    frame: pl.DataFrame, stream: Stream, query: EventQuery, next_offset: int, replay: int | None
) -> pl.DataFrame:
    import polars as pl

    partition = int(frame[PARTITION][0])
    kept = [pl.lit(True)]
    time = pl.col(stream.event_time).dt.epoch("us")
    if query.since is not None:
        kept.append(time >= query.since)
    if query.until is not None:
        kept.append(time < query.until)
    if query.known_by is not None:
        kept.append(pl.col(KNOWN) <= query.known_by)
    if query.version is not None:
        kept.append(_seen(query.version.get(partition, (-1, 0)), next_offset, replay))
    if query.after is not None:
        kept.append(~_seen(query.after.get(partition, (-1, 0)), next_offset, replay))
    if len(kept) > 1:
        frame = frame.filter(pl.all_horizontal(kept))
    if query.columns is not None:
        frame = frame.select([*query.columns, PARTITION, OFFSET, APPEND, KNOWN])
    return frame


def _seen(version: tuple[int, int], next_offset: int, replay: int | None) -> pl.Expr:
    """Whether a reader of that version of the partition saw an event of this chunk."""
    import polars as pl

    below, replays = version
    if replay is not None:
        return pl.lit(replay <= replays)
    return pl.lit(True) if next_offset <= below else pl.col(OFFSET) < below

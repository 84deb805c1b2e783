"""Accepted events as compressed Arrow chunks: written with each commit, read back for training, replay and recovery.

What goes here: which chunks a question needs, events in order. What does not: the form of a chunk (``chunk_form``), the
transaction that writes them (``state``), moving them to Parquet (``compaction``).
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.chunk_form import APPEND, KNOWN, OFFSET, PARTITION, decode_chunk, encode_chunk
from ct_assets.adapters.stream.stored_form import StoredForm, stored_form
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.state import Stream

_THREADS = 2
_AT_ONCE = 16  # chunks read from the database at a time


class ChunkDamaged(CtError):
    """The bytes of a chunk are not those that were committed."""


@dataclass(frozen=True)
class EventQuery:
    """Which accepted events: all conditions that are given hold. Times in microseconds.

    ``since`` <= event time < ``until``; known at or before ``known_by``; ``version``: those that a reader saw whose
    version was ``{partition: (next offset, replays)}``; ``partitions``, ``columns`` (of the contract) and ``only`` (a
    condition on those) narrow the read. ``append_times`` False: nobody looks at them.
    """

    since: int | None = None
    until: int | None = None
    known_by: int | None = None
    version: Mapping[int, tuple[int, int]] | None = None
    after: Mapping[int, tuple[int, int]] | None = None
    partitions: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    only: pl.Expr | None = None
    append_times: bool = True


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
    """The accepted events that ``query`` asks for, a frame a chunk, ascending by partition and offset; replayed ones last.

    Everything that was committed when reading began, once, also while chunks are being compacted. Memory is a few chunks
    at a time. ``storage`` is needed once chunks were compacted. Raises :class:`ChunkDamaged`.
    """
    with ThreadPoolExecutor(_THREADS) as pool:  # one fetches, one decodes, one works on what was yielded
        waiting: deque[Future[pl.DataFrame]] = deque()
        form: StoredForm | None = None
        for chunk, skip_below, end in _chunks(conn, stream, query):
            if chunk.replay is not None:
                form = form or stored_form(conn, stream)
            read = partial(_decoded, chunk=chunk, columns=_read(stream, query), form=form)
            waiting.append(pool.submit(_chosen, chunk, (skip_below, end), (stream, query, storage), read))
            while len(waiting) > _THREADS:
                yield from _some(waiting.popleft().result())
        while waiting:
            yield from _some(waiting.popleft().result())


def _some(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    if len(frame):
        yield frame


def _chosen(
    chunk: _Chunk,
    offsets: tuple[int, int],
    asked: tuple[Stream, EventQuery, Storage | None],
    read: Callable[[bytes], pl.DataFrame],
) -> pl.DataFrame:
    """The events of one chunk that are asked for, of the offsets [from, to)."""
    stream, query, storage = asked
    data = chunk.payload if chunk.location is None else _fetched(storage, chunk.location)
    if hashlib.sha256(data).hexdigest() != chunk.digest:
        raise ChunkDamaged(
            f"chunk {chunk.chunk_id} of stream {stream.name!r} is not what was committed",
            hint="restore the database or the storage from a backup; no event of it was used",
        )
    frame = read(data)
    if chunk.first_offset < offsets[0] or chunk.next_offset > offsets[1]:
        frame = frame.filter(_between(*offsets))
    return _filtered(frame, stream, query, chunk)


def _read(stream: Stream, query: EventQuery) -> list[str] | None:
    """The columns to decode; None: all."""
    if query.columns is None:
        return None
    appended = [APPEND] if query.append_times else []
    return list(dict.fromkeys([*query.columns, stream.event_time, PARTITION, OFFSET, *appended, KNOWN]))


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


@dataclass(frozen=True)
class _Chunk:
    """A row of the table."""

    chunk_id: int
    partition: int
    first_offset: int
    next_offset: int
    replay: int | None
    payload: bytes
    location: str | None
    digest: str
    event_times: tuple[int, int]  # first and last
    last_known_at: int

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> _Chunk:
        """From the columns below."""
        return cls(*row[:8], event_times=(row[8], row[9]), last_known_at=row[10])


_COLUMNS = """chunk_id, partition, first_offset, next_offset, replay, payload, location, digest,
    min_event_time, max_event_time, max_known_at"""
_NO_END = 2**63 - 1


def _chunks(conn: psycopg.Connection, stream: Stream, query: EventQuery) -> Iterator[tuple[_Chunk, int, int]]:
    """Chunks with the offsets of theirs that count: (chunk, from, to).

    Read some at a time and in separate statements (a cursor would need a transaction), so chunks that were listed may be
    merged by the next statement: what was read is remembered as an offset, and a merged chunk is read from there on.
    """
    ends = conn.execute(
        """select partition, next_offset, replays from stream.partition
           where stream_id = %s and (%s::integer[] is null or partition = any(%s)) order by partition""",
        (stream.stream_id, *[None if query.partitions is None else list(query.partitions)] * 2),
    ).fetchall()
    conditions, values = _conditions(query)
    for partition, end, _ in ends:
        end = min(end, query.version.get(partition, (-1, 0))[0]) if query.version is not None else end
        read_to = query.after.get(partition, (-1, 0))[0] if query.after is not None else -1
        at_once = _THREADS  # few at first, so that decoding begins soon
        while found := conn.execute(
            f"""select {_COLUMNS} from stream.chunk where stream_id = %s and partition = %s and next_offset > %s
                and replay is null and first_offset < %s {conditions} order by next_offset limit %s""".encode(),
            (stream.stream_id, partition, read_to, end, *values, at_once),
            binary=True,
        ).fetchall():
            for row in found:
                yield _Chunk.of(row), read_to, end
                read_to = row[3]
            at_once = min(2 * at_once, _AT_ONCE)
    yield from _replayed(conn, stream, query, {row[0]: row[2] for row in ends})


def _replayed(
    conn: psycopg.Connection, stream: Stream, query: EventQuery, replays: dict[int, int]
) -> Iterator[tuple[_Chunk, int, int]]:
    """Chunks of replayed dead letters, which are never merged."""
    conditions, values = _conditions(query)
    ids = conn.execute(
        f"""select chunk_id, partition, replay from stream.chunk
            where stream_id = %s and replay is not null {conditions} order by chunk_id""".encode(),
        (stream.stream_id, *values),
    ).fetchall()
    chosen = [row[0] for row in ids if row[2] <= replays.get(row[1], -1)]
    for start in range(0, len(chosen), _AT_ONCE):
        rows = conn.execute(
            f"select {_COLUMNS} from stream.chunk where chunk_id = any(%s) order by chunk_id".encode(),
            (chosen[start : start + _AT_ONCE],),
            binary=True,
        ).fetchall()
        yield from ((_Chunk.of(row), -1, _NO_END) for row in rows)


def _conditions(query: EventQuery) -> tuple[str, list[int]]:
    """What a chunk must fulfil to hold an event that is asked for."""
    given = [
        ("max_event_time >= %s", query.since),
        ("min_event_time < %s", query.until),
        ("min_known_at <= %s", query.known_by),
    ]
    there = [(condition, value) for condition, value in given if value is not None]
    return "".join(f" and {condition}" for condition, _ in there), [value for _, value in there]


def _between(first: int, end: int) -> pl.Expr:
    import polars as pl

    return (pl.col(OFFSET) >= first) & (pl.col(OFFSET) < end)


def _fetched(storage: Storage | None, location: str) -> bytes:
    if storage is None:
        raise CtError(f"the chunk {location} was compacted; the storage must be given to read it")
    with storage.open(location) as stream:
        return stream.read()


def _decoded(data: bytes, chunk: _Chunk, columns: list[str] | None, form: StoredForm | None) -> pl.DataFrame:
    import polars as pl

    if chunk.replay is not None and form is not None:
        return _in_form(decode_chunk(data, chunk.partition), chunk, columns, form)
    if chunk.location is None:
        return decode_chunk(data, chunk.partition, columns)
    return pl.read_parquet(io.BytesIO(data), columns=columns)


def _in_form(frame: pl.DataFrame, chunk: _Chunk, columns: list[str] | None, form: StoredForm) -> pl.DataFrame:
    """Letters that came back, in the stream's columns: earlier versions stored them in those of another contract."""
    wrong = form.retyped(frame.schema)
    if wrong:
        raise ChunkDamaged(
            f"chunk {chunk.chunk_id} holds dead letters that came back by a contract with other types: "
            + "; ".join(wrong),
            hint="a replay is refused for that now. `delete from stream.chunk where chunk_id ="
            f" {chunk.chunk_id}` takes them out of the stored events; a version deployed after that is right online too",
        )
    frame = form.fit(frame)
    return frame if columns is None else frame.select(columns)


def _filtered(frame: pl.DataFrame, stream: Stream, query: EventQuery, chunk: _Chunk) -> pl.DataFrame:
    import polars as pl

    kept = _conditions_within(stream, query, chunk)
    if query.version is not None:
        kept.append(_seen(query.version.get(chunk.partition, (-1, 0)), chunk))
    if query.after is not None:
        kept.append(~_seen(query.after.get(chunk.partition, (-1, 0)), chunk))
    if query.only is not None:
        kept.append(query.only)
    if kept:
        frame = frame.filter(pl.all_horizontal(kept))
    if query.columns is not None:
        frame = frame.select(
            name for name in (*query.columns, PARTITION, OFFSET, APPEND, KNOWN) if name in frame.columns
        )
    return frame


def _conditions_within(stream: Stream, query: EventQuery, chunk: _Chunk) -> list[pl.Expr]:
    """Those on times that not every event of the chunk fulfils anyway."""
    import polars as pl

    kept = []
    time = pl.col(stream.event_time).dt.epoch("us")
    if query.since is not None and chunk.event_times[0] < query.since:
        kept.append(time >= query.since)
    if query.until is not None and chunk.event_times[1] >= query.until:
        kept.append(time < query.until)
    if query.known_by is not None and chunk.last_known_at > query.known_by:
        kept.append(pl.col(KNOWN) <= query.known_by)
    return kept


def _seen(version: tuple[int, int], chunk: _Chunk) -> pl.Expr:
    """Whether a reader of that version of the partition saw an event of this chunk."""
    import polars as pl

    below, replays = version
    if chunk.replay is not None:
        return pl.lit(chunk.replay <= replays)
    return pl.lit(True) if chunk.next_offset <= below else pl.col(OFFSET) < below

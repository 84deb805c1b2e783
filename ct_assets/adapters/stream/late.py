"""Events that came later than ``allowed_lateness``: dead letters online, part of an hour's snapshot offline.

What goes here: keeping them as events, and reading them. What does not: why an event is late (``streaming.accept``), the
letters themselves (``dead_letters``).

Online values and training sets never see them; the snapshots of their hours are rebuilt with them. What was accepted under the same id in the same partition
is not counted again: an id is forgotten behind the dedup horizon, so the repeat of an old event comes back as late.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.chunk_form import APPEND, KNOWN, OFFSET, PARTITION, decode_chunk, encode_chunk
from ct_assets.adapters.stream.chunks import ChunkDamaged, EventQuery, event_frames

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.records import Stream


def insert_late(conn: psycopg.Connection, stream: Stream, events: pl.DataFrame, replay: int | None = None) -> None:
    """Keep late events (``Accepted.late``) inside the open transaction; ``replay``: of which replay of their letters."""
    for part in events.sort(PARTITION, OFFSET).partition_by(PARTITION):
        payload, times = encode_chunk(part), part[stream.event_time].to_physical()
        conn.execute(
            """insert into stream.late_chunk
                   (stream_id, partition, offsets, replay, min_event_time, max_event_time, payload, digest)
               values (%s, %s, %s, %s, %s, %s, %s, %s)""",
            (
                stream.stream_id,
                part[PARTITION][0],
                part[OFFSET].to_list(),
                replay,
                times.min(),
                times.max(),
                payload,
                hashlib.sha256(payload).hexdigest(),
            ),
        )


def keep_late(conn: psycopg.Connection, stream: Stream, events: pl.DataFrame, replay: int) -> bool:
    """Of late events of one partition, that came back with a replay, keep those that are not kept yet; whether there are."""
    import polars as pl

    if not len(events):
        return False
    offsets = events[OFFSET].to_list()
    rows = conn.execute(
        """select distinct o from stream.late_chunk, unnest(offsets) o
           where stream_id = %s and partition = %s and offsets && %s::bigint[]""",
        (stream.stream_id, events[PARTITION][0], offsets),
    ).fetchall()
    fresh = events.filter(~pl.col(OFFSET).is_in([row[0] for row in rows]))
    if len(fresh):
        insert_late(conn, stream, fresh, replay)
    return len(fresh) > 0


def late_events(
    conn: psycopg.Connection, stream: Stream, query: EventQuery, storage: Storage | None = None
) -> pl.DataFrame | None:
    """The late events that ``query`` asks for (``since``, ``until``, ``after``, ``columns``), as ``event_frames`` gives
    accepted ones; each id of a partition once, and none that was accepted. None: there is none."""
    import polars as pl

    found = _kept(conn, stream, query)
    if not found:
        return None
    late = pl.concat(found).unique([PARTITION, stream.acceptance.event_id], keep="first", maintain_order=True)
    late = late.join(_accepted(conn, stream, late, storage), on=[PARTITION, stream.acceptance.event_id], how="anti")
    if query.columns is not None:
        places = (PARTITION, OFFSET, *([APPEND] if query.append_times else []), KNOWN)
        late = late.select(list(dict.fromkeys((*query.columns, *places))))
    return late if len(late) else None


def remove_late_before(conn: psycopg.Connection, stream: Stream, before_us: int) -> None:
    """Retention: late events whose time is before ``before_us`` go with the accepted ones of their time."""
    conn.execute(
        "delete from stream.late_chunk where stream_id = %s and max_event_time < %s", (stream.stream_id, before_us)
    )


def _kept(conn: psycopg.Connection, stream: Stream, query: EventQuery) -> list[pl.DataFrame]:
    """In order of arrival."""
    import polars as pl

    rows = conn.execute(
        """select late_chunk_id, partition, replay, payload, digest from stream.late_chunk
           where stream_id = %s and (%s::bigint is null or max_event_time >= %s)
             and (%s::bigint is null or min_event_time < %s) order by late_chunk_id""",
        (stream.stream_id, query.since, query.since, query.until, query.until),
        binary=True,
    ).fetchall()
    found = []
    for number, partition, replay, payload, digest in rows:
        if hashlib.sha256(payload).hexdigest() != digest:
            raise ChunkDamaged(
                f"late events {number} of stream {stream.name!r} are not what was committed",
                hint="restore the database from a backup",
            )
        time = pl.col(stream.event_time).dt.epoch("us")
        asked = [pl.lit(True)]
        asked += [time >= query.since] if query.since is not None else []
        asked += [time < query.until] if query.until is not None else []
        if query.after is not None:
            offset, replays = query.after.get(partition, (-1, 0))
            asked.append(pl.col(OFFSET) >= offset if replay is None else pl.lit(replay > replays))
        frame = decode_chunk(payload, partition).filter(*asked)
        found += [frame] if len(frame) else []
    return found


def _accepted(conn: psycopg.Connection, stream: Stream, late: pl.DataFrame, storage: Storage | None) -> pl.DataFrame:
    """(partition, id) of accepted events of the late ones' time that have one of their ids."""
    import polars as pl

    name, times = stream.acceptance.event_id, late[stream.event_time].to_physical()
    low, high = times.min(), times.max()
    assert isinstance(low, int)
    assert isinstance(high, int)
    ids = late[name].unique()
    query = EventQuery(
        since=low, until=high + 1, columns=(name,), only=pl.col(name).is_in(ids.implode()), append_times=False
    )
    frames = [frame.select(PARTITION, name) for frame in event_frames(conn, stream, query, storage)]
    return pl.concat(frames) if frames else late.select(PARTITION, name).clear()

"""Events that came later than ``allowed_lateness``: dead letters online, part of an hour's snapshot offline.

What goes here: keeping them as events, and reading them. What does not: why an event is late (``streaming.accept``), the
letters themselves (``dead_letters``).

Online values and training sets never see them; the snapshots of their hours are rebuilt with them. A repeat is not counted:
an id is forgotten behind the dedup horizon, so the repeat of an old event comes back as late. It is one when an event with
its id, whose time is at most ``dedup_horizon`` from its own, stands before it in its partition (of a letter that came back:
anywhere) and was accepted, or came too late before it did. So what counts depends on the events alone, never on which of them a reading asks for, and what counted
once goes on to count whatever comes later.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.chunk_form import APPEND, KNOWN, OFFSET, PARTITION, decode_chunk, encode_chunk
from ct_assets.adapters.stream.chunks import ChunkDamaged, EventQuery, event_frames

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.records import Stream

# columns: number of arrival, number of a letter's replay, microseconds and place of a late event
_ORDER, _REPLAY, _TIME, _OFFSET = "_order", "_replay", "_time", "_late_offset"


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
    """The late events that ``query`` asks for (``since``, ``until``, ``after``, ``columns``) and that are no repeats, as
    ``event_frames`` gives accepted ones. With ``after`` (which hours are to be looked at again?) repeats of earlier ones may
    be among them. None: there is none."""
    import polars as pl

    time, horizon = pl.col(stream.event_time).dt.epoch("us"), stream.acceptance.dedup_horizon_us
    since, until = (
        None if edge is None else edge + by for edge, by in ((query.since, -horizon), (query.until, horizon))
    )
    found = _kept(conn, stream, (since, until), _came_after(query))
    if not found:
        return None
    late = pl.concat(found).with_row_index(_ORDER)
    repeats = _repeats(late, stream) if query.after is None else []
    late = late.filter(
        ~pl.col(_ORDER).is_in(repeats),
        time >= query.since if query.since is not None else True,
        time < query.until if query.until is not None else True,
    ).unique([PARTITION, OFFSET], keep="first", maintain_order=True)
    if not len(late):
        return None
    late = late.join(_accepted(conn, stream, late, storage), on=_ORDER, how="anti").drop(_ORDER, _REPLAY)
    if query.columns is not None:
        places = (PARTITION, OFFSET, *([APPEND] if query.append_times else []), KNOWN)
        late = late.select(list(dict.fromkeys((*query.columns, *places))))
    return late if len(late) else None


def remove_late(conn: psycopg.Connection, stream: Stream) -> None:
    """Retention: late events go with the accepted ones of their time, never before: an hour that is whole keeps all of its
    own."""
    conn.execute(
        """delete from stream.late_chunk c using stream.stream s
           where c.stream_id = %s and s.stream_id = c.stream_id and c.max_event_time < s.removed_before""",
        (stream.stream_id,),
    )


def _kept(
    conn: psycopg.Connection, stream: Stream, span: tuple[int | None, int | None], only: pl.Expr
) -> list[pl.DataFrame]:
    """What was kept of event times ``[since, until)`` (and more), in order of arrival, with the number of its replay."""
    import polars as pl

    since, until = span
    rows = conn.execute(
        """select late_chunk_id, partition, replay, payload, digest from stream.late_chunk
           where stream_id = %s and (%s::bigint is null or max_event_time >= %s)
             and (%s::bigint is null or min_event_time < %s) order by late_chunk_id""",
        (stream.stream_id, since, since, until, until),
        binary=True,
    ).fetchall()
    found = []
    for number, partition, replay, payload, digest in rows:
        if hashlib.sha256(payload).hexdigest() != digest:
            raise ChunkDamaged(
                f"late events {number} of stream {stream.name!r} are not what was committed",
                hint="restore the database from a backup",
            )
        frame = decode_chunk(payload, partition).with_columns(pl.lit(replay, pl.Int64).alias(_REPLAY)).filter(only)
        found += [frame] if len(frame) else []
    return found


def _came_after(query: EventQuery) -> pl.Expr:
    """Which kept events a reader of the version ``query.after`` has not seen."""
    import polars as pl

    if query.after is None:
        return pl.lit(True)
    seen = pl.lit(False)
    for partition, (offset, replays) in query.after.items():
        read = pl.when(pl.col(_REPLAY).is_null()).then(pl.col(OFFSET) < offset).otherwise(pl.col(_REPLAY) <= replays)
        seen = seen | ((pl.col(PARTITION) == partition) & read)
    return ~seen


def _repeats(late: pl.DataFrame, stream: Stream) -> list[int]:
    """``_ORDER`` of late events that have the partition and id of one before them, at most a horizon away.

    One by one: a pair of each two would be a million million where a producer gives all its events one id.
    """
    import polars as pl

    names, horizon = [PARTITION, stream.acceptance.event_id], stream.acceptance.dedup_horizon_us
    several = late.filter(pl.len().over(names) > 1)
    found: list[int] = []
    before: dict[tuple[object, ...], list[int]] = {}
    for order, time, *name in several.select(_ORDER, pl.col(stream.event_time).dt.epoch("us"), *names).iter_rows():
        times = before.setdefault(tuple(name), [])
        nearest = bisect_left(times, time - horizon)
        if nearest < len(times) and times[nearest] <= time + horizon:
            found.append(order)
        insort(times, time)
    return found


def _accepted(conn: psycopg.Connection, stream: Stream, late: pl.DataFrame, storage: Storage | None) -> pl.DataFrame:
    """``_ORDER`` of late events before which one of their partition and id was accepted, at most a horizon away.

    A letter that came back keeps its old place but came after all that was accepted until then.
    """
    import polars as pl

    name, at = stream.acceptance.event_id, stream.event_time
    low, high = late[at].to_physical().min(), late[at].to_physical().max()
    assert isinstance(low, int)
    assert isinstance(high, int)
    horizon = stream.acceptance.dedup_horizon_us
    query = EventQuery(
        since=low - horizon,
        until=high + horizon + 1,
        columns=(name, at),
        only=pl.col(name).is_in(late[name].unique().implode()),
        append_times=False,
    )
    time, pairs = pl.col(at).dt.epoch("us"), []
    asked = late.select(_ORDER, _REPLAY, PARTITION, name, pl.col(OFFSET).alias(_OFFSET), time.alias(_TIME))
    for frame in event_frames(conn, stream, query, storage):
        both = asked.join(frame.select(PARTITION, OFFSET, name, at), on=[PARTITION, name])
        near = (time - pl.col(_TIME)).abs() <= horizon
        before = pl.col(_REPLAY).is_not_null() | (pl.col(OFFSET) <= pl.col(_OFFSET))
        pairs.append(both.filter(near, before).select(_ORDER))
    return pl.concat(pairs) if pairs else asked.select(_ORDER).clear()

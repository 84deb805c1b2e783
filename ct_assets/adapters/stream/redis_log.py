"""The log of accepted events into Redis: from one progress to the next, over what was missed, or all of it anew.

What goes here: reading what Redis lacks and writing it under a new progress. What does not: when (``redis_sync``), keys and
calls (``redis_online``), reading chunks (``chunks``).
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ct_assets.adapters.crash import Crash
from ct_assets.adapters.stream.chunks import OFFSET, PARTITION, EventQuery, event_frames
from ct_assets.adapters.stream.online import garbage_limit
from ct_assets.adapters.stream.redis_online import Delta, OnlineBehind, Progress, RedisTable

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.records import Stream

_LOAD_LOCK = 7_236_013  # class of the advisory locks; the key is the definition
EVENTS_AT_ONCE = 200_000
_ALL = 1 << 62  # beyond any offset and any count of replays


@dataclass(frozen=True)
class LogToRedis:
    """Writes what was committed of one stream. ``reads_back_us``: rows stay for reads so far back, beyond the windows."""

    stream: Stream
    storage: Storage | None
    crash: Crash
    reads_back_us: int

    def catch_up(  # noqa: PLR0913 - one partition, from where to where
        self,
        conn: psycopg.Connection,
        place: RedisTable,
        generation: bytes,
        partition: int,
        old: Progress,
        new: Progress,
    ) -> None:
        """Bring a partition from one progress to another. Raises OnlineBehind."""
        import polars as pl

        if new.next_offset > old.next_offset:
            query = EventQuery(
                since=self._reach(conn, place),
                after={partition: (old.next_offset, _ALL)},
                version={partition: (new.next_offset, _ALL)},
                partitions=(partition,),
            )
            for events, end in self._pieces(conn, query, new.next_offset):
                now = replace(old, next_offset=end)
                self.move(place, generation, {partition: (old, now)}, events)
                old = now
        for replay in range(old.replays, new.replays):  # one after the other: a part of several could not be told
            query = EventQuery(
                since=self._reach(conn, place),
                after={partition: (_ALL, replay)},
                version={partition: (_ALL, replay + 1)},
                partitions=(partition,),
            )
            now = replace(old, replays=replay + 1)
            frames = list(event_frames(conn, self.stream, query, self.storage))
            events = pl.concat(frames) if frames else pl.DataFrame()
            self.move(place, generation, {partition: (old, now)}, events, by_replays=True)
            old = now
        if old != new and not place.advance(generation, {partition: (old, new)}):
            raise OnlineBehind("another worker moved it")

    def _pieces(self, conn: psycopg.Connection, query: EventQuery, end: int) -> Iterator[tuple[pl.DataFrame, int]]:
        """Events in pieces of about :data:`EVENTS_AT_ONCE` with the offset after each; the last one's is ``end``."""
        import polars as pl

        waiting: list[pl.DataFrame] = []
        for frame in event_frames(conn, self.stream, query, self.storage):
            if sum(map(len, waiting)) >= EVENTS_AT_ONCE:
                yield pl.concat(waiting), int(waiting[-1][OFFSET][-1]) + 1
                waiting = []
            waiting.append(frame)
        yield (pl.concat(waiting) if waiting else pl.DataFrame()), end

    def move(
        self,
        place: RedisTable,
        generation: bytes,
        moves: Mapping[int, tuple[Progress, Progress]],
        events: pl.DataFrame,
        *,
        by_replays: bool = False,
    ) -> None:
        """Write the events between two progresses of some partitions, then say so."""
        from ct_assets.adapters.stream.packed_rows import Range

        def place_of(progress: Progress) -> int:
            return progress.replays if by_replays else progress.next_offset

        begins = {p: place_of(old) for p, (old, _) in moves.items()}
        ranges = {p: Range(place_of(old), place_of(new), self._below(place, new)) for p, (old, new) in moves.items()}
        self._send(place, generation, Delta(ranges, begins, by_replays), events)
        self.crash("twin_sent")
        if not place.advance(generation, moves):
            raise OnlineBehind("another worker moved it")

    def _send(self, place: RedisTable, generation: bytes, delta: Delta, events: pl.DataFrame) -> None:
        import polars as pl

        from ct_assets.adapters.stream.packed_rows import pack

        rows = pack(place.packing, events, delta.ranges, by_replays=delta.by_replays) if len(events) else None
        if rows is None:
            return
        overlaps = place.send(rows, generation, delta)
        if overlaps and delta.by_replays:
            raise OnlineBehind("replayed events were applied in part")
        entity = pl.col(place.table.definition.entity).cast(pl.String)
        for (
            name,
            partition,
            version,
        ) in overlaps:  # rare: a worker died, or lost its partition, in the middle of a delta
            rest = events.filter(
                (entity == name.decode()) & (pl.col(PARTITION) == partition) & (pl.col(OFFSET) >= version)
            )
            narrowed = {partition: replace(delta.ranges[partition], begin=version)}
            self._send(place, generation, replace(delta, ranges=narrowed), rest)

    def load(self, conn: psycopg.Connection, place: RedisTable) -> tuple[bytes, int] | None:
        """Load a version anew beside what is there, then let it answer: its generation and how many events. None: another
        process is at it."""
        from ct_assets.adapters.stream.packed_rows import Range

        definition_id = place.table.definition_id
        row = conn.execute("select pg_try_advisory_lock(%s, %s)", (_LOAD_LOCK, definition_id)).fetchone()
        if row != (True,):
            return None
        try:
            generation = uuid.uuid4().hex[:12].encode()  # part of every key
            progress = committed_progress(conn, self.stream, None)
            ranges = {p: Range(float("inf"), found.next_offset) for p, found in progress.items()}
            query = EventQuery(since=self._reach(conn, place), version={p: f.version for p, f in progress.items()})
            total, numbers = 0, itertools.count(1)
            for events, _ in self._pieces(conn, query, 0):
                self._send(place, generation, Delta(ranges, numbers=numbers), events)
                total += len(events)
            place.publish(generation, progress)
            place.sweep(generation)  # of before, and of loads that were broken off
            return generation, total
        finally:
            if not conn.closed:
                conn.execute("select pg_advisory_unlock(%s, %s)", (_LOAD_LOCK, definition_id))

    def _reach(self, conn: psycopg.Connection, place: RedisTable) -> int | None:
        """The earliest event time that can still matter, behind the slowest partition; None: all."""
        tops = [p.top for p in committed_progress(conn, self.stream, None).values() if p.top is not None]
        return self._limit(place, min(tops)) if tops else None

    def _below(self, place: RedisTable, progress: Progress) -> float:
        """The event time before which a row of the partition may go."""
        return float("-inf") if progress.top is None else float(self._limit(place, progress.top))

    def _limit(self, place: RedisTable, top: int) -> int:
        watermark = top - place.table.definition.acceptance.out_of_orderness_us
        return garbage_limit(place.table, watermark - self.reads_back_us)


def committed_progress(
    conn: psycopg.Connection, stream: Stream, partitions: Iterable[int] | None
) -> dict[int, Progress]:
    """How far the database is, by partition."""
    with conn.transaction():
        rows = conn.execute(
            """select partition, next_offset, replays, top, last_append, caught_up,
                      (extract(epoch from updated_at) * 1000000)::bigint
               from stream.partition where stream_id = %s and (%s::integer[] is null or partition = any(%s))
               order by partition""",
            (stream.stream_id, *[None if partitions is None else list(partitions)] * 2),
        ).fetchall()
    return {row[0]: Progress(*row[1:]) for row in rows}

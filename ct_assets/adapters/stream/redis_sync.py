"""Redis follows PostgreSQL: what was committed is applied, what was missed is caught up, what is gone is loaded again.

What goes here: when Redis is written, and from what. What does not: how (``redis_online``), commits (``state``).

The outbox is the log that every commit writes anyway: the chunks of accepted events (``chunks``). Redis names, by
partition, the version up to which it has applied them. A commit whose beginning is that version is applied from memory;
anything else (a crash between commit and apply, a Redis that was away or came back older) is read from the log behind the
version that Redis names. Rows name the version they hold too, so a part that comes twice changes nothing.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.stream.chunks import OFFSET, PARTITION, EventQuery, event_frames
from ct_assets.adapters.stream.online import garbage_limit
from ct_assets.adapters.stream.redis_online import (
    Delta,
    OnlineBehind,
    OnlineUnreachable,
    Progress,
    RedisTable,
    connect,
)
from ct_assets.adapters.stream.versions import ready_tables
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    import redis

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.records import PartitionProgress, Stream

_LOAD_LOCK = 7_236_013  # class of the advisory locks; the key is the definition
EVENTS_AT_ONCE = 200_000
PATIENCE_SECONDS = 120.0  # how long a worker commits on while Redis is away, before it stops with the reason
RETRY_SECONDS = 1.0
_ALL = 1 << 62  # beyond any offset and any count of replays
_TRIES = 5


@dataclass
class Twin:
    """The copy in Redis of one stream's online tables. One worker uses it from one thread at a time."""

    client: redis.Redis
    stream: Stream
    url: str
    storage: Storage | None = None
    say: Callable[[str], None] = lambda _: None
    crash: Crash = no_crash
    patience_seconds: float = PATIENCE_SECONDS
    reads_back_us: int = 0  # rows stay for reads so far back, beyond what the windows need
    clock: Callable[[], float] = time.monotonic
    _places: dict[int, RedisTable] = field(default_factory=dict)
    _generations: dict[int, bytes] = field(default_factory=dict)
    _away_since: float | None = None
    _tried_at: float = 0.0

    @classmethod
    def opened(cls, url: str, stream: Stream, storage: Storage | None = None, **more: object) -> Twin:
        """A twin of ``stream`` in the Redis of ``url``; nothing is opened yet."""
        return cls(connect(url), stream, url, storage, **more)  # pyright: ignore[reportArgumentType]

    # -- what a worker calls -------------------------------------------------------------------------------------------

    def committed(self, conn: psycopg.Connection, progress: Sequence[PartitionProgress], events: pl.DataFrame) -> None:
        """Apply a batch that was committed a moment ago. Raises :class:`OnlineAway` when Redis is away for too long.

        ``conn`` is in autocommit. While Redis is away nothing is tried more often than once a second.
        """
        if self._away_since is not None and self.clock() - self._tried_at < RETRY_SECONDS:
            self._out_of_patience()
            return
        parts = [p.partition for p in progress]

        def apply() -> None:
            for place in self._tables(conn):
                try:
                    self._apply(conn, place, progress, events)
                except OnlineBehind:
                    self._level(conn, place, parts)

        self._tried(apply)

    def level(self, conn: psycopg.Connection, partitions: Sequence[int] | None = None) -> None:
        """Bring Redis up to what is committed of ``partitions`` (None: all), loading what is gone; say how fresh it is.

        Nothing is raised while Redis is away for less than the patience.
        """

        def work() -> None:
            for place in self._tables(conn):
                self._level(conn, place, partitions)

        self._tried(work)

    # -- what people call ----------------------------------------------------------------------------------------------

    def sync(self, conn: psycopg.Connection, rebuild: bool = False) -> list[str]:
        """Level all ready versions now, or load them again; their names. Raises OnlineUnreachable."""
        places = self._tables(conn)
        for place in places:
            if not (rebuild and self._load(conn, place)):
                self._level(conn, place, None)
        return [place.table.definition.name for place in places]

    def place(self, conn: psycopg.Connection, table: OnlineTable) -> RedisTable:
        """Where a version lies in this Redis."""
        return RedisTable.of(self.client, conn, table, self.url)

    # ------------------------------------------------------------------------------------------------------------------

    def _tried(self, work: Callable[[], None]) -> None:
        from ct_assets.adapters.stream.redis_online import asked

        self._tried_at = self.clock()
        try:
            asked(work, "")
        except OnlineUnreachable as error:
            if self._away_since is None:
                self._away_since = self.clock()
                self.say(f"{error.message}; commits go on for {self.patience_seconds:g} s, readers see the past")
            self._generations.clear()
            self._out_of_patience()
            return
        if self._away_since is not None:
            self.say(f"Redis is back after {self.clock() - self._away_since:.0f} s and caught up")
            self._away_since = None

    def _out_of_patience(self) -> None:
        if self._away_since is not None and self.clock() - self._away_since > self.patience_seconds:
            raise OnlineAway(
                f"Redis was away for more than {self.patience_seconds:g} s; everything is committed in PostgreSQL",
                hint="start Redis (`ct doctor` examines it) and the worker again: it catches up",
            )

    def _tables(self, conn: psycopg.Connection) -> list[RedisTable]:
        known = [place.table for place in self._places.values()]
        with conn.transaction():
            tables = ready_tables(conn, self.stream, known)
            for table in tables:
                if table.definition_id not in self._places:
                    self._places[table.definition_id] = self.place(conn, table)
        return [self._places[table.definition_id] for table in tables]

    def _apply(
        self, conn: psycopg.Connection, place: RedisTable, progress: Sequence[PartitionProgress], events: pl.DataFrame
    ) -> None:
        """One committed batch from memory. Raises OnlineBehind when Redis is not where it begins."""
        generation = self._generations.get(place.table.definition_id)
        if generation is None:
            raise OnlineBehind("not looked at yet")
        found = committed_progress(conn, self.stream, [p.partition for p in progress])
        moves = {}
        for p in progress:
            now = replace(found[p.partition], next_offset=p.next_offset)
            moves[p.partition] = (replace(now, next_offset=p.expected_offset), now)
        self._move(place, generation, moves, events)

    def _level(self, conn: psycopg.Connection, place: RedisTable, partitions: Sequence[int] | None) -> None:
        for _ in range(_TRIES):
            try:
                if self._leveled(conn, place, partitions):
                    return
            except OnlineBehind:  # another worker moved meanwhile
                continue
        raise OnlineUnreachable(f"Redis kept changing while {place.table.definition.name} was brought up to date")

    def _leveled(self, conn: psycopg.Connection, place: RedisTable, partitions: Sequence[int] | None) -> bool:
        """One try; True when there is nothing left to do here."""
        generation, held = place.generation(), place.progress()  # before the database's: Redis never leads it
        target = committed_progress(conn, self.stream, None)
        if generation is None or held is None or _is_ahead(held, target):
            self._load(conn, place)  # or another process is at it: it goes on in the next look
            return True
        self._generations[place.table.definition_id] = generation
        for partition, now in target.items():
            if partitions is None or partition in partitions:
                self._catch_up(conn, place, generation, partition, held.get(partition, Progress()), now)
        return True

    def _catch_up(  # noqa: PLR0913 - one partition, from where to where
        self,
        conn: psycopg.Connection,
        place: RedisTable,
        generation: bytes,
        partition: int,
        old: Progress,
        new: Progress,
    ) -> None:
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
                self._move(place, generation, {partition: (old, now)}, events)
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
            self._move(place, generation, {partition: (old, now)}, events, by_replays=True)
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

    def _move(
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

    def _load(self, conn: psycopg.Connection, place: RedisTable) -> bool:
        """Load a version anew beside what is there, then let it answer. False: another process is at it."""
        from ct_assets.adapters.stream.packed_rows import Range

        definition_id = place.table.definition_id
        row = conn.execute("select pg_try_advisory_lock(%s, %s)", (_LOAD_LOCK, definition_id)).fetchone()
        if row != (True,):
            return False
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
            self._generations[definition_id] = generation
            place.sweep(generation)  # of before, and of loads that were broken off
            self.say(f"loaded {place.table.definition.name} into Redis: {total:,} events")
            return True
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


class OnlineAway(CtError):
    """Redis was away longer than the worker's patience."""


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


def _is_ahead(held: Mapping[int, Progress], target: Mapping[int, Progress]) -> bool:
    """Whether Redis has what the database lost (a failover): it is loaded again."""
    return any(
        p not in target or h.next_offset > target[p].next_offset or h.replays > target[p].replays
        for p, h in held.items()
    )

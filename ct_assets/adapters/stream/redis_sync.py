"""Redis follows PostgreSQL: what was committed is applied, what was missed is caught up, what is gone is loaded again.

What goes here: when Redis is written, and how long it may be away. What does not: reading the log for it (``redis_log``),
writing it (``redis_online``), commits (``state``).

The outbox is the log that every commit writes anyway: the chunks of accepted events (``chunks``). Redis names, by
partition, the version up to which it has applied them. A commit whose beginning is that version is applied from memory;
anything else (a crash between commit and apply, a Redis that was away or came back older) is read from the log behind the
version that Redis names. Rows name the version they hold too, so a part that comes twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ct_assets.adapters.crash import Crash, no_crash
from ct_assets.adapters.stream.redis_log import LogToRedis, committed_progress
from ct_assets.adapters.stream.redis_online import OnlineBehind, OnlineUnreachable, Progress, RedisTable, connect
from ct_assets.adapters.stream.versions import ready_tables
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    import redis

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.records import PartitionProgress, Stream

PATIENCE_SECONDS = 120.0  # how long a worker commits on while Redis is away, before it stops with the reason
RETRY_SECONDS = 1.0
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

    @cached_property
    def _log(self) -> LogToRedis:
        return LogToRedis(self.stream, self.storage, self.crash, self.reads_back_us)

    def _load(self, conn: psycopg.Connection, place: RedisTable) -> bool:
        """Load a version anew; False: another process is at it."""
        loaded = self._log.load(conn, place)
        if loaded is None:
            return False
        generation, events = loaded
        self._generations[place.table.definition_id] = generation
        self.say(f"loaded {place.table.definition.name} into Redis: {events:,} events")
        return True

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
        self._log.move(place, generation, moves, events)

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
                self._log.catch_up(conn, place, generation, partition, held.get(partition, Progress()), now)
        return True


class OnlineAway(CtError):
    """Redis was away longer than the worker's patience."""


def _is_ahead(held: Mapping[int, Progress], target: Mapping[int, Progress]) -> bool:
    """Whether Redis has what the database lost (a failover): it is loaded again."""
    return any(
        p not in target or h.next_offset > target[p].next_offset or h.replays > target[p].replays
        for p, h in held.items()
    )

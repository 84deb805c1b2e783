"""The online store in Redis: an entity's rows under one key, conditional bulk writes, reads finished in one round trip.

What goes here: the client, keys, sending rows, reading. What does not: what is written (``redis_log``) and when
(``redis_sync``), Lua (``redis_scripts``, ``redis_read_script``), bytes (``packed_*``).

PostgreSQL stays the truth: Redis is a copy of what was committed there, and says up to where (its *progress*, by
partition). An empty or older Redis is not an empty window: reads refuse until it is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.online_read import OnlineValues
from ct_assets.adapters.stream.packed_form import FORM, Packing
from ct_assets.adapters.stream.packed_read import Finisher
from ct_assets.adapters.stream.redis_read_script import read_script
from ct_assets.adapters.stream.redis_scripts import ADVANCE, write_script
from ct_assets.errors import CtError, UsageError
from ct_assets.settings import redact
from ct_assets.streaming.watermark import PartitionState, completeness

if TYPE_CHECKING:
    import psycopg
    import redis

    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.packed_rows import Packed, Range

MESSAGE_BYTES = 256 * 1024  # of rows in one call: some ms of Redis' one thread, so readers never wait long
READ_AT_ONCE = 1_000  # entities in one call
TORN_SECONDS = 5.0
UNSEEN = (-2, 0)  # (next offset, replays) of a partition that nothing is known of


class OnlineUnreachable(CtError):
    """Redis does not answer."""


class OnlineNotLoaded(CtError):
    """Redis has nothing of this version: its windows are unknown, not empty."""


class OnlineBehind(CtError):
    """A write did not fit what Redis has (``reason``: gap, generation): catch up from the database first."""


@dataclass(frozen=True)
class Progress:
    """What Redis, or the database, holds of one partition. Times in microseconds; see ``stream.partition``."""

    next_offset: int = UNSEEN[0]
    replays: int = UNSEEN[1]
    top: int | None = None
    last_append: int | None = None
    caught_up: bool = False
    updated: int | None = None

    @property
    def version(self) -> tuple[int, int]:
        """(next offset, replays)."""
        return self.next_offset, self.replays

    @property
    def text(self) -> str:
        """As a field of the hash in Redis."""
        numbers = (self.next_offset, self.replays, self.top, self.last_append, int(self.caught_up), self.updated)
        return ":".join("" if n is None else str(n) for n in numbers)

    @classmethod
    def parsed(cls, text: bytes) -> Progress:
        """Back from the hash."""
        n = [int(part) if part else None for part in text.split(b":")]
        assert n[0] is not None
        assert n[1] is not None
        return cls(n[0], n[1], n[2], n[3], bool(n[4]), n[5])


@dataclass(frozen=True)
class Delta:
    """What a write covers: ``ranges`` by partition, counted in offsets or in replays.

    It takes place only where the progress of each partition is at ``begins``. A load, of a generation that nobody reads
    yet, has ``numbers`` for its messages instead (1, 2, ... over all its deltas): each takes place once.
    """

    ranges: Mapping[int, Range]
    begins: Mapping[int, int] = field(default_factory=dict)
    by_replays: bool = False
    numbers: Iterator[int] | None = None


_Parsed = tuple[dict[int, Progress], list[PartitionState], int | None]


def connect(url: str) -> redis.Redis:
    """A client of ``url``; nothing is opened before its first command. Reads are retried once on a broken connection."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(
        url,
        socket_timeout=10,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=0,
        client_name="ct_assets",
    )


@dataclass(frozen=True)
class RedisTable:
    """One version of a definition in one Redis."""

    client: redis.Redis
    table: OnlineTable
    base: str
    address: str = field(default="", repr=False)  # for messages, without password

    @classmethod
    def of(cls, client: redis.Redis, conn: psycopg.Connection, table: OnlineTable, url: str = "") -> RedisTable:
        """The place of a registered version. Its registration time keeps versions of another database apart."""
        row = conn.execute(
            "select (extract(epoch from created_at) * 1000000)::bigint from stream.definition where definition_id = %s",
            (table.definition_id,),
        ).fetchone()
        if row is None:
            raise UsageError(f"version {table.definition.hash[:12]} of {table.definition.name} is not registered")
        return cls(client, table, f"ct:{table.definition.name}:{table.definition_id}-{row[0]}-{FORM}", redact(url))

    @cached_property
    def packing(self) -> Packing:
        """The bytes of its rows."""
        return Packing(self.table.layout)

    @cached_property
    def _read(self) -> Any:
        return self.client.register_script(read_script(self.packing))

    @cached_property
    def _write(self) -> Any:
        return self.client.register_script(write_script(self.packing))

    @cached_property
    def _advance(self) -> Any:
        return self.client.register_script(ADVANCE)

    @cached_property
    def _finisher(self) -> Finisher:
        return Finisher(self.packing)

    # -- writes ------------------------------------------------------------------------------------------------------

    def generation(self) -> bytes | None:
        """The generation that answers; None: nothing is loaded."""
        return self._asked(lambda: self.client.hget(self.base, "g"))

    def progress(self) -> dict[int, Progress] | None:
        """Up to where each partition is in; None when nothing is loaded."""
        found: dict[bytes, bytes] = self._asked(lambda: self.client.hgetall(self.base))
        if b"g" not in found:
            return None
        return {int(name): Progress.parsed(text) for name, text in found.items() if name != b"g"}

    def send(self, rows: Packed, generation: bytes, delta: Delta) -> list[tuple[bytes, int, int]]:
        """Write the rows of a delta in pipelined calls, each of which takes place only where the progress is as it says.

        Returns what holds a part of the delta already: (entity, partition, its version). Raises :class:`OnlineBehind`.
        """
        lives_ms = (self.table.definition.ttl_us + self.table.layout.tile_us) // 1000
        how = [generation, "load" if delta.numbers else "live", "replays" if delta.by_replays else "offset", lives_ms]
        where = [n for p, r in delta.ranges.items() for n in (p, delta.begins.get(p, 0), r.begin, r.end, r.below)]

        def write() -> list[list[Any]]:
            with self.client.pipeline(transaction=False) as calls:
                for message in rows.messages(MESSAGE_BYTES):
                    number = next(delta.numbers) if delta.numbers else 0
                    self._write(keys=[self.base], args=[*how, message, number, *where], client=calls)
                return calls.execute()

        overlaps: list[tuple[bytes, int, int]] = []
        for answer in self._asked(write):
            if answer[0] in (b"gap", b"generation"):
                raise OnlineBehind(f"Redis is not where a write of {self.table.definition.name} begins: {answer[0]!r}")
            overlaps += zip(answer[1::3], answer[2::3], answer[3::3], strict=True)
        return overlaps

    def advance(self, generation: bytes, moves: Mapping[int, tuple[Progress, Progress]]) -> bool:
        """Move partitions from one progress to another; False (and nothing moved) when one is elsewhere."""
        args = [n for p, (old, new) in moves.items() for n in (p, old.text, new.text)]
        return self._asked(lambda: self._advance(keys=[self.base], args=[generation, *args])) == 1

    def publish(self, generation: bytes, progress: Mapping[int, Progress]) -> None:
        """Let a loaded generation answer, in one step."""
        fields = {"g": generation, **{str(p): found.text for p, found in progress.items()}}

        def write() -> None:
            with self.client.pipeline(transaction=True) as calls:
                calls.delete(self.base)
                calls.hset(self.base, mapping=fields)
                calls.execute()

        self._asked(write)

    def sweep(self, keep: bytes | None) -> int:
        """Remove the keys of all generations but ``keep`` (None: all, and the version itself); how many."""

        def write() -> int:
            if keep is None:
                self.client.delete(self.base)
            kept = b"%s:%s:" % (self.base.encode(), keep or b"")
            removed, names = 0, []
            for name in self.client.scan_iter(match=f"{self.base}:*", count=5_000):
                if keep is None or not name.startswith(kept):
                    names.append(name)
                if len(names) >= 5_000:
                    self.client.unlink(*names)
                    removed += len(names)
                    names = []
            if names:
                self.client.unlink(*names)
            return removed + len(names)

        return self._asked(write)

    # -- reads -------------------------------------------------------------------------------------------------------

    def read(self, entities: Sequence[Any], at_us: int, *, version: bool = True) -> OnlineValues:
        """As :func:`ct_assets.adapters.stream.online_read.read`, from Redis; one round trip for up to 1,000 entities.

        With ``version`` a read that met a commit half way is made again, so that values and version belong together.
        """
        if not entities:
            return OnlineValues([], None, None, None, {})
        deadline = time.monotonic() + TORN_SECONDS
        while True:
            base, ahead, answers = self._fetched(entities, at_us, version)
            if not ahead:
                break
            if time.monotonic() > deadline:
                raise OnlineBehind(
                    f"Redis has held half a commit of {self.table.definition.name} for {TORN_SECONDS:g} s",
                    hint="a worker mends that when it runs; `ct stream sync` does it now",
                )
            time.sleep(0.002)
        parts, states, fresh = self._parsed(base)
        acceptance = self.table.definition.acceptance
        watermark = completeness(
            states,
            at_us,
            out_of_orderness_us=acceptance.out_of_orderness_us,
            idle_timeout_us=acceptance.idle_timeout_us,
        ).at
        definition = self.table.definition
        stale = None
        if definition.freshness_us is not None:
            stale = fresh is None or at_us - fresh > definition.freshness_us
        if stale and definition.on_stale == "null":
            values = [dict.fromkeys(a.name for a in definition.aggregates) for _ in entities]
        else:
            values = [self._finisher.values(answer, at_us) for answer in answers]
        return OnlineValues(
            values=values,
            watermark_us=watermark,
            staleness_us=None if fresh is None else max(at_us - fresh, 0),
            is_stale=stale,
            version={p: found.version for p, found in parts.items()} if version else {},
        )

    def _fetched(self, entities: Sequence[Any], at_us: int, version: bool) -> tuple[list[bytes], bool, list[bytes]]:
        base: list[bytes] = []
        answers: list[bytes] = []
        ahead = False
        for start in range(0, len(entities), READ_AT_ONCE):
            some = entities[start : start + READ_AT_ONCE]
            found = self._asked(partial(self._run_read, at_us, int(version), *some))
            if found is None:
                raise OnlineNotLoaded(
                    f"Redis at {self.address or 'CT_ONLINE_URL'} has nothing of {self.table.definition.name}"
                    f" (version {self.table.definition.hash[:12]}): it was emptied, or never loaded",
                    hint="a running worker loads it from PostgreSQL within seconds; `ct stream sync` does it now",
                )
            ahead |= bool(found[1]) or (start > 0 and found[0] != base)
            base = found[0]
            answers += found[2]
        return base, ahead and version, answers

    def _run_read(self, *args: Any) -> Any:
        """The script by its name: redis-py's wrapper costs a tenth of a read of one entity."""
        from redis.exceptions import NoScriptError

        try:
            return self.client.evalsha(self._read.sha, 1, self.base, *args)
        except NoScriptError:  # Redis was started anew
            return self._read(keys=[self.base], args=args)

    def _parsed(self, base: list[bytes]) -> _Parsed:
        """The progress of the partitions, and the moment up to which the state is known to be current (the rule of
        ``stream.progress``). Between two commits Redis answers the same: it is parsed once."""
        known = self._last_parsed.get("now")
        if known is not None and known[0] == base:
            return known[1]
        parts = {int(base[i]): Progress.parsed(base[i + 1]) for i in range(0, len(base), 2) if base[i] != b"g"}
        states = [PartitionState(p, s.top, s.caught_up, s.last_append, s.updated) for p, s in parts.items()]
        fresh = [s.updated if s.caught_up else s.last_append for s in parts.values()]
        there = [f for f in fresh if f is not None]
        found = parts, states, min(there) if there and len(there) == len(fresh) else None
        self._last_parsed["now"] = base, found
        return found

    @cached_property
    def _last_parsed(self) -> dict[str, tuple[list[bytes], _Parsed]]:
        return {}

    def _asked(self, ask: Callable[[], Any]) -> Any:
        return asked(ask, self.address)


def asked(ask: Callable[[], Any], address: str) -> Any:
    """What Redis answers. Raises :class:`OnlineUnreachable` when it does not."""
    try:
        return ask()
    except _no_answer() as error:
        raise OnlineUnreachable(
            f"Redis at {address or 'CT_ONLINE_URL'} does not answer: {str(error)[:200]}",
            hint="start it, or unset CT_ONLINE_URL to read from PostgreSQL; `ct doctor` examines it",
        ) from error


@cache
def _no_answer() -> tuple[type[Exception], ...]:
    from redis.exceptions import ConnectionError as NoConnection
    from redis.exceptions import OutOfMemoryError, ReadOnlyError
    from redis.exceptions import TimeoutError as TooLate

    return NoConnection, TooLate, ReadOnlyError, OutOfMemoryError

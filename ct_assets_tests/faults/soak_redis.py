"""What the stream soak adds with a real Redis: its three deaths, workers that write it, and reads on the way.

What goes here: the server's faults, and reads while they happen. What does not: rounds and points (``soak_stream``), the
end (``soak_content``), the copy itself (``adapters.stream.redis_sync``).

Redis is killed with kill -9 and comes back as of its last snapshot (older than what was committed since), ends in an orderly
way and comes back whole, or is emptied. Every read on the way either refuses or equals the values recomputed from the events
of the version that it names.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import redis

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import consistency
from ct_assets.adapters.stream.online import OnlineTable
from ct_assets.adapters.stream.online_reads import OnlineReads
from ct_assets.adapters.stream.redis_online import OnlineBehind, OnlineNotLoaded, OnlineUnreachable
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.adapters.stream.versions import find_table
from ct_assets_tests.adapters.stream_worker.world import World
from ct_assets_tests.redis_server import RedisServer

SOAKED, CALM = 0, 1  # databases of the one server
REFUSALS = (OnlineNotLoaded, OnlineBehind, OnlineUnreachable)
_HOUR = 3_600_000_000
EDGES = (
    1,
    1 - 300_000_000,
    -300_000_000,
    1_000_000 - _HOUR // 2,
    _HOUR // 2,
)  # from the newest event, within the reach


@dataclass
class OnlineWorld(World):
    """A world whose workers write a Redis too."""

    online_url: str = ""

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a worker."""
        return super().environ(CT_ONLINE_URL=self.online_url, **more)


@dataclass
class RedisFaults:
    """One Redis of the soak's own. Snapshots are taken by :meth:`snapshot` only."""

    folder: Path
    rng: random.Random
    server: RedisServer = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.server = RedisServer(self.folder, ("--save", "", "--appendonly", "no", "--dbfilename", "kept.rdb"))
        self.server.start()

    def client(self, database: int = SOAKED) -> redis.Redis:
        """A client, to be closed by who asks."""
        return redis.Redis.from_url(self.server.url(database))

    def snapshot(self) -> None:
        """Now and then between rounds: what a killed Redis comes back with."""
        if self.rng.random() < 0.3:
            with self.client() as client:
                client.save()

    def kill(self) -> None:
        """kill -9: it comes back as of the last snapshot."""
        self.server.stop(signal.SIGKILL)

    def end(self) -> None:
        """An orderly end: it comes back whole."""
        with self.client() as client:
            client.save()
        self.server.stop()

    def empty(self) -> None:
        """Everything is gone under the living worker."""
        with self.client() as client:
            client.flushdb()

    def services(self) -> dict[str, tuple[Any, Any]]:
        """name -> (do it, mend it), as :class:`soak_stream.Soak` takes them."""
        return {
            "redis_killed": (self.kill, self._again),
            "redis_restarted": (self.end, self._again),
            "redis_emptied": (self.empty, lambda: None),
        }

    def _again(self) -> None:
        time.sleep(1.5)  # longer than a worker's look, so that it finds Redis away
        self.server.start()


NOTICED = {
    "redis_killed": "Redis is back after",
    "redis_restarted": "Redis is back after",
    "redis_emptied": "into Redis:",
}


@dataclass
class Watched:
    """Reads on the way, each against the values recomputed for the version that it names."""

    world: OnlineWorld
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)

    def look(self) -> Iterator[str]:
        """One read of the users that were written last and others; what differs."""
        with connect(self.world.url, autocommit=True) as conn:
            table = _table(conn)
            if table is None:
                return
            end = newest(conn, table)
            if end is None:
                return
            users = consistency.some_entities(conn, table, 300)
            at = end + self.rng.choice((1, 1, *EDGES))  # what a batch did twice is in its newest windows
            try:
                read = OnlineReads(self.world.online_url).read(conn, table, users, at)
            except REFUSALS as refusal:
                self.counts[type(refusal).__name__] += 1
                return
            labels = pl.DataFrame({"user_id": users, "at": [at] * len(users)})
            again = training_frame(conn, table, labels, Request(version=read.version)).drop("user_id", "at").to_dicts()
            self.counts["reads"] += len(users)
            for user, served, known in zip(users, read.values, again, strict=True):
                if served != known:
                    yield f"user {user} at {at}, version {read.version}: {served} instead of {known}"


def _table(conn: psycopg.Connection) -> OnlineTable | None:
    row = conn.execute("select 1 from stream.definition where name = 'user_activity' limit 1").fetchone()
    return None if row is None else find_table(conn, "user_activity")


def newest(conn: psycopg.Connection, table: OnlineTable) -> Any:
    """The newest event time of a view's stream, in microseconds; None before the first."""
    row = conn.execute("select max(top) from stream.partition where stream_id = %s", (table.stream_id,)).fetchone()
    return None if row is None else row[0]

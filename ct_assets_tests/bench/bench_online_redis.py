"""Online store in Redis: bulk writes against Feast's own Redis store, reads against bare redis-py, on one server in one run.

    python ct_assets_tests/bench/bench_online_redis.py

What goes here: the measurement. What does not: the code measured, PostgreSQL (``bench_online``).

A row is one entity with its seven aggregates. Ours sends what a stream commits (events folded into rows and merged with
what is there, exact at any later moment); Feast's store writes seven finished values. The bare client reads seven finished
values of a hash by HMGET, a hundred of them in one pipeline, and as a second yardstick one packed string by MGET, which
nothing that updates single values could use. Ours finishes the windows. The hot user has 1 M events in an hour.
"""

from __future__ import annotations

import datetime as dt
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ct_assets_tests.bench.bench_online import HOUR, START, Feast, Ours, interleaved, median_ms, shop_events, uniform  # noqa: E402
from ct_assets_tests.redis_server import RedisServer  # noqa: E402


class Follower(Ours):
    """A stream whose commits reach Redis."""

    def __init__(self, url: str, online_url: str) -> None:
        from ct_assets.adapters.stream.redis_sync import Twin

        super().__init__(url)
        self.twin = Twin.opened(online_url, self.stream)
        self.twin.level(self.conn)
        self.place = self.twin.place(self.conn, self.table)

    def committed(self, events: Any) -> Callable[[], None]:
        """Commit; what then brings the batch into Redis."""
        from ct_assets.adapters.stream.records import PartitionProgress

        begin, end = self.next, int(events["_offset"][-1]) + 1
        last = int(events["event_time"].dt.epoch("us").max())
        self.commit(events)
        progress = [PartitionProgress(0, self.epoch, begin, end, top=last)]
        return lambda: self.twin.committed(self.conn, progress, events)


class FeastRedis(Feast):
    """Feast's own Redis online store on the same server."""

    def __init__(self, server: RedisServer) -> None:
        from feast import Entity, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.infra.online_stores.redis import RedisOnlineStore
        from feast.types import Float64, Int64

        class OnASocket(RedisOnlineStore):
            """Its connection string knows host and port only; the client it makes may as well use a socket."""

            def _get_client(self, online_store_config: Any) -> Any:
                import redis

                if not self._client:
                    self._client = redis.Redis.from_url(server.url(1))
                return self._client

        self.config = RepoConfig(
            project="bench",
            provider="local",
            registry="memory.db",
            online_store={"type": "redis", "connection_string": "localhost:0"},
            entity_key_serialization_version=3,
        )
        entity = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
        self.names = NAMES
        fields = [Field(name=n, dtype=Int64 if i < 4 else Float64) for i, n in enumerate(NAMES)]
        source = FileSource(name="s", path="absent.parquet", timestamp_field="event_timestamp")
        self.view = FeatureView(
            name="user_activity", entities=[entity], schema=fields, source=source, ttl=dt.timedelta(days=1)
        )
        self.view.entity_columns = [Field(name="user_id", dtype=Int64)]
        self.store = OnASocket()


NAMES = ["purchases_5m", "clicks_5m", "clicks_1h", "purchases_1h", "spend_5m", "spend_1h", "largest_1h"]


def bench_writes(ours: Follower, feast: FeastRedis, client: Any) -> None:
    """Rows/s of both, in turns; the median of each. CPU is that of this process and of Redis, all turns together.

    Ours begins with events, Feast's store with its own message of each value: what making them costs is said apart.
    """
    users, rates, cpu = list(range(20_000)), {"ours": [], "feast": []}, {"ours": [], "feast": [], "rows": []}

    def measured(name: str, count: int, work: Callable[[], Any]) -> Any:
        before, started = spent(client), time.perf_counter()
        result = work()
        if name in rates:
            rates[name].append(count / (time.perf_counter() - started))
        cpu[name].append((spent(client) - before) / count * 1e6)
        return result

    for _ in range(8):
        events = shop_events(100_000, uniform(90_000), START + ours.count * 50, 5_000_000, ours.count)
        rows = events.filter(events["event_type"] != "cart")["user_id"].n_unique()
        measured("ours", rows, ours.committed(events))
        data = measured("rows", len(users), partial(feast.rows, users))
        measured("feast", len(users), partial(feast.store.online_write_batch, feast.config, feast.view, data, None))
    mine, theirs = (float(np.median(r)) for r in (rates["ours"], rates["feast"]))
    own, other, made = (float(np.mean(c)) for c in (cpu["ours"], cpu["feast"], cpu["rows"]))
    print(
        f"writes, rows/s: ours {mine:,.0f}, Feast's Redis store {theirs:,.0f}: {mine / theirs:.1f}x (target >= 10x);"
        f" CPU a row, client and server: {own:.1f} and {other:.1f} us: {other / own:.1f}x;"
        f" with the {made:.1f} us in which Feast makes its messages: {(other + made) / own:.1f}x"
    )
    small = []
    for _ in range(30):
        apply = ours.committed(shop_events(500, uniform(90_000), START + ours.count * 50, 25_000, ours.count))
        started = time.perf_counter()
        apply()
        small.append(time.perf_counter() - started)
    print(f"  500 events: {np.median(small) * 1e3:.1f} ms from committed to readable")


def bench_reads(ours: Follower, feast: FeastRedis, client: Any) -> None:
    """1 and 100 entities."""
    from struct import pack, unpack

    hundred = list(range(0, 90_000, 900))
    for user in hundred:
        client.hset(f"bare:{user}", mapping=dict(zip(NAMES, (1, 2, 3, 4, 5.25, 6.5, 7.75), strict=True)))
        client.set(f"packed:{user}", pack("<4q3d", 1, 2, 3, 4, 5.25, 6.5, 7.75))
    at = START + ours.count * 50
    assert sum(v["clicks_1h"] > 0 for v in ours.place.read(hundred, at).values) > 50

    def piped() -> Any:
        with client.pipeline(transaction=False) as calls:
            for user in hundred:
                calls.hmget(f"bare:{user}", NAMES)
            return calls.execute()

    def packed() -> Any:
        return [unpack("<4q3d", v) for v in client.mget([f"packed:{user}" for user in hundred])]

    reads: dict[str, Callable[[], Any]] = {
        "bare HMGET, 1": lambda: client.hmget("bare:900", NAMES),
        "ours, 1": lambda: ours.place.read([900], at, version=False),
        "Feast's store, 1": lambda: feast.read([900]),
        "bare HMGET, 100": piped,
        "bare MGET, 100": packed,
        "ours, 100": lambda: ours.place.read(hundred, at, version=False),
        "Feast's store, 100": lambda: feast.read(hundred),
    }
    compared(reads, client)


def compared(reads: dict[str, Callable[[], Any]], client: Any) -> None:
    """Prints each read and the ratios, in wall time and in CPU (what to compare on a busy machine)."""
    times, cpu = interleaved(reads), {name: [] for name in reads}
    for _ in range(5):
        for name, read in reads.items():
            before = spent(client)
            for _ in range(100):
                read()
            cpu[name].append((spent(client) - before) * 1e4)
    used = {name: float(np.median(values)) for name, values in cpu.items()}
    print("\nreads: median ms, CPU us a read (client and server)")
    for name, ms in times.items():
        print(f"  {name:20s} {ms:7.3f} {used[name]:9.0f}")
    for found, what in ((times, "wall"), (used, "CPU")):
        one, many = found["ours, 1"] / found["bare HMGET, 1"], found["ours, 100"] / found["bare HMGET, 100"]
        packed_ratio = found["ours, 100"] / found["bare MGET, 100"]
        print(
            f"  ours / bare, {what}: {one:.2f}x (1), {many:.2f}x (100), target <= 2x; packed strings {packed_ratio:.1f}x (100)"
        )


def spent(client: Any) -> float:
    """CPU seconds so far of this process and of Redis."""
    info = client.info("cpu")
    return time.process_time() + info["used_cpu_user"] + info["used_cpu_sys"]


def bench_hot(ours: Follower, client: Any) -> None:
    """A user with 1 M events in an hour."""
    begin, taken = START + 3 * HOUR, []
    for i in range(100):
        hot = lambda rng, count: np.full(count, 7_000_000)  # noqa: E731
        apply = ours.committed(shop_events(10_000, hot, begin + i * HOUR // 100, HOUR // 100, ours.count))
        started = time.perf_counter()
        apply()
        taken.append(time.perf_counter() - started)
    name = f"{ours.place.base}:{(ours.place.generation() or b'').decode()}:7000000"
    closed = list(client.scan_iter(match=f"{name}:*"))
    largest = max(client.strlen(key) for key in closed)
    print(
        f"\nhot user: 1 M events in {len(closed)} rows, the largest {largest:,} bytes; sums of all rows"
        f" {client.strlen(name):,} bytes; apply of 10 k events {np.median(taken) * 1e3:.0f} ms"
    )
    read = lambda: ours.place.read([7_000_000], begin + HOUR, version=False)  # noqa: E731
    print(f"  read of the hot user: {median_ms(read, 20):.2f} ms {read().values[0]}")


def main() -> int:
    import redis

    from ct_assets.adapters.postgres.migrate import migrate
    from ct_assets.adapters.postgres.server import Server

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="ct-redis-") as short:
        server, store = Server(Path(folder) / "pg"), RedisServer(Path(short))
        url = server.ensure("ct")
        store.start()
        try:
            migrate(url)
            client = redis.Redis.from_url(store.url(0))
            ours, feast = Follower(url, store.url(0)), FeastRedis(store)
            bench_writes(ours, feast, client)
            bench_reads(ours, feast, client)
            bench_hot(ours, client)
            return 0
        finally:
            store.stop()
            server.stop()


if __name__ == "__main__":
    sys.exit(main())

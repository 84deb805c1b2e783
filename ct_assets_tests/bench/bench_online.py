"""Online store: bulk writes against Feast's own PostgreSQL store, reads against the bare client. `python ct_assets_tests/bench/bench_online.py`

What goes here: the measurement, all contenders on one embedded PostgreSQL in one run. What does not: the code measured.

A row is one entity with its seven aggregates. Ours writes what a stream commits (events folded into rows, appended to
what is there, exact at any later moment); Feast's store writes seven finished values. The bare client reads one row of
seven finished values by primary key with a prepared statement: nothing is computed there. Ours finishes the windows.
The hot user has 1 M events in an hour, committed 10,000 at a time.
"""

from __future__ import annotations

import datetime as dt
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
START = 1_767_225_600_000_000
HOUR = 3_600_000_000
DEFINITION = ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml"


def shop_events(count: int, users: Any, begin: int, span: int, first_offset: int) -> pl.DataFrame:
    """Accepted events of one partition, in order of offset."""
    rng = np.random.default_rng(first_offset + 1)
    time_us = np.sort(rng.integers(begin, begin + span, count))
    kind = rng.choice(["click", "cart", "purchase", "refund"], count, p=[0.85, 0.11, 0.03, 0.01])
    cents = np.where(kind == "purchase", rng.integers(100, 20_000, count), np.where(kind == "refund", -500, 0))
    frame = pl.DataFrame(
        {
            "event_id": [f"e-{first_offset + i:09d}" for i in range(count)],
            "user_id": users(rng, count),
            "event_time": pl.Series(time_us).cast(pl.Datetime("us", "UTC")),
            "event_type": kind,
            "amount": pl.Series(cents / 100).cast(pl.Decimal(12, 2)),
            "_partition": np.zeros(count, np.int32),
            "_offset": np.arange(first_offset, first_offset + count),
            "_append_time": time_us + 200_000,
            "_known_at": time_us + 1_200_000,
        }
    )
    return frame.with_columns(pl.when(pl.col("amount") != 0).then(pl.col("amount")).alias("amount"))


class Ours:
    """A stream, its table, and commits of one partition."""

    def __init__(self, url: str) -> None:
        from ct_assets.adapters.events.port import SourceIdentity
        from ct_assets.adapters.postgres.connect import connect
        from ct_assets.adapters.stream import online, online_read, state
        from ct_assets.streaming.definition import load_definition

        self.state, self.online = state, online
        definition = load_definition(DEFINITION)
        self.conn, self.reader = connect(url, autocommit=True), online_read.reader(url)
        identity = SourceIdentity("log", "bench", "shop", "1", True)
        self.stream = state.open_stream(self.conn, "shop", definition.acceptance, identity)
        self.table = online.ensure(self.conn, self.stream, definition)
        claim = state.claim(self.conn, self.stream, [0], "bench")[0]
        self.epoch, self.next, self.count = claim.epoch, claim.next_offset, 0
        self.step: dict[str, float] = {}

    def commit(self, events: pl.DataFrame) -> float:
        """Seconds of one commit."""
        end = int(events["_offset"][-1]) + 1
        last = int(events["event_time"].dt.epoch("us").max())  # pyright: ignore[reportArgumentType]
        progress = [
            self.state.PartitionProgress(0, self.epoch, self.next, end, top=last, frontier=last, last_append=last)
        ]
        started = previous = time.perf_counter()

        def mark(point: str) -> None:
            nonlocal previous
            now = time.perf_counter()
            self.step[point], previous = now - previous, now

        self.state.commit(
            self.conn, self.stream, progress=progress, events=events, definitions=[self.table], crash=mark
        )
        self.next, self.count = end, self.count + len(events)
        return time.perf_counter() - started

    def read(self, entities: list[int], at: int) -> list[dict[str, Any]]:
        return self.online.read(self.reader, self.table, entities, at).values

    def function(self, entities: list[int], at: int) -> list[Any]:
        """The SQL function that people call, its times in microseconds."""
        query = f"select * from {self.table.function}(%s::bigint[], %s)".encode()
        return self.reader.execute(query, (entities, at), prepare=True, binary=True).fetchall()


class OurStore:
    """Our store behind Feast's interface, as Feast calls it."""

    def __init__(self, ours: Ours, feast: Feast) -> None:
        from feast import Entity, ValueType

        from ct_assets.adapters.feast.online_store import CtOnlineStore
        from ct_assets.adapters.feast.projection import view_of

        entity = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
        self.feast, self.view, self.store = feast, view_of(ours.table.definition, entity), CtOnlineStore()
        self.store._local.conn = ours.reader

    def read(self, users: list[int]) -> Any:
        keys = [self.feast.key(u) for u in users]
        return self.store.online_read(self.feast.config, self.view, keys, self.feast.names)


class Feast:
    """Feast's own PostgreSQL online store on the same database, its table as `feast apply` makes it."""

    def __init__(self, url: str) -> None:
        from feast import Entity, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStore
        from feast.types import Float64, Int64
        from psycopg.conninfo import conninfo_to_dict

        parts = conninfo_to_dict(url)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create schema feast")
        online = {
            "type": "postgres",
            "host": parts["host"],
            "port": int(str(parts["port"])),
            "database": parts["dbname"],
            "user": parts["user"],
            "password": "",
            "db_schema": "feast",
        }
        self.config = RepoConfig(
            project="bench",
            provider="local",
            registry="memory.db",
            online_store=online,
            entity_key_serialization_version=3,
        )
        entity = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
        names = ["purchases_5m", "clicks_5m", "clicks_1h", "purchases_1h", "spend_5m", "spend_1h", "largest_1h"]
        self.names = names
        fields = [Field(name=n, dtype=Int64 if i < 4 else Float64) for i, n in enumerate(names)]
        source = FileSource(name="s", path="absent.parquet", timestamp_field="event_timestamp")
        self.view = FeatureView(
            name="user_activity", entities=[entity], schema=fields, source=source, ttl=dt.timedelta(days=1)
        )
        self.view.entity_columns = [Field(name="user_id", dtype=Int64)]
        self.store = PostgreSQLOnlineStore()
        self.store.update(self.config, [], [self.view], [], [], False)

    def key(self, user: int) -> Any:
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        return EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=user)])

    def rows(self, users: list[int]) -> list[Any]:
        """One row for each user, as Feast hands them to a store."""
        from feast.protos.feast.types.Value_pb2 import Value

        now = dt.datetime.now(dt.UTC)
        return [
            (
                self.key(u),
                {n: Value(int64_val=u % 7) if i < 4 else Value(double_val=u / 7) for i, n in enumerate(self.names)},
                now,
                now,
            )
            for u in users
        ]

    def write(self, users: list[int]) -> float:
        """Seconds to write one row for each user."""
        data = self.rows(users)
        started = time.perf_counter()
        self.store.online_write_batch(self.config, self.view, data, None)
        return time.perf_counter() - started

    def read(self, users: list[int]) -> Any:
        return self.store.online_read(
            self.config, self.view, [self.key(u) for u in users], list(self.names)
        )  # it adds to them


def bare_table(url: str, users: int) -> psycopg.Connection:
    """Finished values by primary key."""
    conn = psycopg.connect(url, autocommit=True)
    conn.execute("set plan_cache_mode = force_generic_plan")
    conn.execute(
        """create table public.bare (user_id bigint primary key, purchases_5m bigint, clicks_5m bigint, clicks_1h bigint,
           purchases_1h bigint, spend_5m numeric(12,2), spend_1h numeric(12,2), largest_1h numeric(12,2))"""
    )
    conn.execute(
        "insert into public.bare select i, 1, 2, 3, 4, 5.25, 6.5, 7.75 from generate_series(0, %s) i", (users,)
    )
    return conn


def median_ms(read: Callable[[], Any], times: int) -> float:
    """Median of a read, after ten to warm up."""
    taken = []
    for i in range(times + 10):
        started = time.perf_counter()
        read()
        if i >= 10:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3


def interleaved(reads: dict[str, Callable[[], Any]], rounds: int = 7, times: int = 60) -> dict[str, float]:
    """Medians of several reads, taken in turns so that a busy machine hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(rounds):
        for name, read in reads.items():
            found[name].append(median_ms(read, times))
    return {name: statistics.median(values) for name, values in found.items()}


def uniform(users: int) -> Callable[[np.random.Generator, int], Any]:
    return lambda rng, count: rng.integers(0, users, count)


def bench_commits(ours: Ours) -> float:
    """Prints commits; rows/s of the bulk writer in commits that touch some 60,000 entities."""
    print("\ncommit of accepted events (ms): all, of which online rows")
    rate = 0.0
    for label, count, users in (
        ("500 events", 500, 100_000),
        ("100 k, 3 k users", 100_000, 3_000),
        ("100 k, 60 k users", 100_000, 90_000),
    ):
        best = 1e9
        for _ in range(4):
            events = shop_events(count, uniform(users), START + ours.count * 50, count * 50, ours.count)
            seconds = ours.commit(events)
            best = min(best, seconds)
            if seconds == best:
                kept = events.filter(pl.col("event_type") != "cart")["user_id"].n_unique()
                online = ours.step["online_midway"]
                rate = kept / online
                print(
                    f"  {label:20s} {seconds * 1e3:8.1f} {online * 1e3:8.1f}   {kept:6d} entities: {rate:9.0f} rows/s"
                )
    size = ours.conn.execute("select sum(bytes)::float8 / sum(rows), sum(rows) from stream.chunk").fetchone()
    assert size is not None
    print(f"  bytes an event in chunks: {size[0]:.1f} ({size[1]} events)")
    return rate


def bench_hot(ours: Ours) -> int:
    """A user with 1 M events in an hour; prints row sizes and write amplification; the end of the hour."""
    begin = START + 3 * HOUR
    lsn = ours.conn.execute("select pg_current_wal_lsn()").fetchone()
    taken = []
    for i in range(100):
        hot = lambda rng, count: np.full(count, 7_000_000)  # noqa: E731
        taken.append(ours.commit(shop_events(10_000, hot, begin + i * HOUR // 100, HOUR // 100, ours.count)))
    row = ours.conn.execute(
        f"""select pg_wal_lsn_diff(pg_current_wal_lsn(), %s)::float8, max(pg_column_size(r)), count(*), max(n),
                   sum(pg_column_size(r))::float8 / sum(n)
            from {ours.table.quoted} r where entity = 7000000""".encode(),
        lsn,
    ).fetchone()
    assert row is not None
    print(
        f"\nhot user: 1 M events in {row[2]} rows; largest row {row[1]} bytes, {row[3]} events; {row[4]:.1f} bytes an event"
    )
    print(f"  commit of 10 k events of one user: {statistics.median(taken) * 1e3:.0f} ms")
    print(f"  write-ahead log of those commits, chunks included: {row[0] / 1e6:.1f} bytes an event")
    small = 0
    lsn = ours.conn.execute("select pg_current_wal_lsn()").fetchone()
    for i in range(200):
        events = shop_events(50, hot, begin + HOUR + i * 100_000, 100_000, ours.count)
        ours.commit(events)
        small += 50
    after = ours.conn.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), %s)::float8", lsn).fetchone()
    assert after is not None
    print(f"  the same in commits of 50 events: {after[0] / small:.0f} bytes an event")
    return begin + HOUR


def main() -> int:
    from ct_assets.adapters.postgres.migrate import migrate
    from ct_assets.adapters.postgres.server import Server

    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "pg")
        url = server.ensure("ct")
        try:
            migrate(url)
            ours, feast, bare = Ours(url), Feast(url), bare_table(url, 100_000)
            rate = bench_commits(ours)
            users = list(range(20_000))
            feast_rate = len(users) / min(feast.write(users), feast.write(users))
            print(
                f"\nwrites, rows/s: ours {rate:.0f}, Feast's PostgreSQL store {feast_rate:.0f}: {rate / feast_rate:.1f}x (target >= 10x)"
            )
            at = START + ours.count * 50
            hundred = list(range(0, 90_000, 900))
            from psycopg import RawCursor

            def bare_read(ids: list[int]) -> Any:
                with RawCursor(bare) as cursor:
                    if len(ids) == 1:
                        return cursor.execute(
                            b"select * from public.bare where user_id = $1::bigint", ids, prepare=True, binary=True
                        ).fetchall()
                    return cursor.execute(
                        b"select * from public.bare where user_id = any($1::bigint[])",
                        (ids,),
                        prepare=True,
                        binary=True,
                    ).fetchall()

            ours_in_feast = OurStore(ours, feast)
            times = interleaved(
                {
                    "bare client, 1": lambda: bare_read([900]),
                    "ours, 1": lambda: ours.read([900], at),
                    "bare client, 100": lambda: bare_read(hundred),
                    "ours, 100": lambda: ours.read(hundred, at),
                    "our SQL function, 1": lambda: ours.function([900], at),
                    "our SQL function, 100": lambda: ours.function(hundred, at),
                    "Feast, our store, 1": lambda: ours_in_feast.read([900]),
                    "Feast, our store, 100": lambda: ours_in_feast.read(hundred),
                    "Feast, its store, 1": lambda: feast.read([900]),
                    "Feast, its store, 100": lambda: feast.read(hundred),
                }
            )
            print("\nreads, median ms")
            for name, ms in times.items():
                print(f"  {name:22s} {ms:7.3f}")
            ratios = [times["ours, 1"] / times["bare client, 1"], times["ours, 100"] / times["bare client, 100"]]
            print(f"  ours / bare: {ratios[0]:.2f}x (1 entity), {ratios[1]:.2f}x (100), target <= 2x")
            end = bench_hot(ours)
            ours.conn.execute(f"vacuum analyze {ours.table.quoted}".encode())
            print(
                f"  read of the hot user: {median_ms(lambda: ours.read([7_000_000], end), 20):.2f} ms {ours.read([7_000_000], end)[0]}"
            )
            return 0
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())

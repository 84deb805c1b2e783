"""Training sets: 100 k labels x 1 M events against Feast's default offline store. `python ct_assets_tests/bench/bench_offline.py`

What goes here: the measurement, each contender in a process of its own so that time and memory are its own. What does
not: the code measured.

Ours reads the stored chunks out of PostgreSQL and computes seven window aggregates for each label, as known at its moment. Feast's
default store (Dask, Parquet file) joins the latest of 1 M finished rows a label: less work, and what people do instead. Keys
uniform over 10,000 users, and zipf (s = 1.2), where Feast builds every (label, row) pair of a hot user: it gets as long
as ours took a thousand times over, at most 10 minutes, and 16 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
START, HOUR = 1_767_225_600_000_000, 3_600_000_000
EVENTS, LABELS, USERS = 1_000_000, 100_000, 10_000
LIMIT_SECONDS, LIMIT_BYTES = 600, 16 << 30


def users(rng: np.random.Generator, count: int, keys: str) -> np.ndarray:
    """Whose events: uniform, zipf, or `hot` (a tenth belong to one user)."""
    if keys == "uniform":
        return rng.integers(0, USERS, count)
    if keys == "hot":
        return np.where(rng.random(count) < 0.1, 0, rng.integers(0, USERS, count))
    ranks = np.arange(1, USERS + 1) ** -1.2
    return rng.choice(USERS, count, p=ranks / ranks.sum())


def shop_events(keys: str) -> pl.DataFrame:
    """Accepted events of 24 hours, of one partition."""
    rng = np.random.default_rng(1)
    time_us = np.sort(rng.integers(START, START + 24 * HOUR, EVENTS))
    kind = rng.choice(["click", "cart", "purchase", "refund"], EVENTS, p=[0.85, 0.11, 0.03, 0.01])
    cents = np.where(kind == "purchase", rng.integers(100, 20_000, EVENTS), 0)
    return pl.DataFrame(
        {
            "event_id": [f"e-{i:09d}" for i in range(EVENTS)],
            "user_id": users(rng, EVENTS, keys),
            "event_time": pl.Series(time_us).cast(pl.Datetime("us", "UTC")),
            "event_type": kind,
            "amount": pl.Series(cents / 100).cast(pl.Decimal(12, 2)),
            "_partition": np.zeros(EVENTS, np.int32),
            "_offset": np.arange(EVENTS),
            "_append_time": time_us + 200_000,
            "_known_at": time_us + 1_200_000,
        }
    )


def labels(keys: str) -> pl.DataFrame:
    """Who and when: a label a user, in the proportion of the events."""
    rng = np.random.default_rng(2)
    at = rng.integers(START + HOUR, START + 24 * HOUR, LABELS)
    return pl.DataFrame({"user_id": users(rng, LABELS, keys), "at": at})


def fill(url: str, keys: str) -> None:
    """Commit the events as a worker does, 100,000 at a time."""
    from ct_assets.adapters.events.port import SourceIdentity
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.stream import online, state
    from ct_assets.streaming.definition import load_definition

    definition = load_definition(ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml")
    events = shop_events(keys)
    with connect(url, autocommit=True) as conn:
        stream = state.open_stream(conn, "shop", definition.acceptance, SourceIdentity("log", "bench", keys, "1", True))
        online.ensure(conn, stream, definition)
        claim = state.claim(conn, stream, [0], "bench")[0]
        done = claim.next_offset
        for start in range(0, EVENTS, 100_000):
            progress = [state.PartitionProgress(0, claim.epoch, done, start + 100_000, top=START)]
            state.commit(conn, stream, progress=progress, events=events[start : start + 100_000])
            done = start + 100_000


def ours(url: str, keys: str) -> dict[str, float]:
    """Seconds, peak memory above what the labels and imports took, rows and their total of clicks."""
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.stream.training_frames import training_frame
    from ct_assets.adapters.stream.versions import find_table

    asked = labels(keys)
    with connect(url, autocommit=True) as conn:
        table = find_table(conn, "user_activity")
        training_frame(conn, table, asked[:100])  # imports
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = []
        for _ in range(3):
            started, cpu = time.perf_counter(), time.process_time()
            found = training_frame(conn, table, asked)
            taken.append((time.perf_counter() - started, time.process_time() - cpu))
    seconds, cpu = min(taken)
    assert found["user_id"].equals(asked["user_id"])
    return {
        "seconds": seconds,
        "cpu": cpu,
        "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "rows": len(found),
        "clicks": int(found["clicks_1h"].sum()),
    }


def feast(folder: Path, keys: str) -> dict[str, float]:
    """The default store over a Parquet file of finished rows."""
    import datetime as dt

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    names = ["purchases_5m", "clicks_5m", "clicks_1h", "purchases_1h", "spend_5m", "spend_1h", "largest_1h"]
    rng = np.random.default_rng(3)
    events = shop_events(keys)
    frame = events.select("user_id", pl.col("event_time").alias("event_timestamp"))
    frame = frame.with_columns(
        *[pl.Series(n, rng.integers(0, 9, EVENTS) if i < 4 else rng.random(EVENTS)) for i, n in enumerate(names)]
    )
    frame.write_parquet(folder / "rows.parquet")
    entity = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
    fields = [Field(name=n, dtype=Int64 if i < 4 else Float64) for i, n in enumerate(names)]
    source = FileSource(name="rows", path=str(folder / "rows.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(name="rows", entities=[entity], schema=fields, source=source, ttl=dt.timedelta(0))
    store = FeatureStore(
        config=RepoConfig(
            project="bench", provider="local", registry=str(folder / "registry.db"), entity_key_serialization_version=3
        )
    )
    store.apply([entity, source, view])
    asked = (
        labels(keys)
        .with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
        .rename({"at": "event_timestamp"})
        .to_pandas()
    )
    started, cpu = time.perf_counter(), time.process_time()
    found = store.get_historical_features(asked, [f"rows:{n}" for n in names]).to_df()
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu": used,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": len(found),
    }


def contender(arguments: list[str], limit: float) -> dict[str, float] | str:
    """Run one in a process of its own; why it gave no answer, otherwise."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no answer after {limit:.0f} s"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        return f"failed: {last[0][:100]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--contender", choices=("ours", "feast"))
    parser.add_argument("--place")
    parser.add_argument("--keys", default="uniform")
    chosen = parser.parse_args()
    if chosen.contender:
        run = ours(chosen.place, chosen.keys) if chosen.contender == "ours" else feast(Path(chosen.place), chosen.keys)
        print(json.dumps(run))
        return 0
    from ct_assets.adapters.postgres.migrate import migrate
    from ct_assets.adapters.postgres.server import Server

    print(f"{LABELS} labels x {EVENTS} events, {USERS} users")
    for keys in ("uniform", "zipf", "hot"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder) / "pg")
            url = server.ensure("ct")
            try:
                migrate(url)
                fill(url, keys)
                mine = contender(["--contender", "ours", "--place", url, "--keys", keys], LIMIT_SECONDS)
            finally:
                server.stop()
            assert isinstance(mine, dict), mine
            print(
                f"{keys}: ours {mine['seconds']:.2f} s ({mine['cpu']:.2f} CPU s), {mine['mb']:.0f} MB more, {mine['rows']} rows, clicks {mine['clicks']}"
            )
            if keys == "hot":
                continue
            limit = min(LIMIT_SECONDS, 1000 * mine["seconds"])
            theirs = contender(["--contender", "feast", "--place", folder, "--keys", keys], limit)
            if isinstance(theirs, str):
                print(f"  Feast's default store: {theirs}")
            else:
                ratio = theirs["seconds"] / mine["seconds"]
                print(
                    f"  Feast's default store {theirs['seconds']:.1f} s ({theirs['cpu']:.1f} CPU s), {theirs['mb']:.0f} MB in all, {theirs['rows']} rows"
                )
                used = theirs["cpu"] / mine["cpu"]
                print(f"  {ratio:.0f}x ({used:.0f}x of CPU)" + (" (target >= 100x)" if keys == "uniform" else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())

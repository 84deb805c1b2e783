"""Training sets: 100 k labels x 1 M events against Feast's default offline store. `python ct_assets_tests/bench/bench_offline.py`

What goes here: the measurement, each contender in a process of its own so that time and memory are its own. What does not:
the code measured.

Ours reads the stored chunks out of PostgreSQL and computes seven window aggregates for each label, as known at its moment. Feast's
default store (Dask, Parquet file) joins the latest of 1 M finished rows a label: less work, and what people do instead. Both
are asked the same way, `get_historical_features(...).to_df()` on the same pandas labels, after a first call with 100 of them
(imports); the best of three. `directly` is ours without Feast, Polars in and out. Events lie in each one's store beforehand.

Keys are uniform over 10,000 users, zipf (s = 1.2), where Feast builds every (label, row) pair of a hot user: it gets as
long as ours took a thousand times over, at most 10 minutes, and 16 GB. `late`: uniform, in order of arrival, up to 2 s after
their time and 2 % of them up to 60 s, known in commits of 0.1 s. `hot`: a tenth belong to one user.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
START, HOUR = 1_767_225_600_000_000, 3_600_000_000
EVENTS, LABELS, USERS = 1_000_000, 100_000, 10_000
LIMIT_SECONDS, LIMIT_BYTES = 600, 16 << 30
KINDS = ("uniform", "late", "zipf", "hot")
STREAM = ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml"
NAMES = ["purchases_5m", "clicks_5m", "clicks_1h", "purchases_1h", "spend_5m", "spend_1h", "largest_1h"]


def users(rng: np.random.Generator, count: int, keys: str) -> np.ndarray:
    """Whose events, by the kind of keys."""
    if keys in ("uniform", "late"):
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
    events = pl.DataFrame(
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
    return arrived(events) if keys == "late" else events


def arrived(events: pl.DataFrame) -> pl.DataFrame:
    """The events in order of arrival: most within 2 s, 2 % within a minute."""
    rng = np.random.default_rng(4)
    delay = rng.integers(200_000, 2_000_000, EVENTS)
    delay += np.where(rng.random(EVENTS) < 0.02, rng.integers(0, 60_000_000, EVENTS), 0)
    arrival = events["event_time"].to_physical().to_numpy() + delay
    order = np.argsort(arrival, kind="stable")
    known = (arrival[order] // 100_000 + 1) * 100_000
    places = {"_offset": np.arange(EVENTS), "_append_time": arrival[order], "_known_at": known}
    return events[order].with_columns(**{name: pl.Series(values) for name, values in places.items()})


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

    definition = load_definition(STREAM)
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


def best_of_three(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, CPU seconds, what it gave."""
    taken, found = [], None
    for _ in range(3):
        started, cpu = time.perf_counter(), time.process_time()
        found = work()
        taken.append((time.perf_counter() - started, time.process_time() - cpu))
    return min(t[0] for t in taken), min(t[1] for t in taken), found


def ours(url: str, keys: str) -> dict[str, float]:
    """Directly and through Feast; peak memory above what the labels and imports took, rows and their total of clicks."""
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.stream.training_frames import training_frame
    from ct_assets.adapters.stream.versions import find_table

    asked = labels(keys)
    with connect(url, autocommit=True) as conn:
        table = find_table(conn, "user_activity")
        training_frame(conn, table, asked[:100])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, cpu, found = best_of_three(lambda: training_frame(conn, table, asked))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        parts = shares(conn, table, asked)
    assert found["user_id"].equals(asked["user_id"])
    by_feast = through_feast(keys)
    assert by_feast[2]["clicks_1h"].tolist() == found["clicks_1h"].to_list()
    return {
        "direct_seconds": seconds,
        "direct_cpu": cpu,
        "seconds": by_feast[0],
        "cpu": by_feast[1],
        "mb": (peak - before) / 1024,
        "rows": len(found),
        "clicks": int(found["clicks_1h"].sum()),
        **parts,
    }


def shares(conn: Any, table: Any, asked: pl.DataFrame) -> dict[str, float]:
    """What of the time goes where: events out of PostgreSQL as columns, windows over them."""
    from ct_assets.adapters.stream.chunks import EventQuery, event_frames
    from ct_assets.adapters.stream.state import find_stream
    from ct_assets.streaming.windows import evaluate

    stream, at = find_stream(conn, table.stream_id), asked["at"].to_numpy()
    query = EventQuery(columns=("user_id", "event_time", "event_type", "amount"), append_times=False)
    read = best_of_three(lambda: list(event_frames(conn, stream, query)))
    events = pl.concat(read[2], rechunk=True)
    windows = best_of_three(lambda: evaluate(table.definition, events, asked["user_id"], at, as_known_at=at))
    corrected = best_of_three(lambda: evaluate(table.definition, events, asked["user_id"], at))
    return {"read_cpu": read[1], "windows_cpu": windows[1], "corrected_cpu": corrected[1]}


def through_feast(keys: str) -> tuple[float, float, Any]:
    """Our offline store behind Feast's interface, on the database that the settings name."""
    from feast import FeatureStore, RepoConfig

    from ct_assets.adapters.feast.projection import projected

    store_type = "ct_assets.adapters.feast.offline_store.CtOfflineStore"
    with tempfile.TemporaryDirectory() as folder:
        config = RepoConfig(
            project="bench",
            provider="local",
            registry=str(Path(folder) / "registry.db"),
            offline_store={"type": store_type},
            online_store=None,
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        store.apply(list(projected([STREAM]).values()))
        return asked_of(store, "user_activity", keys)


def asked_of(store: Any, view: str, keys: str) -> tuple[float, float, Any]:
    """Feast's own call, the same for both stores."""
    asked = labels(keys).select("user_id", pl.col("at").cast(pl.Datetime("us", "UTC")).alias("event_timestamp"))
    entity_df, features = asked.to_pandas(), [f"{view}:{name}" for name in NAMES]
    store.get_historical_features(entity_df[:100], features).to_df()
    return best_of_three(lambda: store.get_historical_features(entity_df, features).to_df())


def feast(folder: Path, keys: str) -> dict[str, float]:
    """The default store over a Parquet file of finished rows."""
    import datetime as dt

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    rng = np.random.default_rng(3)
    frame = shop_events(keys).select("user_id", pl.col("event_time").alias("event_timestamp"))
    frame = frame.with_columns(
        *[pl.Series(n, rng.integers(0, 9, EVENTS) if i < 4 else rng.random(EVENTS)) for i, n in enumerate(NAMES)]
    )
    frame.write_parquet(folder / "rows.parquet")
    entity = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
    fields = [Field(name=n, dtype=Int64 if i < 4 else Float64) for i, n in enumerate(NAMES)]
    source = FileSource(name="rows", path=str(folder / "rows.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(name="rows", entities=[entity], schema=fields, source=source, ttl=dt.timedelta(0))
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=None,
            entity_key_serialization_version=3,
        )
    )
    store.apply([entity, source, view])
    seconds, cpu, found = asked_of(store, "rows", keys)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": len(found),
    }


def contender(arguments: list[str], limit: float, **more: str) -> dict[str, float] | str:
    """Run one in a process of its own, with these settings; why it gave no answer, otherwise."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env={**os.environ, **more})
    except subprocess.TimeoutExpired:
        return f"no answer after {limit:.0f} s"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        return f"failed: {last[0][:100]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(keys: str, folder: str) -> dict[str, float]:
    """Ours, on a server of its own."""
    from ct_assets.adapters.postgres.migrate import migrate
    from ct_assets.adapters.postgres.server import Server

    server = Server(Path(folder) / "pg")
    url = server.ensure("ct")
    try:
        migrate(url)
        fill(url, keys)
        arguments = ["--contender", "ours", "--place", url, "--keys", keys]
        mine = contender(arguments, LIMIT_SECONDS, CT_HOME=str(Path(folder) / "home"), CT_DATABASE_URL=url)
    finally:
        server.stop()
    assert isinstance(mine, dict), mine
    return mine


def compare(keys: str) -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        mine = measured(keys, folder)
        print(
            f"{keys}: ours through Feast {mine['seconds']:.2f} s ({mine['cpu']:.2f} CPU s), directly {mine['direct_seconds']:.2f} s"
            f" ({mine['direct_cpu']:.2f} CPU s), {mine['mb']:.0f} MB more, {mine['rows']} rows, clicks {mine['clicks']}"
        )
        print(
            f"  CPU s: events out of PostgreSQL {mine['read_cpu']:.3f}, windows as known {mine['windows_cpu']:.3f}"
            f" (corrected {mine['corrected_cpu']:.3f})"
        )
        if keys == "hot":
            return
        limit = min(LIMIT_SECONDS, 1000 * mine["seconds"])
        theirs = contender(["--contender", "feast", "--place", folder, "--keys", keys], limit)
        if isinstance(theirs, str):
            print(f"  Feast's default store: {theirs}")
            return
        print(
            f"  Feast's default store {theirs['seconds']:.1f} s ({theirs['cpu']:.1f} CPU s), {theirs['mb']:.0f} MB in all, {theirs['rows']} rows"
        )
        target = " (target >= 100x)" if keys == "uniform" else ""
        for way, prefix in (("through Feast", ""), ("directly", "direct_")):
            ratio, used = theirs["seconds"] / mine[f"{prefix}seconds"], theirs["cpu"] / mine[f"{prefix}cpu"]
            print(f"  {way}: {ratio:.0f}x ({used:.0f}x of CPU){target}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--contender", choices=("ours", "feast"))
    parser.add_argument("--place")
    parser.add_argument("--keys", choices=KINDS)
    chosen = parser.parse_args()
    if chosen.contender:
        run = ours(chosen.place, chosen.keys) if chosen.contender == "ours" else feast(Path(chosen.place), chosen.keys)
        print(json.dumps(run))
        return 0
    print(f"{LABELS} labels x {EVENTS} events, {USERS} users")
    for keys in [chosen.keys] if chosen.keys else KINDS:
        compare(keys)
    return 0


if __name__ == "__main__":
    sys.exit(main())

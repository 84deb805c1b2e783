"""The streaming kernel on one core: decode, accept, windows; ours, peers, ratio, target.

What goes here: seeded events, each stage timed in CPU seconds in one process, peers on the same bytes in the same run.
What does not: a broker or a database. Run: ``.venv/bin/python ct_assets_tests/bench/bench_stream_kernel.py [--events N]``.
"""

# ruff: noqa: E402 (threads are limited before the libraries are loaded)
from __future__ import annotations

import os

for _name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS"):  # one core each: before the libraries are loaded
    os.environ.setdefault(_name, "1")

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ct_assets.streaming.accept import Acceptor
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.definition import load_definition
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.windows import evaluate

DEFINITION = Path(__file__).parents[2] / "ct_assets/defs/growth/shop/streams/user_activity.yaml"
BATCH = 100_000
WINDOW = 300_000_000


def generate(events: int, seed: int = 7) -> list[Messages]:
    """Batches of 115-byte events: zipf users, 3 % purchases, 2 % late by up to a minute, 0.5 % redelivered."""
    rng = np.random.default_rng(seed)
    users = rng.zipf(1.3, events) % 1_000_000
    spread = np.sort(rng.integers(0, max(events // 100, 1) * 1_000_000, events))  # 100 events a second
    late = np.where(rng.random(events) < 0.02, rng.integers(0, 60_000_000, events), 0)
    order = np.argsort(spread + late, kind="stable")
    times = np.datetime_as_string(np.datetime64("2026-01-01T00:00:00.000000") + spread.astype("timedelta64[us]"))
    kinds = np.where(rng.random(events) < 0.03, "purchase", "click")
    again = set(np.flatnonzero(rng.random(events) < 0.005).tolist())
    rows: list[bytes] = []
    for i in order.tolist():
        amount = f"{users[i] % 977 / 100 + 1:.2f}" if kinds[i] == "purchase" else "null"
        row = f'{{"event_id":"{i:09d}","user_id":{users[i]},"event_time":"{times[i]}Z","event_type":"{kinds[i]}","amount":{amount}}}'
        rows.extend([row.encode()] * (2 if i in again else 1))
    batches = (rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH))
    place, found = 0, []
    for batch in batches:
        found.append(Messages.from_values(batch, 0, np.arange(place, place + len(batch))))
        place += len(batch)
    return found


def cpu(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The least CPU seconds of some runs, and the last answer."""
    best, answer = float("inf"), None
    for _ in range(times):
        began = time.process_time()
        answer = work()
        best = min(best, time.process_time() - began)
    return best, answer


def line(what: str, ours: float, peer: tuple[str, float], target: str) -> None:
    """ours and peer in millions a CPU second."""
    print(f"{what}: ours {ours:.2f} M/s a core, {peer[0]} {peer[1]:.2f}, ratio {ours / peer[1]:.2f}, target {target}")


def bench_decode(batches: list[Messages]) -> list[Any]:
    """Typed, judged events against Polars' own JSON reader, which checks nothing but types."""
    definition = load_definition(DEFINITION)
    decoder = JsonDecoder(definition.schema, definition.acceptance)
    total = sum(map(len, batches))
    seconds, decoded = cpu(lambda: [decoder.decode(b) for b in batches])
    types = {
        "event_id": pl.String,
        "user_id": pl.Int64,
        "event_time": pl.String,
        "event_type": pl.String,
        "amount": pl.Float64,
    }

    def peer() -> int:
        stamp = pl.col("event_time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.6fZ")
        return sum(pl.read_ndjson(bytes(b.data), schema=types).with_columns(stamp).height for b in batches)

    peer_seconds, height = cpu(peer)
    if height != sum(d.frame.height for d in decoded):
        raise SystemExit("the two sides read different numbers of events")
    size = sum(len(b.data) for b in batches) / total
    line(
        f"decode + contract, {size:.0f}-byte JSON",
        total / seconds / 1e6,
        ("Polars ndjson + times", total / peer_seconds / 1e6),
        ">= 1 M/s",
    )
    return decoded


def bench_accept(batches: list[Messages], decoded: list[Any]) -> pl.DataFrame:
    """Repeats, lateness and watermark against Polars' unique by id alone."""
    acceptance = load_definition(DEFINITION).acceptance
    total = sum(map(len, batches))
    memory: list[int] = []

    def ours() -> list[Any]:
        acceptor = Acceptor(acceptance)
        found = [acceptor.accept(d, b) for d, b in zip(decoded, batches, strict=True)]
        memory[:] = [acceptor.state_bytes()]
        return found

    seconds, found = cpu(ours)
    whole = pl.concat([d.frame for d in decoded])
    peer_seconds, _ = cpu(lambda: whole.unique("event_id", keep="first", maintain_order=True))
    line(
        "accept (dedup by id and payload, lateness)",
        total / seconds / 1e6,
        ("Polars unique(event_id)", total / peer_seconds / 1e6),
        ">= 3 M/s",
    )
    events = pl.concat([f.events for f in found])
    print(
        f"  memory of ids: {memory[0] / 1e6:.1f} MB for {events.height:,} accepted events in {(total / 100) / 3600:.1f} h of event time"
    )
    return events


def bench_windows(events: pl.DataFrame, labels: int) -> float:
    """Exact 5-minute purchase counts at label times: against Polars rolling and DuckDB."""
    definition = load_definition(DEFINITION)
    count = type(definition)(**{**definition.__dict__, "aggregates": (definition.aggregate("clicks_5m"),)})
    rng = np.random.default_rng(3)
    rows = rng.integers(0, events.height, labels)
    users, at = events["user_id"][rows], events["event_time"].to_physical().to_numpy()[rows] + 1
    seconds, found = cpu(lambda: evaluate(count, events, users, at))
    known_seconds, _ = cpu(lambda: evaluate(count, events, users, at, as_known_at=at))
    whole_seconds, _ = cpu(lambda: evaluate(definition, events, users, at), 2)
    n = len(definition.aggregates)
    print(
        f"windows: {labels:,} labels over {events.height:,} events: count {labels / seconds / 1e6:.2f} M labels/s a core (target >= 5), as known {labels / known_seconds / 1e6:.2f}, {n} aggregates {labels / whole_seconds / 1e6:.2f} ({labels * n / whole_seconds / 1e6:.2f} M values/s)"
    )
    asked = pl.DataFrame({"user_id": users, "at": pl.Series(at).cast(pl.Datetime("us", "UTC"))})
    peer_seconds, answer = cpu(lambda: _duckdb(events, asked), 1)
    if answer != found["clicks_5m"].to_list():
        raise SystemExit("DuckDB and ours differ")
    line("  count at labels", labels / seconds / 1e6, ("DuckDB RANGE join", labels / peer_seconds / 1e6), ">= 10x")
    each = count.aggregates[0]
    clicks = events.filter(pl.col("event_type") == "click").sort("user_id", "event_time")
    own = clicks["event_time"].to_physical().to_numpy()
    mine, _ = cpu(lambda: evaluate(count, clicks, clicks["user_id"], own))
    rolling, _ = cpu(
        lambda: clicks.rolling("event_time", period="5m", closed="left", group_by="user_id").agg(pl.len()), 1
    )
    line(
        f"  {each.name} at every event",
        clicks.height / mine / 1e6,
        ("Polars rolling", clicks.height / rolling / 1e6),
        ">= 1x",
    )
    return labels / seconds / 1e6


def _duckdb(events: pl.DataFrame, asked: pl.DataFrame) -> list[int]:
    """Running counts as-of the two edges of each window, which is the fastest plan DuckDB has for it."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET threads=1; SET TimeZone='UTC'")
    clicks = events.filter(pl.col("event_type") == "click").select("user_id", "event_time")
    db.register("e", clicks.to_arrow())
    db.register("q", asked.with_row_index("i").to_arrow())
    db.execute(
        "CREATE TEMP TABLE c AS SELECT user_id, event_time, count(*) OVER (PARTITION BY user_id ORDER BY event_time) n FROM e"
    )
    edge = "SELECT i, coalesce(c.n, 0) n FROM (SELECT i, user_id, {0} AS t FROM q) w ASOF LEFT JOIN c ON w.user_id = c.user_id AND c.event_time < w.t"
    upper, lower = edge.format('"at"'), edge.format('"at" - INTERVAL 5 MINUTE')
    rows = db.execute(f"SELECT a.n - b.n FROM ({upper}) a JOIN ({lower}) b USING (i) ORDER BY i").fetchall()
    return [int(row[0]) for row in rows]


def main() -> int:
    """Print the lines; 1 when a target is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--labels", type=int, default=1_000_000)
    args = options.parse_args()
    batches = generate(args.events)
    decoded = bench_decode(batches)
    events = bench_accept(batches, decoded)
    bench_windows(events, args.labels)
    print(
        f"peak memory of this process, peers included: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

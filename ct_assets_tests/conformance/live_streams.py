"""Random streams through the live worker: what it commits, serves and trains on equals the oracle's.

What goes here: one stream's comparison, and the soak's loop. What does not: making streams (``streaming.random_streams``).

    python -m ct_assets_tests.conformance.live_streams --streams N --seed S      (a failure prints the seed that repeats it)
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, state
from ct_assets.adapters.stream.online_reads import OnlineReads
from ct_assets.streaming import oracle
from ct_assets_tests.conformance.live_engine import LATER, Live, newest_stream
from ct_assets_tests.conformance.stream_engines import BATCHES, Sent
from ct_assets_tests.streaming.random_streams import Stream, check_values, random_stream

SIZE = 40  # messages a stream at most: short ones meet every edge, and a failure can be read
FRESH_AFTER = 250  # streams a database
_serial = itertools.count()


def on_a_log(stream: Stream) -> list[oracle.Message]:
    """The same messages as a log numbers and stamps them: offsets without gaps, every one with an append time."""
    counts: dict[int, int] = {}
    found = []
    for message in stream.truth:
        offset = counts.get(message.partition, 0)
        counts[message.partition] = offset + 1
        append = LATER if message.append is None else message.append
        found.append(replace(message, offset=offset, append=append))
    return found


def check_live(live: Live, seed: int, folder: Path) -> int:
    """One random stream; returns how many values were compared. Raises AssertionError when one differs."""
    rng = Random(seed)
    stream = random_stream(rng, SIZE)
    live.batch = rng.choice(BATCHES)
    definition, truth = replace(stream.definition, name=f"random_{next(_serial)}"), on_a_log(stream)
    sent = [Sent(None, p, None, m.partition, m.append) for p, m in zip(stream.payloads, truth, strict=True)]
    live.run(definition, live.sent(folder, sent), folder)
    accepted, dead, duplicates = oracle.accept(truth, definition.acceptance)
    with connect(live.url, autocommit=True) as conn:
        where = newest_stream(conn)
        table = online.ensure(conn, where, definition)
        events = state.events(conn, where)
        letters = conn.execute(
            'select partition, "offset", reason from stream.dead_letter where stream_id = %s', (where.stream_id,)
        ).fetchall()
        repeats = conn.execute(
            "select coalesce(sum(duplicates), 0)::bigint from stream.partition where stream_id = %s", (where.stream_id,)
        ).fetchone()
        places = sorted(events.select("_partition", "_offset").rows()) if events.height else []
        assert places == sorted((e.partition, e.offset) for e in accepted)
        assert sorted(letters) == sorted((truth[i].partition, truth[i].offset, reason) for i, reason in dead)
        assert repeats == (duplicates,)
        if accepted:
            check_values(definition, events, accepted, rng)
        asked = questions(stream, accepted, rng)
        reads = OnlineReads(live.online_url)
        got = [reads.read(conn, table, [user], at).values[0] for user, at in asked]
    want = [oracle.value(definition, accepted, user, at) for user, at in asked]
    assert got == want, [row for row in zip(asked, got, want, strict=True) if row[1] != row[2]]
    return len(asked) * len(definition.aggregates)


def questions(stream: Stream, accepted: list[oracle.Event], rng: Random) -> list[tuple[Any, int]]:
    """Users and moments at the edges of windows: t, t + 1 us, t + W, t + W + 1 us of accepted events."""
    unknown = 777 if stream.definition.schema.column("user_id").type == "integer" else "nobody"
    if not accepted:
        return [(unknown, LATER)]
    edges = [0, 1, *(a.window_us + us for a in stream.definition.aggregates for us in (0, 1))]
    chosen = [rng.choice(accepted) for _ in range(10)]
    return [(e.values["user_id"], e.time + rng.choice(edges)) for e in chosen] + [(unknown, chosen[0].time)]


def main(argv: list[str] | None = None) -> int:
    """0 when every stream equals the oracle."""
    from ct_assets.adapters.postgres.migrate import migrate
    from ct_assets.adapters.postgres.server import Server

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--streams", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    args = options.parse_args(argv)
    home = Path(tempfile.mkdtemp(prefix="ct-live-streams-"))
    home.chmod(0o755)
    server, began, values, url = Server(home), time.monotonic(), 0, ""
    try:
        for number in range(args.streams):
            seed = args.seed + number
            if number % FRESH_AFTER == 0:
                url = fresh(server)
                migrate(url)
                if number:
                    print(f"{number:,} streams, {values:,} values, {time.monotonic() - began:.0f} s", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                try:
                    values += check_live(Live("log", None, url=url), seed, Path(folder))
                except Exception:
                    print(f"seed {seed} differs; repeat with --streams 1 --seed {seed}", flush=True)
                    raise
    finally:
        base = server.base
        server.stop()
        shutil.rmtree(base, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
    print(
        f"{args.streams:,} random streams from seed {args.seed} through the live worker: {values:,} values online, 0 differences from"
        f" the oracle (online, offline, as known, dead letters, repeats), {time.monotonic() - began:.0f} s"
    )
    return 0


def fresh(server: Any) -> str:
    """An empty database in place of the one before."""
    import psycopg

    with psycopg.connect(server.ensure("postgres"), autocommit=True) as conn:
        conn.execute("drop database if exists live with (force)")
        conn.execute("create database live")
    return server.url("live")


if __name__ == "__main__":
    sys.exit(main())

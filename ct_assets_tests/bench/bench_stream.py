"""From a Kafka topic to committed state, offsets and online rows: ours against Flink SQL and Spark on the same topic and bytes.

What goes here: the order of the measurements, the table and the targets. What does not: the topic (``stream_topic``), our
runs (``stream_ours``), peers (``stream_peers``), latency and recovery (``stream_moments``).

Every engine is timed from its first message to its last commit and stopped after ``--seconds``; the last run of ours reads
the whole topic (100 M events by default), which is the replay. CPU seconds are of a million messages, of the engine, the
database and the broker; MB is the largest resident memory of the engine's processes, with the whole topic waiting.
Full: about 45 minutes on two quiet cores and 10 GB of disk. Shorter: ``--events 10000000 --seconds 20 --latency-seconds 20``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ct_assets.adapters.events.broker import Broker
from ct_assets.adapters.postgres.server import Server
from ct_assets.settings import load
from ct_assets_tests.bench import stream_moments, stream_ours, stream_peers, stream_readers, stream_topic
from ct_assets_tests.bench.stream_ours import Bench, How, Run
from ct_assets_tests.bench.stream_topic import Topic

PARTS = ("readers", "ours", "peers", "latency", "recovery", "replay")
PEERS = {
    "flink": ("flink", {"label": "SQL OVER, dedup of purchases", "dedup": "purchases"}),
    "flink_all": ("flink", {"label": "SQL OVER, dedup of all events", "dedup": "all"}),
    "spark": ("spark", {"label": "hop 5 min / 10 s, RocksDB", "batch": 500_000}),
}
FLINK = {"checkpoint_seconds": 10, "state": "hashmap"}


def arguments() -> argparse.Namespace:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=100_000_000, help="in the topic, repeats not counted")
    options.add_argument("--seconds", type=float, default=90.0, help="of each engine after its first message")
    options.add_argument("--latency-seconds", type=float, default=60.0)
    options.add_argument("--rate", type=int, default=10_000, help="events a second of the latency run")
    options.add_argument("--only", help=f"some of {','.join(PARTS)}, with commas (default all)")
    options.add_argument("--home", type=Path, help="keep broker, topic and database there for the next run")
    return options.parse_args()


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    args = arguments()
    home = args.home or Path(tempfile.mkdtemp(prefix="ct-bench-"))
    home.mkdir(exist_ok=True, parents=True)
    broker, server = Broker(home / "kafka"), Server(home / "pg")
    try:
        brokers = broker.start()
        server.ensure("postgres")
        missed = report(args, Bench(broker, server, home), brokers)
    finally:
        broker.stop()
        server.stop()
        if not args.home:
            shutil.rmtree(server.base, ignore_errors=True)
            shutil.rmtree(home, ignore_errors=True)
    return 1 if missed else 0


def report(args: argparse.Namespace, bench: Bench, brokers: str) -> bool:
    """All measurements; whether a target was missed."""
    parts = args.only.split(",") if args.only else list(PARTS)
    name = f"events-{args.events}"
    topic = stream_topic.reuse(brokers, name, args.events) or stream_topic.fill(brokers, name, args.events)
    print(
        f"{topic.total:,} messages in {len(topic.messages)} partitions, load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    )
    if "readers" in parts:
        print(stream_readers.readers(topic))
    print(stream_ours.HEADING)
    runs: dict[str, Run] = {}
    for key, run in _runs(parts, args, bench, topic):
        runs[key] = run
        print(run.line(), flush=True)
    missed = [not met for met in _targets(runs, args.events)]
    if "latency" in parts:
        found = stream_moments.latency(bench, brokers, args.rate, args.latency_seconds)
        missed.append("MISSED" in found)
        print(found)
    if "recovery" in parts:
        print(stream_moments.recovery(bench, topic))
    return any(missed)


def _runs(parts: list[str], args: argparse.Namespace, bench: Bench, topic: Topic):
    """Ours and peers in turns, so that a noisy quarter of an hour hits both."""
    folder = load().home / "bench" / "peers"
    absent = stream_peers.missing()
    if "peers" in parts and absent:
        print(f"peers are left out: {absent}")
    mine = {
        "batches2": ("batches", 2),
        "messages2": ("messages", 2),
        "batches1": ("batches", 1),
        "messages1": ("messages", 1),
    }
    theirs = list(PEERS) if "peers" in parts and not absent else []
    for key, (reader, workers) in mine.items():
        if "ours" in parts:
            yield key, bench.run(topic, How(reader, workers, seconds=args.seconds))
        if theirs:
            peer = theirs.pop(0)
            program, query = PEERS[peer]
            yield peer, stream_peers.run(program, bench, topic, folder, FLINK | query | {"seconds": args.seconds})
    if "ours" in parts:
        yield "whole", bench.run(topic, How("batches", 2, stream_ours.WHOLE, args.seconds))
    if "replay" in parts:
        yield "replay", bench.run(topic, How("batches", 2))


def _targets(runs: dict[str, Run], events: int) -> list[bool]:
    """Print what was wanted and what was found; whether each was met."""
    rates = {key: run.rate for key, run in runs.items()}
    best, ordinary = (
        max((rates[f"{reader}{n}"] for n in (1, 2) if f"{reader}{n}" in rates), default=0.0)
        for reader in ("batches", "messages")
    )
    wanted = [
        ("events/s, whole batches", best / 1e6, 1.2, "M/s", best > 0),
        ("events/s, ordinary consumer", ordinary / 1e6, 0.64, "M/s", ordinary > 0),
        (
            "times Flink SQL with dedup and checkpoints",
            best / rates.get("flink", 1),
            3.0,
            "x",
            best and "flink" in rates,
        ),
        (
            "times Flink, every event deduplicated",
            best / rates.get("flink_all", 1),
            3.0,
            "x",
            best and "flink_all" in rates,
        ),
        ("times Spark hop", best / rates.get("spark", 1), 10.0, "x", best and "spark" in rates),
    ]
    met = []
    for label, found, least, unit, measured in wanted:
        if measured:
            met.append(found >= least)
            print(f"{label}: {found:.2f} {unit} (target >= {least:g}: {'ok' if met[-1] else 'MISSED'})")
    if "replay" in runs:
        run = runs["replay"]
        hundred = run.seconds * 100e6 / run.messages
        met.append(hundred < 300)
        print(
            f"replay of the log: {run.messages / 1e6:.0f} M messages in {run.seconds:.0f} s, {run.peak_mb:.0f} MB: 100 M take"
            f" {hundred:.0f} s{'' if events >= 100_000_000 else ' (scaled)'} (target < 300: {'ok' if met[-1] else 'MISSED'})"
        )
    short = [run.name for run in runs.values() if run.seconds < 60]
    if short:
        print(f"shorter than 60 s, so not what the targets ask for: {'; '.join(short)}")
    return met


if __name__ == "__main__":
    sys.exit(main())

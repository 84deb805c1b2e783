"""How soon an event can be read, and how soon a killed worker commits again.

What goes here: both measurements on the real worker, broker and database. What does not: throughput (``stream_ours``).

Latency: 10 k events a second; twenty of them each second are the first purchase of a new user, and a reader asks for all
users that are still waited for, every two milliseconds, through the online function. Recovery: the supervised worker reads
a backlog, its process is killed with SIGKILL, and the clock stops at the first offset that moves.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg

from ct_assets.adapters.events.kafka_sink import KafkaSink
from ct_assets.settings import KafkaSettings
from ct_assets_tests.bench.processes import Watch, tree
from ct_assets_tests.bench.stream_ours import LEAN, ROOT, Bench
from ct_assets_tests.bench.stream_topic import PARTITIONS, Topic

TICK = 0.01
PROBE_EVERY = 5  # ticks
FIRST_PROBE = 100_000_000
PATIENCE = 120.0
LEAST_BACKLOG = 4_000_000  # for three kills, with what each worker has in hand


@contextmanager
def worker(bench: Bench, topic: Topic, *more: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A worker that runs until the block ends, and its database."""
    url, home = bench.fresh_database(), Path(tempfile.mkdtemp(dir=bench.home, prefix="run-"))
    command = bench.command(topic, [LEAN], *more)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=bench.environment(url, home, "auto"), stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process, url
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                for pid in tree(process.pid):
                    os.kill(pid, signal.SIGKILL)


def until(ready: object, seconds: float = PATIENCE) -> float:
    """Wait until ``ready()`` is true; the monotonic time at which it was."""
    deadline = time.monotonic() + seconds
    while not ready():  # pyright: ignore[reportCallIssue]
        if time.monotonic() > deadline:
            raise SystemExit("the worker did not get on")
        time.sleep(0.01)
    return time.monotonic()


def moved(conn: psycopg.Connection) -> int:
    """The sum of all offsets that are committed."""
    row = conn.execute("select coalesce(sum(greatest(next_offset, 0)), 0) from stream.partition").fetchone()
    return int(row[0]) if row else 0


class Sender(threading.Thread):
    """Sends ``rate`` events a second for ``seconds``; ``sent``: user of each probe -> when it was handed over."""

    def __init__(self, topic: Topic, rate: int, seconds: float) -> None:
        """Nothing is sent before ``start``."""
        super().__init__(daemon=True)
        self.topic, self.per_tick, self.ticks = topic, int(rate * TICK), int(seconds / TICK)
        self.sent: dict[int, float] = {}
        self.waiting: dict[int, float] = {}
        self.behind = 0.0

    def run(self) -> None:
        """Tick by tick."""
        sink = KafkaSink(self.topic.brokers, self.topic.name, KafkaSettings())
        began, number = time.monotonic(), 0
        for tick in range(self.ticks):
            due = began + tick * TICK
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self.behind = max(self.behind, -wait)
            stamp = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            probe = FIRST_PROBE + tick if tick % PROBE_EVERY == 0 else None
            rows = []
            for n in range(self.per_tick):
                user, kind, amount = (
                    (probe, "purchase", "9.99") if n == 0 and probe else (number % 50_000, "click", "null")
                )
                rows.append(_event(number, user, stamp, (kind, amount)))
                number += 1
            if probe:
                self.sent[probe] = self.waiting[probe] = time.monotonic()
            sink.send(rows, partition=tick % PARTITIONS)
        sink.close()


def _event(number: int, user: int, stamp: str, what: tuple[str, str]) -> bytes:
    return (
        f'{{"event_id":"{number:012d}","user_id":{user},"event_time":"{stamp}","event_type":"{what[0]}","amount":{what[1]}}}'
    ).encode()


def latency(bench: Bench, brokers: str, rate: int, seconds: float) -> str:
    """p50, p90, p99 and the largest milliseconds from handing an event to the producer until the online read shows it."""
    name = f"latency-{time.time_ns()}"
    KafkaSink(brokers, name, KafkaSettings(), PARTITIONS).close()
    topic = Topic(brokers, name, dict.fromkeys(range(PARTITIONS), 0), 0)
    warm = 5.0
    with worker(bench, topic, "--no-supervise") as (process, url), psycopg.connect(url, autocommit=True) as conn:
        until(lambda: moved_partitions(conn) == PARTITIONS)
        watch = Watch([process.pid])
        sender = Sender(topic, rate, seconds + warm)
        sender.start()
        until(lambda: moved(conn) > 0)
        found = _read(conn, sender)
        watch.stop()
    first = min(sender.sent) + int(warm / TICK)
    took = np.array([seen - sender.sent[user] for user, seen in found.items() if user >= first]) * 1000
    p50, p90, p99 = np.percentile(took, [50, 90, 99])
    verdict = "ok" if p99 < 100 else "MISSED"
    return (
        f"latency at {rate:,} events/s for {seconds:.0f} s, produced to readable, {len(took)} probes: p50 {p50:.0f}, p90 {p90:.0f},"
        f" p99 {p99:.0f}, max {took.max():.0f} ms (target p99 < 100: {verdict}); worker {watch.cpu():.1f} CPU s, {watch.peak_mb:.0f} MB,"
        f" load {os.getloadavg()[0]:.1f}, producer at most {sender.behind * 1000:.0f} ms late"
    )


def moved_partitions(conn: psycopg.Connection) -> int:
    """How many partitions have an owner."""
    row = conn.execute("select count(*) from stream.partition where owner is not null").fetchone()
    return int(row[0]) if row else 0


def _read(conn: psycopg.Connection, sender: Sender) -> dict[int, float]:
    """When each probe could be read first."""
    found: dict[int, float] = {}
    last = time.monotonic()
    while sender.is_alive() or (sender.waiting and time.monotonic() - last < PATIENCE):
        asked = list(sender.waiting)[:200]
        if asked:
            rows = conn.execute(
                "select user_id from online.purchases_5m(%s::bigint[], clock_timestamp()) where purchases_5m > 0",
                (asked,),
            ).fetchall()
            seen = time.monotonic()
            for (user,) in rows:
                found[user] = seen
                del sender.waiting[user]
                last = seen
        time.sleep(0.002)
    if sender.waiting:
        raise SystemExit(f"{len(sender.waiting)} probes were never seen")
    return found


def recovery(bench: Bench, topic: Topic, repeats: int = 3) -> str:
    """Seconds from SIGKILL of the supervised worker's process to the first commit of its successor."""
    if topic.total < LEAST_BACKLOG:
        return f"recovery: left out, a topic of {topic.total:,} is read before the last kill (--events {LEAST_BACKLOG} or more)"
    took: list[float] = []
    with worker(bench, topic, "--supervise") as (process, url), psycopg.connect(url, autocommit=True) as conn:
        for _ in range(repeats):
            before = moved(conn)
            until(lambda before=before: moved(conn) > before + 200_000)
            child = next(pid for pid in tree(process.pid) if pid != process.pid)
            killed = time.monotonic()
            os.kill(child, signal.SIGKILL)
            time.sleep(0.2)  # what PostgreSQL was committing is committed by now
            before = moved(conn)
            took.append(until(lambda before=before: moved(conn) > before) - killed)
    listed = ", ".join(f"{seconds:.1f}" for seconds in took)
    return f"recovery: from kill -9 to the next commit {listed} s (supervisor, start of Python, group, remembered hour), load {os.getloadavg()[0]:.1f}"

"""The stream soak: workers die by SIGKILL at named points, database and broker are killed under them; nothing changes.

What goes here: the soak (`python -m ct_assets_tests.faults.soak_stream --kills 300 --seed N [--kafka]`). What does not: the
worker (``adapters.stream_worker``), the stream (``ct_assets.sampling``).

A seeded stream is appended slice by slice. In each round a worker is killed at a named point of a random batch, or the
database (or the broker) is killed with kill -9 and started again under a living worker; often a second worker shares the
topic and takes over. At the end offsets, counts, accepted events, dead letters, online values of every user and the same
values as a training set are compared with those of one worker over the whole topic that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ct_assets.adapters.crash import STREAM_POINTS
from ct_assets.adapters.events.broker import Broker
from ct_assets.adapters.events.port import open_sink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.postgres.migrate import migrate
from ct_assets.adapters.postgres.server import Server
from ct_assets.adapters.stream import online, state
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.adapters.stream.versions import find_table
from ct_assets.adapters.stream_worker.worker import LOOK_SECONDS
from ct_assets.sampling.arrivals import ArrivalOptions, Arrivals, arrive
from ct_assets.sampling.events import batches
from ct_assets.sampling.shoppers import ShopOptions
from ct_assets_tests.adapters.stream_worker.world import World

SERVICES = ("database", "broker")
SERVICE_SHARE = 0.12  # of the rounds kill a service instead of a worker
LIFE_SECONDS = 240.0


@dataclass
class Outcome:
    """What a soak did and found."""

    seed: int
    points: tuple[str, ...]
    messages: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    takeovers: int = 0
    values: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """Points that were never hit."""
        return [point for point in self.points if not self.hits[point]]

    def __str__(self) -> str:
        """The lines a person reads."""
        lines = [f"{point:<22} {self.hits[point]:>4} kills" for point in self.points]
        lines.append(
            f"seed {self.seed}: {self.hits.total()} kills over {self.messages:,} messages, {self.takeovers} with a second"
            f" worker; {self.values:,} values compared; {len(self.differences)} differences"
        )
        lines += [f"  {difference}" for difference in self.differences[:10]]
        return "\n".join(lines + [f"never hit: {', '.join(self.missed)}"] * bool(self.missed))


@dataclass
class Soak:
    """One soak. ``services``: name -> (kill it, start it again)."""

    world: World
    arrivals: Arrivals
    rng: random.Random
    outcome: Outcome
    services: dict[str, tuple[Callable[[], None], Callable[[], object]]]
    sent: int = 0

    def run(self, kills: int) -> None:
        """Kill ``kills`` times, then let one worker finish."""
        plan = self._plan(kills)
        size = 2 * len(self.arrivals) // (3 * (len(plan) + 1))  # a third is left for rounds in which nobody died
        for number, point in enumerate(plan):
            self._append(size)
            before = self.outcome.hits.total()
            while self.outcome.hits.total() == before and self.sent < len(self.arrivals):
                if point in self.services:
                    self._service(point, size // 2)
                else:
                    self._worker(point, max(200, size // 5))
                if self.outcome.hits.total() == before:  # the second worker was faster, say
                    self._append(size // 4)
            if number % 20 == 19:
                print(f"  {self.outcome.hits.total()} kills, {self.sent:,} messages", flush=True)
        self._append(len(self.arrivals))
        done = self.world.run("--until-idle")
        if done.returncode:
            self.outcome.differences.append(f"the last worker ended with {done.returncode}: {done.stderr[-300:]}")

    def _plan(self, kills: int) -> list[str]:
        services = [name for name in SERVICES if name in self.services]
        share = max(len(services), round(SERVICE_SHARE * kills)) if services else 0
        plan = [services[i % len(services)] for i in range(share)]
        plan += [STREAM_POINTS[i % len(STREAM_POINTS)] for i in range(kills - share)]
        self.rng.shuffle(plan)
        return plan

    def _append(self, count: int) -> None:
        end = min(len(self.arrivals), self.sent + count)
        part = Arrivals(*(getattr(self.arrivals, name)[self.sent : end] for name in Arrivals.__dataclass_fields__))
        sink = open_sink(self.world.source, partitions=4)
        for partition, payloads, append in batches(part):
            sink.send(payloads, partition=partition, append_time=append)
        sink.close()
        self.sent = end

    def _worker(self, point: str, batch: int) -> None:
        times = 1 if point == "assigned" else self.rng.randint(1, 3)
        words = ("--until-idle", "--no-supervise", "--max-messages", str(batch))
        second = self.world.start(*words) if self.rng.random() < 0.2 else None
        victim = self.world.start(*words, CT_CRASH_AT=f"{point}*{times}")
        code, said = _ended(victim)
        if code == -signal.SIGKILL:
            self.outcome.hits[point] += 1
            self.outcome.takeovers += second is not None
        elif code:
            self.outcome.differences.append(f"{point}: ended with {code}: {said[-300:]}")
            self.outcome.hits[point] += 1
        if second is not None:
            self._expect_end(*_ended(second), f"second worker at {point}")

    def _service(self, name: str, count: int) -> None:
        """Kill a service under a worker that has work; a database's death must be noticed, a broker's need not be."""
        kill, start = self.services[name]
        self._append(count)
        worker = self.world.start("--no-supervise", "--max-messages", "500")
        time.sleep(self.rng.uniform(0.7, 2.0))
        alive = worker.poll() is None
        kill()
        time.sleep(self.rng.uniform(0, 1))
        start()
        time.sleep(2 * LOOK_SECONDS)
        worker.send_signal(signal.SIGTERM)
        code, said = _ended(worker)
        self._expect_end(code, said, name)
        self.outcome.hits[name] += alive and (name == "broker" or "beginning again from the database after" in said)

    def _expect_end(self, code: int, said: str, what: str) -> None:
        if code:
            self.outcome.differences.append(f"{what}: ended with {code}: {said[-300:]}")


def _ended(worker: Any) -> tuple[int, str]:
    said = worker.communicate(timeout=LIFE_SECONDS)[1]
    return worker.returncode, said


def compare(outcome: Outcome, soaked: World, calm: World) -> None:
    """Everything that two workers' worlds hold, against each other."""
    ours, theirs = _everything(soaked), _everything(calm)
    for name in theirs:
        if ours[name] != theirs[name]:
            outcome.differences.append(f"{name}: {_first_difference(ours[name], theirs[name])}")
    outcome.values = sum(len(theirs[name]) for name in ("online", "offline"))


def _everything(world: World) -> dict[str, Any]:
    found = world.content()
    with connect(world.url, autocommit=True) as conn:
        table = find_table(conn, "user_activity")
        events = state.events(conn, state.find_stream(conn, table.stream_id))
        users = events["user_id"].unique().sort().to_list()
        times = events["event_time"].dt.epoch("us")
        moments = [int(times.quantile(share) or 0) for share in (0.25, 0.5, 0.75, 0.999, 1.0)]
        found["online"] = [v for at in moments for v in online.read(conn, table, users, at + 1).values]
        labels = events.select("user_id", at=times).gather_every(20)
        found["offline"] = training_frame(conn, table, labels, Request("as_known")).rows()
    return found


def _first_difference(ours: Any, theirs: Any) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} instead of {len(theirs)}"
    return next(f"{a} instead of {b}" for a, b in zip(ours, theirs, strict=True) if a != b)


def sample(events: int, seed: int, *, stamped: bool) -> Arrivals:
    """A stream of at least ``events`` messages. ``stamped``: a broker stamps the arrivals."""
    users = max(50, round(events / 105))  # a user makes about 110 messages in 24 hours
    sent = int(time.time()) * 1_000_000 if stamped else None
    return arrive(ArrivalOptions(ShopOptions(users, 24, seed), sent_us=sent))


def soak(place: Path, server: Server, kills: int, events: int, seed: int, broker: Broker | None = None) -> Outcome:
    """One soak in the empty folder ``place``; ``server`` is used for nothing else, ``broker`` is started already."""
    points = (*STREAM_POINTS, "database", *(["broker"] if broker else []))
    outcome = Outcome(seed, points)
    topic = f"kafka://{broker.bootstrap}/soak" if broker else None
    arrivals = sample(events, seed, stamped=broker is not None)
    outcome.messages = len(arrivals)
    worlds = []
    for name in ("soaked", "calm"):
        with connect(server.url("postgres"), autocommit=True) as conn:
            conn.execute(f"create database {name}".encode())
        url = server.url(name)
        migrate(url)
        worlds.append(World(url, place / "log", place / name, topic))
    services: dict[str, Any] = {"database": (lambda: _kill(server), server.ensure)}
    if broker:
        services["broker"] = (broker.kill, broker.start)
    work = Soak(worlds[0], arrivals, random.Random(seed), outcome, services)
    try:
        work.run(kills)
    finally:
        worlds[0].close()
    done = worlds[1].run("--until-idle", "--group", "calm")
    if done.returncode:
        outcome.differences.append(f"the undisturbed worker ended with {done.returncode}: {done.stderr[-300:]}")
    compare(outcome, *worlds)
    return outcome


def _kill(server: Server) -> None:
    found = server.running()
    if found is not None:
        os.kill(found.pid, signal.SIGKILL)


def main() -> None:
    """Run on services of its own; exit 1 for a difference or a point that was never hit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kafka", action="store_true", help="on a real broker, which is killed too")
    args = parser.parse_args()
    print(f"stream soak: {args.kills} kills, {args.events:,} events, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ct-stream-soak-") as name:
        server, broker = Server(Path(name) / "pg"), Broker(Path(name) / "kafka") if args.kafka else None
        server.ensure()
        try:
            if broker:
                broker.start()
            outcome = soak(Path(name), server, args.kills, args.events, args.seed, broker)
        finally:
            base = server.base
            server.stop()
            shutil.rmtree(base, ignore_errors=True)
            if broker:
                broker.stop()
    print(outcome)
    print(json.dumps({"kills": outcome.hits.total(), "differences": len(outcome.differences)}))
    sys.exit(1 if outcome.differences or outcome.missed else 0)


if __name__ == "__main__":
    main()

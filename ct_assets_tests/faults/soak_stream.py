"""The stream soak: workers die by SIGKILL at named points, database, broker and Redis are killed under them; nothing changes.

What goes here: the soak (`python -m ct_assets_tests.faults.soak_stream --kills 300 --seed N [--kafka] [--redis]`). What does
not: the worker (``adapters.stream_worker``), the stream (``ct_assets.sampling``), what Redis adds (``soak_redis``).

A seeded stream is appended slice by slice. In each round a worker is killed at a named point of a random batch, or the
database (or the broker, or Redis) is killed with kill -9 and started again under a living worker; often a second worker
shares the topic and takes over. At the end offsets, counts, accepted events, dead letters, online values of every user and the same
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ct_assets.adapters.crash import STREAM_POINTS, TWIN_POINTS
from ct_assets.adapters.events.broker import Broker
from ct_assets.adapters.events.port import open_sink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.postgres.migrate import migrate
from ct_assets.adapters.postgres.server import Server
from ct_assets.adapters.stream_worker.worker import LOOK_SECONDS
from ct_assets.sampling.arrivals import ArrivalOptions, Arrivals, arrive
from ct_assets.sampling.events import batches
from ct_assets.sampling.shoppers import ShopOptions
from ct_assets_tests.adapters.stream_worker.world import World, truth_of
from ct_assets_tests.faults.soak_content import differences, redis_differences
from ct_assets_tests.faults.soak_redis import CALM, NOTICED, SOAKED, OnlineWorld, RedisFaults, Watched

SERVICE_SHARE = 0.06  # of the rounds, for each service that is killed instead of a worker
# what a worker says that lived through the death of a service
SAYS = {"database": "beginning again from the database after", "broker": "", **NOTICED}
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
    online: Counter[str] = field(default_factory=Counter)  # what was read from Redis
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
        lines += [f"  Redis: {', '.join(f'{count:,} {what}' for what, count in self.online.items())}"] * bool(
            self.online
        )
        lines += [f"  {difference}" for difference in self.differences[:10]]
        return "\n".join(lines + [f"never hit: {', '.join(self.missed)}"] * bool(self.missed))


@dataclass
class Soak:
    """One soak. ``points``: where workers die; ``services``: name -> (kill it, start it again)."""

    world: World
    arrivals: Arrivals
    rng: random.Random
    outcome: Outcome
    points: tuple[str, ...]
    services: Mapping[str, tuple[Callable[[], None], Callable[[], object]]]
    between: Callable[[], None] = lambda: None  # after each round
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
            self.between()
            if number % 20 == 19:
                print(f"  {self.outcome.hits.total()} kills, {self.sent:,} messages", flush=True)
        self._append(len(self.arrivals))
        done = self.world.run("--until-idle")
        if done.returncode:
            self.outcome.differences.append(f"the last worker ended with {done.returncode}: {done.stderr[-300:]}")

    def _plan(self, kills: int) -> list[str]:
        plan = [*self.services] * max(1, round(SERVICE_SHARE * kills))
        plan += [self.points[i % len(self.points)] for i in range(kills - len(plan))]
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
        """Kill a service under a worker that has work; but a broker's, a death must be noticed."""
        kill, start = self.services[name]
        self._append(count)
        worker = self.world.start("--no-supervise", "--max-messages", "500")
        begun, alive = _until_it_holds(worker)  # one that only begins has nothing to live through
        time.sleep(self.rng.uniform(0.0, 1.2))
        kill()
        time.sleep(self.rng.uniform(0, 1))
        start()
        time.sleep(2 * LOOK_SECONDS)
        worker.send_signal(signal.SIGTERM)
        code, said = _ended(worker)
        self._expect_end(code, begun + said, name)
        self.outcome.hits[name] += alive and SAYS[name] in said

    def _expect_end(self, code: int, said: str, what: str) -> None:
        if code:
            self.outcome.differences.append(f"{what}: ended with {code}: {said[-300:]}")


def _until_it_holds(worker: Any) -> tuple[str, bool]:
    """Wait until a worker has its partitions: what it said by then, and False when it ended before."""
    said = ""
    for line in worker.stderr:
        said += line
        if "holding partitions" in line:
            return said, True
    return said, False


def _ended(worker: Any) -> tuple[int, str]:
    said = worker.communicate(timeout=LIFE_SECONDS)[1]
    return worker.returncode, said


def sample(events: int, seed: int, *, stamped: bool) -> Arrivals:
    """A stream of at least ``events`` messages. ``stamped``: a broker stamps the arrivals."""
    users = max(50, round(events / 105))  # a user makes about 110 messages in 24 hours
    sent = int(time.time()) * 1_000_000 if stamped else None
    return arrive(ArrivalOptions(ShopOptions(users, 24, seed), sent_us=sent))


@dataclass(frozen=True)
class Services:
    """What a soak kills beside workers: used for nothing else, started already. Without Redis nothing writes one."""

    database: Server
    broker: Broker | None = None
    redis: RedisFaults | None = None

    def faults(self) -> dict[str, tuple[Callable[[], None], Callable[[], object]]]:
        """name -> (kill it, start it again)."""
        found: dict[str, Any] = {"database": (lambda: _kill(self.database), self.database.ensure)}
        if self.broker:
            found["broker"] = (self.broker.kill, self.broker.start)
        return found | (self.redis.services() if self.redis else {})

    def world(self, place: Path, name: str) -> World:
        """An empty database (and one of Redis) for workers on the topic."""
        with connect(self.database.url("postgres"), autocommit=True) as conn:
            conn.execute(f"create database {name}".encode())
        url = self.database.url(name)
        migrate(url)
        topic = f"kafka://{self.broker.bootstrap}/soak" if self.broker else None
        if self.redis is None:
            return World(url, place / "log", place / name, topic)
        number = SOAKED if name == "soaked" else CALM
        return OnlineWorld(url, place / "log", place / name, topic, online_url=self.redis.server.url(number))


def soak(place: Path, services: Services, kills: int, events: int, seed: int) -> Outcome:
    """One soak in the empty folder ``place``."""
    faults, points = services.faults(), (*STREAM_POINTS, *(TWIN_POINTS if services.redis else ()))
    outcome = Outcome(seed, (*points, *faults))
    arrivals = sample(events, seed, stamped=services.broker is not None)
    outcome.messages = len(arrivals)
    soaked, calm = (services.world(place, name) for name in ("soaked", "calm"))
    rng = random.Random(seed)
    work = Soak(soaked, arrivals, rng, outcome, points, faults)
    if services.redis and isinstance(soaked, OnlineWorld):
        work.between = _between(services.redis, Watched(soaked, rng, outcome.online), outcome)
    try:
        work.run(kills)
    finally:
        soaked.close()
    done = calm.run("--until-idle", "--group", "calm")
    if done.returncode:
        outcome.differences.append(f"the undisturbed worker ended with {done.returncode}: {done.stderr[-300:]}")
    found, outcome.values = differences(soaked, calm)
    outcome.differences += found
    if isinstance(soaked, OnlineWorld) and isinstance(calm, OnlineWorld):
        truth = None if services.broker else truth_of(arrivals)  # a broker stamps arrivals itself
        outcome.differences += redis_differences(soaked, calm, truth, outcome.online)
    return outcome


def _between(redis: RedisFaults, watched: Watched, outcome: Outcome) -> Callable[[], None]:
    def between() -> None:
        redis.snapshot()
        outcome.differences += watched.look()

    return between


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
    parser.add_argument(
        "--redis", action="store_true", help="workers write a real Redis, which is killed and emptied too"
    )
    args = parser.parse_args()
    print(f"stream soak: {args.kills} kills, {args.events:,} events, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ct-soak-") as name:
        place, server = Path(name), Server(Path(name) / "pg")
        broker = Broker(place / "kafka") if args.kafka else None
        redis = RedisFaults(place / "redis", random.Random(args.seed)) if args.redis else None
        server.ensure()
        try:
            if broker:
                broker.start()
            outcome = soak(place, Services(server, broker, redis), args.kills, args.events, args.seed)
        finally:
            base = server.base
            server.stop()
            shutil.rmtree(base, ignore_errors=True)
            if broker:
                broker.stop()
            if redis:
                redis.server.stop(signal.SIGKILL)
    print(outcome)
    print(json.dumps({"kills": outcome.hits.total(), "differences": len(outcome.differences)}))
    sys.exit(1 if outcome.differences or outcome.missed else 0)


if __name__ == "__main__":
    main()

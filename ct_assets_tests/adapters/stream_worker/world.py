"""A topic with a planted stream, workers on it as real processes, and the oracle of what must come out.

What goes here: what the worker's tests share. What does not: assertions.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, online_read, state
from ct_assets.sampling.arrivals import ArrivalOptions, Arrivals, arrive
from ct_assets.sampling.events import batches
from ct_assets.sampling.shoppers import ShopOptions
from ct_assets.streaming import oracle
from ct_assets.streaming.definition import Definition, load_definition

ROOT = Path(__file__).resolve().parents[3]
DEFINITION = ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml"
REFUSED = {"poison": "poison", "null_key": "null_key", "unit_error": "timestamp_out_of_range"}


def sample(seed: int = 11, users: int = 250, hours: float = 4, hot_user: bool = False) -> Arrivals:
    """A small shop's stream with all its dirt."""
    return arrive(ArrivalOptions(ShopOptions(users, hours, seed), hot_user=hot_user))


def fill(folder: Path, arrivals: Arrivals, begin: int = 0, end: int | None = None) -> str:
    """Append messages ``[begin, end)`` to the log in ``folder``; its URL."""
    part = Arrivals(*(getattr(arrivals, name)[begin:end] for name in Arrivals.__dataclass_fields__))
    sink = LogSink(str(folder), 4)
    for partition, payloads, append in batches(part):
        sink.send(payloads, partition=partition, append_time=append)
    sink.close()
    return f"log://{folder}"


@dataclass
class Truth:
    """What the oracle says of a stream."""

    definition: Definition
    accepted: list[oracle.Event]
    dead: Counter[str]
    duplicates: int
    too_late: list[oracle.Event] = field(
        default_factory=list
    )  # dead for that; repeats of accepted ids are not among them

    def values(self, user: int, at: int) -> dict[str, Any]:
        """Every aggregate of one user at ``at``."""
        return oracle.value(self.definition, self._of(user), user, at)

    def values_known(self, user: int, at: int, known: int) -> dict[str, Any]:
        """Every aggregate of one user at ``at``, from what was known at ``known``."""
        return oracle.value(self.definition, self._of(user), user, at, known)

    def closing_values(self, user: int, at: int) -> dict[str, Any]:
        """Every aggregate of one user at ``at`` in a snapshot, which counts what came too late."""
        own = [event for event in self.too_late if event.values["user_id"] == user]
        return oracle.value(self.definition, [*self._of(user), *own], user, at)

    def _of(self, user: int) -> list[oracle.Event]:
        if not hasattr(self, "_by_user"):
            self._by_user: dict[int, list[oracle.Event]] = {}
            for event in self.accepted:
                self._by_user.setdefault(event.values["user_id"], []).append(event)
        return self._by_user.get(user, [])

    def questions(self, count: int, seed: int = 1) -> list[tuple[int, int]]:
        """(user, moment): at the edges of windows of accepted events."""
        rng = random.Random(seed)
        longest = self.definition.max_window_us
        edges = [0, 1, 1_000_000, 300_000_000, 300_000_001, longest, longest + 1]
        chosen = rng.sample(self.accepted, min(count, len(self.accepted)))
        return [(e.values["user_id"], e.time + rng.choice(edges)) for e in chosen]


def truth_of(arrivals: Arrivals) -> Truth:
    """Judge the stream by the specification: parsed by the standard library, accepted by the oracle."""
    definition = load_definition(DEFINITION)
    offsets: Counter[int] = Counter()
    messages = []
    for i, payload in enumerate(arrivals.payload):
        partition = int(arrivals.partition[i])
        event: dict[str, Any] | str | None = None
        if payload is not None:
            event = REFUSED.get(arrivals.planted[i]) or {
                "amount": None,
                **json.loads(payload, parse_float=Decimal),
                "event_time": int(arrivals.event_time[i]),
            }
        messages.append(oracle.Message(event, partition, offsets[partition], int(arrivals.append_time[i])))
        offsets[partition] += 1
    accepted, dead, duplicates = oracle.accept(messages, definition.acceptance)
    times: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for event in accepted:
        times.setdefault((event.partition, event.values["event_id"]), []).append((event.time, event.offset))
    too_late: list[oracle.Event] = []
    for m in [messages[index] for index, reason in dead if reason == "late"]:
        assert isinstance(m.event, dict)
        time, before = m.event["event_time"], times.setdefault((m.partition, m.event["event_id"]), [])
        horizon = definition.acceptance.dedup_horizon_us
        if all(abs(time - other) > horizon for other, offset in before if offset < m.offset):
            too_late.append(oracle.Event(m.event, time, m.partition, m.offset, 0))
        before.append((time, m.offset))
    reasons = Counter(reason for _, reason in dead)
    return Truth(definition, accepted, reasons, duplicates, too_late)


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started."""
    return [int(line) for line in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass
class World:
    """One database and one topic: the log in ``folder``, or that of another URL."""

    url: str
    folder: Path
    home: Path
    topic: str | None = None
    definition: Path = DEFINITION
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The topic's URL."""
        return self.topic or f"log://{self.folder}"

    def command(self, *more: str) -> list[str]:
        """`ct stream run` on this world."""
        run = ["stream", "run", "--definition", str(self.definition), "--source", self.source]
        return [sys.executable, "-m", "ct_assets.cli", *run, *more]

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a worker."""
        return {**os.environ, "CT_HOME": str(self.home), "CT_DATABASE_URL": self.url, **more}

    def run(self, *more: str, crash_at: str | None = None) -> subprocess.CompletedProcess[str]:
        """A worker to its end."""
        extra = {"CT_CRASH_AT": crash_at} if crash_at else {}
        return subprocess.run(
            self.command("--json", *more), env=self.environ(**extra), capture_output=True, text=True, timeout=120
        )

    def start(self, *more: str, **environ: str) -> subprocess.Popen[str]:
        """A worker in the background; its stderr can be read."""
        worker = subprocess.Popen(
            self.command(*more),
            env=self.environ(**environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(worker)
        return worker

    def close(self) -> None:
        """Let no worker of a failed test outlive it; a supervisor's would go on, and hold the pipe that is read here."""
        for worker in self.started:
            for child in children(worker.pid) if worker.poll() is None else ():
                os.kill(child, signal.SIGKILL)
            worker.kill()
            worker.communicate()

    def content(self) -> dict[str, Any]:
        """Everything that was committed, apart from how it was batched: offsets, counts, events, dead letters."""
        with connect(self.url) as conn:
            partitions = conn.execute(
                "select partition, next_offset, top, frontier, events, late_accepted, late_dead, duplicates, dead,"
                " tombstones from stream.partition order by partition"
            ).fetchall()
            dead = conn.execute(
                'select partition, "offset", reason, raw, append_time from stream.dead_letter order by 1, 2'
            ).fetchall()
            frame = state.events(conn, self._stream(conn))
        places = sorted(frame.select("_partition", "_offset").rows())
        return {"partitions": partitions, "dead": dead, "places": places}

    def _stream(self, conn: Any) -> state.Stream:
        row = conn.execute("select stream_id from stream.stream").fetchone()
        return state.find_stream(conn, row[0])

    def read(self, questions: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Online values, one question at a time as a server would ask."""
        definition = load_definition(DEFINITION)
        with connect(self.url, autocommit=True) as conn:
            table = online.ensure(conn, self._stream(conn), definition)
            return [online_read.read(conn, table, [user], at).values[0] for user, at in questions]

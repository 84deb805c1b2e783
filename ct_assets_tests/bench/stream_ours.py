"""Our worker as the stream bench runs it: the real `ct stream run`, in processes of its own, on a fresh database.

What goes here: one run and its figures. What does not: the topic (``stream_topic``), peers (``stream_peers``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ct_assets.adapters.events.broker import Broker
from ct_assets.adapters.postgres.server import Server
from ct_assets_tests.bench.processes import Watch
from ct_assets_tests.bench.stream_topic import Topic

ROOT = Path(__file__).resolve().parents[2]
LEAN = Path(__file__).parent / "purchases_5m.yaml"
WHOLE = ROOT / "ct_assets/defs/growth/shop/streams/user_activity.yaml"


@dataclass(frozen=True)
class Run:
    """Figures of one engine over one topic. ``seconds``: first message to last commit; CPU seconds by whose they are."""

    name: str
    messages: int
    seconds: float
    cpu: float
    database_cpu: float
    broker_cpu: float
    peak_mb: float
    load: float
    note: str = ""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    def line(self) -> str:
        """As the table prints it."""
        per = 1e6 / self.messages
        cpu = f"{self.cpu * per:>9.2f}{self.database_cpu * per:>7.2f}{self.broker_cpu * per:>7.2f}"
        return f"{self.name:<46}{self.messages / 1e6:>8.1f}{self.seconds:>7.0f}{self.rate / 1e6:>8.3f}{cpu}{self.peak_mb:>8.0f}{self.load:>6.1f}  {self.note}"


HEADING = f"{'':<46}{'M msgs':>8}{'s':>7}{'M/s':>8}{'CPU s/M':>9}{'db':>7}{'broker':>7}{'MB':>8}{'load':>6}"


@dataclass(frozen=True)
class How:
    """How our worker runs. ``seconds`` None: to the end of the topic."""

    reader: str
    workers: int
    definition: Path = LEAN
    seconds: float | None = None

    @property
    def name(self) -> str:
        """As the table calls it."""
        many = f"{self.workers} process{'es' if self.workers > 1 else ''}"
        return f"ours, {many}, {self.reader}, {self.definition.stem}"


@dataclass(frozen=True)
class Bench:
    """What the runs share: a broker, a PostgreSQL server, a folder."""

    broker: Broker
    server: Server
    home: Path

    def fresh_database(self) -> str:
        """The URL of a new, migrated database."""
        import psycopg

        from ct_assets.adapters.postgres.migrate import migrate

        admin = self.server.url("postgres")
        with psycopg.connect(admin, autocommit=True) as conn:
            conn.execute("drop database if exists bench with (force)")
            conn.execute("create database bench")
            conn.execute("checkpoint")
        url = admin.replace("/postgres?", "/bench?")
        migrate(url)
        return url

    def watch_servers(self) -> tuple[Watch, Watch]:
        """Follow the database and the broker."""
        postmaster = int((self.server.data / "postmaster.pid").read_text().split()[0])
        return Watch([postmaster]), Watch([self.broker.running() or 0])

    def environment(self, url: str, home: Path, reader: str) -> dict[str, str]:
        """The environment of a worker."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CT_")}
        return kept | {"CT_HOME": str(home), "CT_DATABASE_URL": url, "CT_KAFKA_READER": reader}

    def command(self, topic: Topic, definitions: list[Path], *more: str) -> list[str]:
        """`ct stream run` over the topic."""
        named = [part for path in definitions for part in ("--definition", str(path))]
        return [sys.executable, "-m", "ct_assets.cli", "stream", "run", *named, "--source", topic.url, *more]

    def run(self, topic: Topic, how: How) -> Run:
        """The topic from its beginning into a fresh database, to its end or until ``how.seconds`` have passed."""
        url, home = self.fresh_database(), Path(tempfile.mkdtemp(dir=self.home, prefix="run-"))
        command = self.command(topic, [how.definition], "--until-idle", "--json", "--no-supervise")
        watches = self.watch_servers()
        environment = self.environment(url, home, how.reader)
        with (home / "worker.log").open("wb") as log:
            processes = [
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log)
                for _ in range(how.workers)
            ]
        watch = Watch([process.pid for process in processes])
        if how.seconds is not None:
            _stop_after(how.seconds, processes, url)
        said = [process.communicate()[0] for process in processes]
        for one in (watch, *watches):
            one.stop()
        if any(process.returncode for process in processes):
            raise SystemExit(f"a worker failed:\n{(home / 'worker.log').read_text()[-2000:]}")
        summaries = [found for found in (json.loads(text.splitlines()[-1]) for text in said) if found["messages"]]
        _check(url, topic, sum(s["messages"] for s in summaries), how.seconds is None)
        begun, ended = min(s["first_message_at"] for s in summaries), max(s["last_commit_at"] for s in summaries)
        with suppress(OSError):
            shutil.rmtree(home)
        return Run(
            how.name,
            sum(s["messages"] for s in summaries),
            ended - begun,
            *(one.cpu(begun, ended) for one in (watch, *watches)),
            watch.peak_mb,
            os.getloadavg()[0],
            f"{sum(s['commits'] for s in summaries)} commits",
        )


def _stop_after(seconds: float, processes: list[subprocess.Popen], url: str) -> None:
    """SIGTERM, which commits what is in hand, so many seconds after the first commit; or the end, if that comes first."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as conn:
        while (
            all(process.poll() is None for process in processes)
            and not conn.execute("select 1 from stream.chunk").fetchone()
        ):
            time.sleep(0.1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.1)
    for process in processes:
        process.terminate()


def _check(url: str, topic: Topic, messages: int, whole: bool) -> None:
    """A rate counts only when nothing is missing: offsets as far as was read, each accepted event stored once."""
    import psycopg

    with psycopg.connect(url) as conn:
        offsets = dict(conn.execute("select partition, next_offset from stream.partition").fetchall())
        row = conn.execute("select sum(events), sum(duplicates), sum(dead) from stream.partition").fetchone()
        stored = conn.execute("select sum(rows) from stream.chunk").fetchone()
    assert row is not None
    assert stored is not None
    agreed = sum(row) == messages == sum(max(0, n) for n in offsets.values()) and row[0] == stored[0]
    if not agreed or (whole and offsets != topic.messages):
        raise SystemExit(
            f"incomplete: {messages} messages, offsets {offsets} of {topic.messages}, {row} accepted, repeats, dead; {stored}"
        )

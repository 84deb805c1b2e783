"""The live worker as an engine of the streaming cases: a real topic, a real PostgreSQL, values read online and offline.

What goes here: one case through `open_worker` (what `ct stream run` runs), in batches of a size, from a log or a Kafka
broker. What does not: the cases (``test_stream_*.py``), kills and hand-overs (``adapters/stream_worker``, the soak).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg

from ct_assets.adapters.events.port import open_sink, parse_url
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, state
from ct_assets.adapters.stream.online_reads import OnlineReads
from ct_assets.adapters.stream_worker.options import Summary
from ct_assets.adapters.stream_worker.wiring import open_worker
from ct_assets.settings import load
from ct_assets.streaming.definition import Definition
from ct_assets.streaming.windows import evaluate
from ct_assets_tests.conformance.stream_engines import BASE, Answer, Asked, Case, Sent, numbered, us

_serial = itertools.count()
LATER = BASE + 400 * 86_400 * 1_000_000  # when messages without append time are appended: history that is replayed


@dataclass
class Live:
    """An engine: ``source`` is log or kafka; ``batch`` None is all at once; ``store`` is postgresql or redis.

    ``url``, ``broker`` and ``online_url`` come from fixtures.
    """

    source: str
    batch: int | None
    store: str = "postgresql"
    url: str = ""
    broker: str = ""
    online_url: str | None = None
    summary: Summary | None = None
    stream: state.Stream | None = None

    def __call__(self, case: Case, sent: Sequence[Sent], asked: Asked, as_known: bool = False) -> Answer:
        """Send, run the worker until it is idle, read: online, and offline from what was committed."""
        definition = replace(case.definition, name=f"cases_{next(_serial)}")
        topic = self.sent(case.folder, sent)
        self.summary = self.run(definition, topic, case.folder)
        if self.summary.messages != len(sent):
            raise AssertionError(f"{self.summary.messages} messages were committed, {len(sent)} were sent")
        with connect(self.url, autocommit=True) as conn:
            self.stream = newest_stream(conn)
            table = online.ensure(conn, self.stream, definition)
            reads = OnlineReads(self.online_url)
            online_rows = [reads.read(conn, table, [user], us(at)).values[0] for user, at in asked]
            events = state.events(conn, self.stream)
            place = dict(zip(((m.partition, o) for m, o in zip(sent, numbered(sent), strict=True)), itertools.count()))
            dead = conn.execute(
                'select partition, "offset", reason from stream.dead_letter where stream_id = %s',
                (self.stream.stream_id,),
            ).fetchall()
        letters = sorted((place[partition, offset], reason) for partition, offset, reason in dead)
        offline = offline_rows(definition, events, asked, as_known)
        if not as_known and online_rows != offline:
            raise AssertionError(f"online {online_rows} and offline {offline} differ")
        return offline if as_known else online_rows, letters

    def sent(self, folder: Path, sent: Sequence[Sent]) -> str:
        """A new topic with the messages in order of arrival; its URL."""
        partitions = max((m.partition for m in sent), default=0) + 1
        name = f"live-{next(_serial)}"
        if self.source == "log":
            topic = f"log://{folder / name}"
        else:
            where = parse_url(self.broker)
            topic = f"kafka://{where.place}/{where.topic}-{name}"
        sink = open_sink(topic, partitions=partitions)
        for message in sent:
            at: dict[str, Any] = {}
            if self.source == "log":
                at = {"append_time": LATER if message.append is None else message.append}
            sink.send([message.payload], partition=message.partition, **at)
        sink.close()
        return topic

    def run(self, definition: Definition, topic: str, folder: Path) -> Summary:
        """The worker in this process, wired as the command wires it."""
        settings = load(
            {"CT_HOME": str(folder / "home"), "CT_DATABASE_URL": self.url, "CT_ONLINE_URL": self.online_url or ""}
        )
        options = {
            "message_format": "json",
            "unknown_schema": "dead-letter",
            "stall_seconds": 60.0,
            "metrics_port": 0,
            "until_idle": True,
            "max_messages": self.batch or 100_000,
        }
        worker, _, close = open_worker(settings, [definition], topic, options, lambda _: None)
        try:
            return worker.run()
        finally:
            close()


def newest_stream(conn: psycopg.Connection) -> state.Stream:
    """The stream that was opened last."""
    row = conn.execute("select max(stream_id) from stream.stream").fetchone()
    assert row is not None
    return state.find_stream(conn, row[0])


def offline_rows(definition: Definition, events: pl.DataFrame, asked: Asked, as_known: bool) -> list[dict[str, Any]]:
    """The kernel over the committed events, as a training set is made."""
    at = np.array([us(moment) for _, moment in asked], np.int64)
    users = pl.Series([user for user, _ in asked], dtype=pl.Int64)
    return evaluate(definition, events, users, at, as_known_at=at if as_known else None).to_dicts()

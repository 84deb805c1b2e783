"""Real events: otto's clicks, carts and orders, and Online Retail as a stream of orders, through the worker and the log.

The oracle reads the same lines with the standard library. Questions lie on the edges of windows of accepted events:
t (the event is not seen), t + 1 us, t + window (still seen), t + window + 1 us.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import psycopg
import pytest

from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.events.port import open_source
from ct_assets.adapters.stream import consistency, online, state
from ct_assets.adapters.stream.training_frames import Request, training_frame
from ct_assets.adapters.stream_worker.metrics import Liveness, Metrics
from ct_assets.adapters.stream_worker.options import Options, Wiring
from ct_assets.adapters.stream_worker.worker import Worker
from ct_assets.settings import load
from ct_assets.streaming import oracle
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.definition import Definition, load_definition
from ct_assets_tests.adapters.stream import worlds

QUESTIONS = 1_000
CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: real.NAME
name: NAME
version: 1.0.0
status: active
schema:
  - name: NAME
    logicalType: object
    properties:
"""
HEAD = """\
apiVersion: ct_assets/v1
kind: StreamAggregates
name: NAME
source: {contract: NAME.odcs.yaml, event_id: id, event_time: at}
entity: WHO
out_of_orderness: 10s
allowed_lateness: 60s
ttl: 400d
aggregates:
"""
OTTO = (
    """\
      - {name: id, logicalType: string, required: true}
      - {name: session, logicalType: integer, physicalType: bigint, required: true}
      - {name: at, logicalType: integer, physicalType: bigint, required: true, customProperties: [{property: unit, value: ms}]}
      - {name: type, logicalType: string, required: true, enum: [clicks, carts, orders]}
      - {name: aid, logicalType: integer, physicalType: bigint, required: true}
""",
    """\
  - {name: clicks_5m, function: count, window: 5m, where: {type: clicks}}
  - {name: carts_1h, function: count, window: 1h, where: {type: carts}}
  - {name: orders_1d, function: count, window: 1d, where: {type: orders}}
  - {name: articles_1h, function: count_distinct, column: aid, window: 1h}
  - {name: last_type, function: last, column: type, window: 5m}
""",
)
RETAIL = (
    """\
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, required: true, logicalTypeOptions: {timezone: true}}
      - {name: type, logicalType: string, required: true, enum: [purchase, cancel]}
      - {name: total, logicalType: number, physicalType: "numeric(14,3)"}
""",
    """\
  - {name: orders_5m, function: count, window: 5m, where: {type: purchase}}
  - {name: orders_1d, function: count, window: 1d, where: {type: purchase}}
  - {name: spend_1d, function: sum, column: total, window: 1d}
  - {name: largest_1d, function: max, column: total, window: 1d, where: {type: purchase}}
  - {name: average_5m, function: avg, column: total, window: 5m}
  - {name: cancels_1d, function: count, window: 1d, where: {type: cancel}}
""",
)


@dataclass
class Real:
    """A real stream: its lines, and each decoded by the standard library (time in microseconds)."""

    name: str
    who: str
    forms: tuple[str, str]
    events: list[dict[str, Any]]
    lines: list[bytes]

    def definition(self, folder: Path) -> Definition:
        (folder / f"{self.name}.odcs.yaml").write_text(CONTRACT.replace("NAME", self.name) + self.forms[0])
        path = folder / f"{self.name}.yaml"
        path.write_text(HEAD.replace("NAME", self.name).replace("WHO", self.who) + self.forms[1])
        return load_definition(path)


def otto(shared: Path) -> Real:
    found = []
    for line in (shared / "otto/train_sample.jsonl").read_text().splitlines():
        session = json.loads(line)
        found += [
            {"id": f"{session['session']}-{n}", "session": session["session"], "at": e["ts"], "type": e["type"], "aid": e["aid"]}
            for n, e in enumerate(session["events"])
        ]  # fmt: skip
    found.sort(key=lambda e: e["at"])
    lines = [json.dumps(e).encode() for e in found]
    return Real("otto", "session", OTTO, [{**e, "at": e["at"] * 1_000} for e in found], lines)


def retail(days: Iterable[Path]) -> Real:
    """One event an invoice of a known customer; the moment of its first line, the exact sum of its lines."""
    zone = ZoneInfo("Europe/London")
    orders: dict[str, dict[str, Any]] = {}
    for day in days:
        with day.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                if not row["CustomerID"] or row["InvoiceNo"].startswith("A"):
                    continue
                at = datetime.fromisoformat(row["InvoiceDate"]).replace(tzinfo=zone).astimezone(UTC)
                kind = "cancel" if row["InvoiceNo"].startswith("C") else "purchase"
                customer = row["CustomerID"].removesuffix(".0")
                order = orders.setdefault(
                    row["InvoiceNo"],
                    {"id": row["InvoiceNo"], "customer": customer, "at": at, "type": kind, "total": Decimal(0)},
                )
                order["at"] = min(order["at"], at)
                order["total"] += Decimal(row["Quantity"]) * Decimal(row["UnitPrice"])
    found = sorted(orders.values(), key=lambda o: o["at"])
    for order in found:
        order["total"] = order["total"].quantize(Decimal("0.001"))
    lines = [json.dumps({**o, "at": o["at"].isoformat(), "total": str(o["total"])}).encode() for o in found]
    return Real("retail", "customer", RETAIL, [{**o, "at": int(o["at"].timestamp()) * 1_000_000} for o in found], lines)


def streamed(
    url: str, folder: Path, real: Real, definition: Definition, conn: psycopg.Connection
) -> online.OnlineTable:
    """The lines through a log of three partitions and the worker (without housekeeping: questions lie months back)."""
    sink = LogSink(str(folder / "topic"), 3)
    spread: dict[int, list[int]] = defaultdict(list)
    for n, event in enumerate(real.events):
        spread[str(event[real.who]).encode()[-1] % 3].append(n)
    append = datetime(2012, 1, 1, tzinfo=UTC) if real.name == "retail" else datetime(2023, 1, 1, tzinfo=UTC)
    for partition, numbers in sorted(spread.items()):
        sink.send(
            [real.lines[n] for n in numbers],
            partition=partition,
            append_time=[int(append.timestamp() * 1e6)] * len(numbers),
        )
    sink.close()
    source_url, settings = f"log://{folder}/topic", load()
    source = open_source(source_url, settings)
    stream = state.open_stream(conn, definition.schema.name, definition.acceptance, source.identity())
    source.close()
    table = online.ensure(conn, stream, definition)
    wiring = Wiring(
        url=url,
        open_source=lambda: open_source(source_url, settings),
        stream=stream,
        acceptance=definition.acceptance,
        tables=[table],
        decoder=JsonDecoder(definition.schema, definition.acceptance),
        metrics=Metrics(stream.name, Liveness(60)),
        say=lambda _: None,
    )
    summary = Worker(wiring, Options(group="real", owner="w", max_messages=997, until_idle=True)).run()
    assert (summary.messages, summary.events) == (len(real.lines), len(real.lines))
    return table


def questions(real: Real, definition: Definition) -> list[tuple[Any, int]]:
    rng = random.Random(4)
    windows = sorted({a.window_us for a in definition.aggregates})
    asked = []
    for n in range(QUESTIONS):
        event = rng.choice(real.events)
        window = windows[n // 4 % len(windows)]
        asked.append((event[real.who], event["at"] + (0, 1, window, window + 1)[n % 4]))
    return asked


@pytest.mark.parametrize("name", ["otto", "retail"])
def test_values_at_the_edges_of_real_events_equal_the_oracle(
    name: str, shared_data: Path, request: pytest.FixtureRequest, tmp_path: Path, pg_url: str, conn: psycopg.Connection
) -> None:
    real = otto(shared_data) if name == "otto" else retail(request.getfixturevalue("real_days"))
    definition = real.definition(tmp_path)
    started = time.monotonic()
    table = streamed(pg_url, tmp_path, real, definition, conn)
    seconds = time.monotonic() - started
    own: dict[Any, list[oracle.Event]] = defaultdict(list)
    for n, event in enumerate(real.events):  # all of an entity lie in one partition, in this order
        own[event[real.who]].append(oracle.Event(event, event["at"], 0, n, 0))
    asked = questions(real, definition)
    expected = [oracle.value(definition, own[who], who, at) for who, at in asked]
    for (who, at), want in zip(asked, expected, strict=True):
        found = online.read(conn, table, [who], at)
        assert worlds.shown(found.values[0]) == want, (who, at)
        assert consistency.keep_reads(conn, table, [who], at, found) == 1
    labels = pl.DataFrame({real.who: [who for who, _ in asked], "at": [at for _, at in asked]})
    offline = training_frame(conn, table, labels, Request("corrected")).drop("at", real.who).to_dicts()
    assert offline == expected
    report = consistency.recompute(conn, None, table, 0)
    values = QUESTIONS * len(definition.aggregates)
    assert (report.reads, report.values, report.mismatches) == (QUESTIONS, values, 0)
    non_zero = sum(any(v for v in want.values()) for want in expected)
    assert non_zero >= QUESTIONS / 2
    sys.stderr.write(
        f"{name}: {len(real.events)} real events in {seconds:.1f} s, {QUESTIONS} (user, time) on the edges equal the oracle"
        f" online and offline, {non_zero} non-zero, determinism {report.mismatches} of {report.values} values differ\n"
    )

"""The engines that the streaming cases run on: the oracle, the kernel, and ``ct stream compute``.

What goes here: one way to say a case (events at mm:ss, questions, expected values) and to ask each engine. What does
not: the cases (``test_stream_*.py``).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ct_assets.streaming import oracle
from ct_assets.streaming.accept import Acceptor
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.definition import Definition, load_definition
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.windows import evaluate

SECOND = 1_000_000
BASE = 1_767_225_600 * SECOND  # 2026-01-01T00:00:00Z: the times of the cases count from here
BATCHES = (1, 7, 1_000, None)  # None: all at once
CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: case-events
name: case_events
version: 1.0.0
status: active
schema:
  - name: case_events
    logicalType: object
    properties:
      - {name: event_id, logicalType: string, required: true}
      - {name: user_id, logicalType: integer, required: true}
      - {name: event_time, logicalType: timestamp, required: true, logicalTypeOptions: {timezone: true}}
      - {name: event_type, logicalType: string}
      - {name: amount, logicalType: number, physicalType: "numeric(12,2)"}
      - {name: real, logicalType: number}
"""
HEAD = """apiVersion: ct_assets/v1
kind: StreamAggregates
name: cases
source: {contract: cases.odcs.yaml, event_id: event_id, event_time: event_time}
entity: user_id
out_of_orderness: 10s
allowed_lateness: 60s
idle_timeout: 30s
max_future_skew: 5m
ttl: 30d
"""


def us(text: str | int) -> int:
    """``05:00.001`` (mm:ss from the beginning of 2026) in microseconds; a number is already that."""
    if isinstance(text, int):
        return text
    minutes, seconds = text.split(":")
    return BASE + int(minutes) * 60 * SECOND + int(Decimal(seconds) * SECOND)


def iso(moment: int) -> str:
    """Microseconds as ISO 8601."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).isoformat()


@dataclass(frozen=True)
class Sent:
    """One message: fields of an event (``t`` its time), or raw bytes with the reason the oracle is told."""

    fields: dict[str, Any] | None = None
    raw: bytes | None = None
    reason: str | None = None
    partition: int = 0
    append: int | None = None

    @property
    def payload(self) -> bytes | None:
        if self.fields is None:
            return self.raw
        shown = {**self.fields, "event_time": iso(self.fields["event_time"])}
        return json.dumps(shown, default=float).encode()


_serial = iter(range(10**9))


def event(at: str | int, user: int = 1, **more: Any) -> Sent:
    """A purchase at a time; ``event_id`` is new unless given, ``partition`` and ``append`` as given."""
    place = {"partition": more.pop("partition", 0), "append": more.pop("append", None)}
    fields = {
        "event_id": f"e{next(_serial)}",
        "user_id": user,
        "event_time": us(at),
        "event_type": "purchase",
        "amount": None,
        "real": None,
    }
    fields |= more
    if fields["amount"] is not None:
        fields["amount"] = Decimal(str(fields["amount"])).quantize(Decimal("0.01"))
    return Sent(fields, **place)


def broken(raw: bytes | None, reason: str | None) -> Sent:
    """A message that is no event."""
    return Sent(None, raw, reason)


@dataclass
class Case:
    """A definition, messages in order of arrival, questions."""

    folder: Path
    aggregates: str = "  - {name: n, function: count, window: 5m}\n"
    head: str = HEAD
    contract: str = CONTRACT

    def __post_init__(self) -> None:
        (self.folder / "cases.odcs.yaml").write_text(self.contract)
        self.path = self.folder / "cases.yaml"
        self.path.write_text(self.head + "aggregates:\n" + self.aggregates)
        self.definition = load_definition(self.path)


Asked = Sequence[tuple[int, str | int]]
Answer = tuple[list[dict[str, Any]], list[tuple[int, str]]]


def numbered(sent: Sequence[Sent]) -> list[int]:
    """Offsets: messages of a partition are numbered from 0."""
    counts: dict[int, int] = {}
    found = []
    for message in sent:
        found.append(counts.get(message.partition, 0))
        counts[message.partition] = found[-1] + 1
    return found


def by_oracle(case: Case, sent: Sequence[Sent], asked: Asked, as_known: bool = False) -> Answer:
    """Plain Python, the specification."""
    told = [
        oracle.Message(m.fields if m.fields is not None else m.reason, m.partition, offset, m.append)
        for m, offset in zip(sent, numbered(sent), strict=True)
    ]
    accepted, dead, _ = oracle.accept(told, case.definition.acceptance)
    known = [us(at) if as_known else None for _, at in asked]
    rows = [oracle.value(case.definition, accepted, u, us(at), k) for (u, at), k in zip(asked, known, strict=True)]
    return rows, dead


def judged(
    definition: Definition, sent: Sequence[Sent], batch: int | None
) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    """Decoded and accepted in batches of that size."""
    messages = Messages.from_values(
        [m.payload for m in sent],
        [m.partition for m in sent],
        numbered(sent),
        [-1 if m.append is None else m.append for m in sent],
    )
    decoder, acceptor = (
        JsonDecoder(definition.schema, definition.acceptance, scan_from=1),
        Acceptor(definition.acceptance),
    )
    frames, dead = [], []
    for begin in range(0, len(messages), batch or len(messages)):
        part = messages.slice(begin, min(begin + (batch or len(messages)), len(messages)))
        found = acceptor.accept(decoder.decode(part), part)
        frames.append(found.events)
        dead += [(begin + letter.index, letter.reason) for letter in found.dead]
    return pl.concat(frames), dead


def by_kernel(batch: int | None) -> Callable[..., Answer]:
    """Decoder, acceptor and window kernel, in batches of that size."""

    def ask(case: Case, sent: Sequence[Sent], asked: Asked, as_known: bool = False) -> Answer:
        events, dead = judged(case.definition, sent, batch)
        at = np.array([us(moment) for _, moment in asked], np.int64)
        users = pl.Series([user for user, _ in asked], dtype=pl.Int64)
        values = evaluate(case.definition, events, users, at, as_known_at=at if as_known else None)
        return values.to_dicts(), dead

    return ask


def by_compute(batch: int | None) -> Callable[..., Answer]:
    """The command, on files: one partition, no append times."""

    def ask(case: Case, sent: Sequence[Sent], asked: Asked, as_known: bool = False) -> Answer:
        from click.testing import CliRunner

        from ct_assets.cli.stream_compute import compute

        assert all(m.append is None and m.partition == 0 for m in sent), "a file has one partition and no append times"
        folder = case.folder
        (folder / "events.jsonl").write_bytes(b"".join((m.payload or b"") + b"\n" for m in sent))
        with (folder / "queries.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["user_id", "at"], *((user, iso(us(at))) for user, at in asked)])
        out, dead = folder / "out.parquet", folder / "dead.jsonl"
        options = ["--definition", str(case.path), "--events", str(folder / "events.jsonl")]
        options += ["--queries", str(folder / "queries.csv"), "--out", str(out), "--dead-letters", str(dead)]
        options += ["--batch-size", str(batch)] if batch else []
        options += ["--as-known"] if as_known else []
        done = CliRunner().invoke(compute, options, catch_exceptions=False)
        letters = [json.loads(line) for line in dead.read_text().splitlines()]
        assert done.exit_code == int(bool(sent) and len(letters) == len(sent)), done.output
        names = [a.name for a in case.definition.aggregates]
        return pl.read_parquet(out).select(names).to_dicts(), [(x["line"] - 1, x["reason"]) for x in letters]

    return ask


KERNELS = {f"kernel-{size or 'all'}": by_kernel(size) for size in BATCHES}
EVERYWHERE: dict[str, Callable[..., Answer]] = {
    "oracle": by_oracle,
    **KERNELS,
    **{f"compute-{size or 'all'}": by_compute(size) for size in BATCHES},
}
WITHOUT_FILES = {"oracle": by_oracle, **KERNELS}


def with_partition(message: Sent, partition: int) -> Sent:
    """The same message in another partition."""
    return replace(message, partition=partition)

"""Small worlds of accepted events: a definition with every function, seeded events, and the oracle's values.

What goes here: what several tests of the stores need. What does not: assertions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg

from ct_assets.adapters.events.port import SourceIdentity
from ct_assets.adapters.stream import state
from ct_assets.adapters.stream.redis_sync import Twin
from ct_assets.streaming.definition import Definition, load_definition
from ct_assets.streaming.oracle import Event, value

START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
S, M, H = 1_000_000, 60_000_000, 3_600_000_000
DAY = 24 * H

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: t
name: t
version: 1.2.0
status: active
schema:
  - name: visits
    logicalType: object
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: who, logicalType: WHO, required: true}
      - {name: at_time, logicalType: timestamp, required: true, logicalTypeOptions: {timezone: true}}
      - {name: kind, logicalType: string}
      - {name: paid, logicalType: number, physicalType: "numeric(12,2)"}
      - {name: huge, logicalType: number, physicalType: "numeric(30,4)"}
      - {name: vast, logicalType: number, physicalType: "numeric(38,4)"}
      - {name: ratio, logicalType: number, physicalType: double}
      - {name: items, logicalType: integer, physicalType: bigint}
      - {name: day, logicalType: date}
      - {name: flag, logicalType: boolean}
"""
HEAD = """\
apiVersion: ct_assets/v1
kind: StreamAggregates
name: NAME
source: {contract: c.odcs.yaml, event_id: id, event_time: at_time}
entity: who
out_of_orderness: 10s
allowed_lateness: 60s
idle_timeout: 30s
max_future_skew: 5m
ttl: 30d
"""
# every aggregate of these can be merged from summaries
SUMMARISED = """\
  - {name: n, function: count, window: 5m}
  - {name: n_a, function: count, window: 5m, where: {kind: a}}
  - {name: n_ab, function: count, window: 1h, where: {kind: [a, b], flag: true}}
  - {name: k_paid, function: count, column: paid, window: 5m}
  - {name: s_paid, function: sum, column: paid, window: 5m, where: {kind: a}}
  - {name: s_paid_1h, function: sum, column: paid, window: 1h}
  - {name: a_paid, function: avg, column: paid, window: 1h}
  - {name: v_paid, function: var, column: paid, window: 20m}
  - {name: d_paid, function: std, column: paid, window: 20m}
  - {name: lo_paid, function: min, column: paid, window: 5m, where: {kind: [b, a]}}
  - {name: hi_paid, function: max, column: paid, window: 1h}
  - {name: s_huge, function: sum, column: huge, window: 1h}
  - {name: a_huge, function: avg, column: huge, window: 1h}
  - {name: lo_huge, function: min, column: huge, window: 5m}
  - {name: s_items, function: sum, column: items, window: 1h}
  - {name: a_items, function: avg, column: items, window: 5m}
  - {name: hi_items, function: max, column: items, window: 5m}
  - {name: hi_ratio, function: max, column: ratio, window: 5m}
  - {name: lo_day, function: min, column: day, window: 1h}
  - {name: hi_time, function: max, column: at_time, window: 1h}
  - {name: n_saw, function: count, window: 10m, mode: sawtooth, hop: 1m}
"""
UNPACKED = """\
  - {name: n, function: count, window: 5m}
  - {name: k_text, function: count, column: kind, window: 1h}
  - {name: first_kind, function: first, column: kind, window: 1h}
  - {name: last_kind, function: last, column: kind, window: 5m}
  - {name: last_paid, function: last, column: paid, window: 5m, where: {flag: true}}
  - {name: first_huge, function: first, column: huge, window: 1h}
  - {name: last_flag, function: last, column: flag, window: 1h}
  - {name: first_day, function: first, column: day, window: 1h}
  - {name: u_kind, function: count_distinct, column: kind, window: 1h}
  - {name: u_paid, function: count_distinct, column: paid, window: 5m}
  - {name: u_huge, function: count_distinct, column: huge, window: 1h}
  - {name: s_ratio, function: sum, column: ratio, window: 1h}
  - {name: a_ratio, function: avg, column: ratio, window: 5m}
  - {name: v_ratio, function: var, column: ratio, window: 1h}
  - {name: d_ratio, function: std, column: ratio, window: 20m}
  - {name: lo_ratio, function: min, column: ratio, window: 5m}
  - {name: v_items, function: var, column: items, window: 1h}
  - {name: v_huge, function: var, column: huge, window: 1h}
  - {name: s_paid, function: sum, column: paid, window: 5m}
  - {name: a_paid, function: avg, column: paid, window: 5m, where: {kind: a}}
  - {name: hi_paid, function: max, column: paid, window: 5m}
  - {name: last_saw, function: last, column: items, window: 10m, mode: sawtooth, hop: 1m}
"""
COLUMNS: dict[str, Any] = {
    "id": pl.String,
    "who": pl.Int64,
    "at_time": pl.Datetime("us", "UTC"),
    "kind": pl.String,
    "paid": pl.Decimal(12, 2),
    "huge": pl.Decimal(30, 4),
    "vast": pl.Decimal(38, 4),
    "ratio": pl.Float64,
    "items": pl.Int64,
    "day": pl.Date,
    "flag": pl.Boolean,
}
PLACES: dict[str, Any] = {"_partition": pl.Int32, "_offset": pl.Int64, "_append_time": pl.Int64, "_known_at": pl.Int64}


def definition(
    folder: Path, aggregates: str = SUMMARISED, name: str = "visits", more: str = "", who: str = "integer"
) -> Definition:
    """A definition over the contract above, written to ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / "c.odcs.yaml").write_text(CONTRACT.replace("WHO", who))
    path = folder / f"{name}.yaml"
    path.write_text(HEAD.replace("NAME", name) + more + "aggregates:\n" + aggregates)
    return load_definition(path)


@dataclass(frozen=True)
class Given:
    """An accepted event in few words; ``t`` in microseconds after START."""

    who: Any
    t: int
    kind: str | None = "a"
    paid: Decimal | None = None
    huge: Decimal | None = None
    ratio: float | None = None
    items: int | None = None
    flag: bool | None = None
    partition: int = 0
    vast: Decimal | None = None

    def values(self, number: int) -> dict[str, Any]:
        """The event as decoded, for the oracle (the time as microseconds)."""
        return {
            "id": f"e{number}",
            "who": self.who,
            "at_time": START + self.t,
            "kind": self.kind,
            "paid": self.paid,
            "huge": self.huge,
            "vast": self.vast,
            "ratio": self.ratio,
            "items": self.items,
            "day": date(2026, 1, 1) + timedelta(days=self.t // M % 7),
            "flag": self.flag,
        }


def accepted(given: Sequence[Given], first_offset: int = 0) -> list[Event]:
    """As the oracle knows them; offsets ascend within a partition, known one second after."""
    after: dict[int, int] = {}
    found = []
    for number, g in enumerate(given):
        offset = after.get(g.partition, first_offset)
        after[g.partition] = offset + 1
        known = START + g.t + S
        found.append(Event(g.values(number + first_offset * 1000), START + g.t, g.partition, offset, known))
    return found


def frame(events: Sequence[Event]) -> pl.DataFrame:
    """As ``Acceptor.accept`` gives them."""
    rows = [(*[e.values[name] for name in COLUMNS], e.partition, e.offset, e.known_at - S, e.known_at) for e in events]
    schema = {**COLUMNS, "at_time": pl.Int64, **PLACES}
    if rows and isinstance(rows[0][1], str):
        schema["who"] = pl.String
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("at_time").cast(COLUMNS["at_time"]))


def identity(topic: str = "visits") -> SourceIdentity:
    """A topic."""
    return SourceIdentity("log", "cluster", topic, f"id-of-{topic}", True)


class Writer:
    """A worker without a broker: claims partitions and commits accepted events, in batches of any size."""

    def __init__(
        self, conn: psycopg.Connection, stream: state.Stream, tables: Sequence[Any], owner: str = "w1"
    ) -> None:
        self.conn, self.stream, self.tables, self.owner = conn, stream, tables, owner
        self.epoch: dict[int, int] = {}
        self.next: dict[int, int] = {}
        self.twin: Twin | None = None  # the copy in Redis, when the test is about that store

    def take(self, partitions: Sequence[int]) -> dict[int, state.Claim]:
        """Claim."""
        claims = state.claim(self.conn, self.stream, partitions, self.owner)
        for p, c in claims.items():
            self.epoch[p], self.next[p] = c.epoch, c.next_offset
        return claims

    def commit(self, events: Sequence[Event], **more: Any) -> int:
        """One commit of these events."""
        self.take([e.partition for e in events if e.partition not in self.epoch])
        progress = []
        for p in sorted({e.partition for e in events}):
            mine = [e for e in events if e.partition == p]
            progress.append(
                state.PartitionProgress(
                    partition=p,
                    epoch=self.epoch[p],
                    expected_offset=self.next[p],
                    next_offset=max(e.offset for e in mine) + 1,
                    top=max(e.time for e in mine),
                    frontier=max(e.time for e in mine),
                    last_append=max(e.known_at - S for e in mine),
                )
            )
        done = state.commit(
            self.conn, self.stream, progress=progress, events=frame(events), definitions=self.tables, **more
        )
        if self.twin is not None:
            self.twin.committed(self.conn, progress, frame(events))
        self.next |= {p.partition: p.next_offset for p in progress}
        return done


def expected(d: Definition, events: Sequence[Event], entity: Any, at: int, known: int | None = None) -> dict[str, Any]:
    """The oracle's values at a moment."""
    return value(d, events, entity, at, known)


def shown(values: dict[str, Any]) -> dict[str, Any]:
    """Values as read, in the oracle's form: a time in microseconds."""
    from datetime import datetime

    return {name: round(v.timestamp() * 1e6) if isinstance(v, datetime) else v for name, v in values.items()}

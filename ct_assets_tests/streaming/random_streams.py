"""Random streams whose truth is known by construction, and their comparison with the oracle.

What goes here: one generator for the property tests, the soak and the batch-size tests. What does not: assertions of
single cases (``conformance``).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl

from ct_assets.streaming import oracle
from ct_assets.streaming.accept import Acceptor
from ct_assets.streaming.decode import JsonDecoder
from ct_assets.streaming.definition import FUNCTIONS, Aggregate, Definition, load_definition
from ct_assets.streaming.messages import ABSENT, Messages
from ct_assets.streaming.windows import evaluate

SECOND = 1_000_000
BASE = 1_767_225_600 * SECOND  # 2026-01-01T00:00:00Z
KINDS = ["click", "purchase", "refund"]
CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: random-events
name: random_events
version: 1.0.0
status: active
schema:
  - name: random_events
    logicalType: object
    properties:
      - {name: event_id, logicalType: string, required: true}
      - {name: user_id, logicalType: ENTITY, required: true}
      - {name: event_time, logicalType: timestamp, required: true, logicalTypeOptions: {timezone: true}}
      - {name: kind, logicalType: string, required: true, enum: [click, purchase, refund]}
      - {name: amount, logicalType: number, physicalType: "numeric(12,2)"}
      - {name: big, logicalType: number, physicalType: "numeric(30,3)"}
      - {name: units, logicalType: integer}
      - {name: score, logicalType: number}
      - {name: note, logicalType: string}
      - {name: day, logicalType: date}
"""
DEFINITION = """apiVersion: ct_assets/v1
kind: StreamAggregates
name: random_activity
source: {contract: random.odcs.yaml, event_id: event_id, event_time: event_time}
entity: user_id
out_of_orderness: 10s
allowed_lateness: 60s
ttl: 30d
aggregates:
  - {name: n, function: count, window: 5m}
"""
FITTING = {name: ["amount", "big", "units", "score"] for name in ("sum", "avg", "var", "std")}
FITTING |= {name: ["amount", "big", "units", "score", "day"] for name in ("min", "max")}
FITTING |= {name: ["amount", "units", "score", "note", "day"] for name in ("first", "last", "count_distinct", "count")}


@lru_cache(maxsize=2)
def base_definition(entity: str = "integer") -> Definition:
    """The definition that every random one varies; the entity is an integer or a string."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "random.odcs.yaml").write_text(CONTRACT.replace("ENTITY", entity))
        path = Path(folder) / "random.yaml"
        path.write_text(DEFINITION)
        return load_definition(path)


def random_aggregate(rng: Random, number: int) -> Aggregate:
    """Any function over any column that fits, any filter, both modes."""
    function = rng.choice(FUNCTIONS)
    column = None if function == "count" and rng.random() < 0.6 else rng.choice(FITTING[function])
    hop = rng.choice([1, 2, 5]) * SECOND
    window = hop * rng.choice([1, 2, 6, 60])
    sawtooth = rng.random() < 0.3
    kinds = tuple(sorted(rng.sample(KINDS, rng.choice([1, 2]))))
    return Aggregate(
        f"a{number}_{function}",
        function,
        column,
        window,
        (("kind", kinds),) if rng.random() < 0.5 else (),
        "sawtooth" if sawtooth else "exact",
        hop if sawtooth else None,
    )


def random_definition(rng: Random) -> Definition:
    """Short horizons, so that a stream of some dozen events meets every edge."""
    base = base_definition(rng.choice(["integer", "string"]))
    disorder, lateness = rng.choice([0, 2, 10]) * SECOND, rng.choice([0, 3, 60]) * SECOND
    acceptance = replace(
        base.acceptance,
        out_of_orderness_us=disorder,
        allowed_lateness_us=lateness,
        max_future_skew_us=rng.choice([0, 5, 300]) * SECOND,
        dedup_horizon_us=disorder + lateness + rng.choice([0, 5, 3600]) * SECOND,
    )
    aggregates = tuple(random_aggregate(rng, n) for n in range(rng.randint(1, 6)))
    return replace(base, acceptance=acceptance, aggregates=aggregates)


@dataclass
class Stream:
    """Payloads in order of arrival with what each one is (the oracle's view)."""

    definition: Definition
    payloads: list[bytes | None]
    truth: list[oracle.Message]

    @property
    def messages(self) -> Messages:
        """The same as one batch."""
        return Messages.from_values(
            self.payloads,
            [m.partition for m in self.truth],
            [m.offset for m in self.truth],
            [-1 if m.append is None else m.append for m in self.truth],
        )


def iso(us: int, rng: Random | None = None) -> str:
    """The moment as ISO 8601, in one of several written forms of the same instant."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    form = rng.choice(["Z", "+00:00", "offset", "short"]) if rng else "Z"
    if form == "offset":
        shifted = moment + timedelta(hours=5, minutes=30)
        return shifted.strftime("%Y-%m-%dT%H:%M:%S.%f") + "+05:30"
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f")
    if form == "short":
        return text.rstrip("0").rstrip(".") + "Z"
    return text + ("+00:00" if form == "+00:00" else "Z")


def random_event(rng: Random, number: int, time: int, integers: bool) -> dict[str, Any]:
    """Typed values as the oracle has them."""
    user = rng.randint(1, 3) if rng.random() < 0.9 else 9_007_199_254_740_993
    maybe = lambda value: None if rng.random() < 0.15 else value  # noqa: E731
    return {
        "event_id": f"e{number}",
        "user_id": user if integers else f"u{user}",
        "event_time": time,
        "kind": rng.choice(KINDS),
        "amount": maybe(Decimal(rng.randint(-9_999, 99_999)).scaleb(-2)),
        "big": maybe(Decimal(rng.choice([1, -1]) * rng.randint(10**25, 10**27)).scaleb(-3)),
        "units": maybe(rng.choice([rng.randint(-5, 5), 2**61 // 1000 + rng.randint(0, 9)])),
        "score": maybe(rng.choice([1e16, 1.0, -1e16, 0.1, 0.25, rng.uniform(-5, 5)])),
        "note": maybe(rng.choice(["a", "b", 'quote " and \\ back', "é\u2028\U0001f600", ""])),
        "day": maybe(datetime(2026, 1, rng.randint(1, 28), tzinfo=UTC).date()),
    }


def payload(event: dict[str, Any], rng: Random | None = None) -> bytes:
    """The event as JSON; with ``rng`` in one of several layouts (spaces, order, unknown keys, absent nulls)."""
    shown = {k: v for k, v in event.items() if v is not None or rng is None or rng.random() < 0.7}
    shown["event_time"] = iso(event["event_time"], rng)
    if rng and rng.random() < 0.2:
        items = list(shown.items())
        rng.shuffle(items)
        shown = {**dict(items), "extra": {"x": [1, "}"]}}
    separators = rng.choice([(",", ":"), (", ", ": ")]) if rng else (",", ":")
    fields = (json.dumps(k) + separators[1] + _json(v, rng) for k, v in shown.items())
    return ("{" + separators[0].join(fields) + "}").encode()


def _json(value: Any, rng: Random | None) -> str:
    if isinstance(value, Decimal):
        return f'"{value}"' if rng and rng.random() < 0.2 else str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=rng is not None and rng.random() < 0.5)
    return json.dumps(value, default=str)


def random_stream(rng: Random, size: int = 40) -> Stream:
    """Disorder, repeats, conflicts, clocks ahead, nulls, broken messages, several partitions, all three append times."""
    definition = random_definition(rng)
    integers = definition.schema.column("user_id").type == "integer"
    stream = Stream(definition, [], [])
    live, partitions, clock = rng.choice(["live", "none", "backfill"]), rng.choice([1, 1, 3]), BASE
    offsets = dict.fromkeys(range(partitions), 0)
    past: list[tuple[dict[str, Any], int]] = []
    for number in range(rng.randint(1, size)):
        clock += rng.choice([0, 1, 1_000, SECOND // 2, SECOND, 3 * SECOND, 20 * SECOND])
        time = clock - (
            rng.choice([1, 2, 10, 13, 70, 71]) * SECOND + rng.choice([-1, 0, 1]) if rng.random() < 0.3 else 0
        )
        time += rng.choice([1, 200, 400]) * SECOND if rng.random() < 0.05 else 0
        partition = rng.randrange(partitions)
        event: dict[str, Any] | str | None = random_event(rng, number, time, integers)
        raw: bytes | None
        if past and rng.random() < 0.2:
            again, partition = rng.choice(past)
            event = (
                dict(again)
                if rng.random() < 0.5
                else {**random_event(rng, number, time, integers), "event_id": again["event_id"]}
            )
        raw = payload(event, rng)
        if rng.random() < 0.1:
            raw, event = broken(rng, event)
        append = {
            "live": clock + rng.choice([0, 1, SECOND]),
            "none": None,
            "backfill": clock + rng.choice([601, 86_400]) * SECOND,
        }[live]
        stream.payloads.append(raw)
        stream.truth.append(oracle.Message(event, partition, offsets[partition], append))
        offsets[partition] += rng.choice([1, 1, 1, 5])
        if isinstance(event, dict):
            past.append((event, partition))
    return stream


def broken(rng: Random, event: dict[str, Any]) -> tuple[bytes | None, str | None]:
    """A message that is no event, and why."""
    good = json.loads(payload(event))
    bad = {
        "poison": [b"\xff{", b"[1]", payload(event)[:-1], b"", b"{} {}", b'{"a": NaN}', payload(event) + b"\n{}"],
        "null_key": [{**good, "user_id": None}, {k: v for k, v in good.items() if k != "user_id"}],
        "timestamp_out_of_range": [
            {**good, "event_time": t} for t in ("1970-01-21T10:53:45.600Z", "2100-01-01T00:00:00Z")
        ],
        "contract": [
            {**good, "event_time": None},
            {**good, "event_time": "2026-01-01T00:00:00"},
            {**good, "event_time": "2026-02-30T00:00:00Z"},
            {**good, "event_time": 1_767_225_600},
            {**good, "user_id": "42" if isinstance(good["user_id"], int) else 42},
            {**good, "kind": "other"},
            {**good, "amount": 1.234},
            {**good, "amount": "1,2"},
            {**good, "units": 1.0},
            {**good, "units": "1"},
            {**good, "units": 2**63},
            {**good, "units": True},
            {**good, "score": "1"},
            {**good, "note": 1},
            {**good, "note": "a\x00b"},
            {**good, "day": "2026-13-01"},
            {**good, "event_id": None},
        ],
    }
    if rng.random() < 0.15:
        return None, None
    reason = rng.choice(list(bad))
    found = rng.choice(bad[reason])
    return (found if isinstance(found, bytes) else json.dumps(found).encode()), reason


def run(stream: Stream, cuts: list[int], scan_from: int = 2) -> tuple[pl.DataFrame, list[tuple[int, str]], int]:
    """Decode and accept in batches that begin at ``cuts``: (events, dead letters, repeats)."""
    decoder = JsonDecoder(stream.definition.schema, stream.definition.acceptance, scan_from=scan_from)
    acceptor = Acceptor(stream.definition.acceptance)
    whole = stream.messages
    frames, dead, duplicates = [], [], 0
    edges = [0, *sorted(cuts), len(whole)]
    for begin, end in pairwise(edges):
        part = whole.slice(begin, end)
        found = acceptor.accept(decoder.decode(part), part)
        frames.append(found.events)
        dead += [(begin + letter.index, letter.reason) for letter in found.dead]
        duplicates += sum(found.duplicates.values())
    return pl.concat(frames), dead, duplicates


def check_stream(stream: Stream, rng: Random) -> None:
    """Acceptance and every value equal the oracle's; raises AssertionError otherwise."""
    accepted, dead, duplicates = oracle.accept(stream.truth, stream.definition.acceptance)
    cuts = sorted(rng.sample(range(len(stream.payloads) + 1), min(rng.choice([0, 1, 5]), len(stream.payloads))))
    events, found_dead, found_duplicates = run(stream, cuts, rng.choice([1, 1_000_000]))
    assert found_dead == dead
    assert found_duplicates == duplicates
    got = list(events.select("_partition", "_offset", "_known_at").iter_rows())
    assert got == [(e.partition, e.offset, e.known_at) for e in accepted]
    names = [c.name for c in stream.definition.schema.columns if c.name != "event_time"]
    assert list(events.select(names).iter_rows(named=True)) == [{n: e.values[n] for n in names} for e in accepted]
    assert events["event_time"].to_physical().to_list() == [e.time for e in accepted]
    check_values(stream.definition, events, accepted, rng)


def check_values(definition: Definition, events: pl.DataFrame, accepted: list[oracle.Event], rng: Random) -> None:
    """Corrected and as-known values at the edges of windows equal the oracle's."""
    entities = [e.values["user_id"] for e in accepted] or [None]
    unknown = 777 if definition.schema.column("user_id").type == "integer" else "nobody"
    windows = [a.window_us for a in definition.aggregates]
    asked = []
    for _ in range(12):
        at = (
            (rng.choice(accepted).time if accepted else BASE)
            + rng.choice([0, *windows])
            + rng.choice([0, 1, 2 * SECOND])
        )
        asked.append(
            (
                rng.choice([*entities[-3:], *entities, unknown]) or unknown,
                at,
                at + rng.choice([0, 0, 0, SECOND, -5 * SECOND, 10**9]),
            )
        )
    shuffled = events[rng.sample(range(events.height), events.height)] if events.height else events
    users = pl.Series([user for user, _, _ in asked], dtype=events.schema["user_id"])
    at, known = (np.array([row[i] for row in asked], np.int64) for i in (1, 2))
    for as_known in (None, known):
        values = evaluate(definition, shuffled, users, at, as_known_at=as_known)
        want = [
            oracle.value(definition, accepted, user, moment, None if as_known is None else limit)
            for user, moment, limit in asked
        ]
        got = values.to_dicts()
        assert got == want, (as_known is not None, [x for x in zip(asked, got, want, strict=True) if x[1] != x[2]])


def apart(values: list[bytes | None], between: bytes) -> Messages:
    """The payloads with foreign bytes before, between and behind them; a tombstone stands where the last one began."""
    data, start = between, []
    for value in values:
        start.append(len(data))
        data += b"" if value is None else value + between
    length = np.array([ABSENT if value is None else len(value) for value in values], np.int64)
    n = len(values)
    times = np.arange(n, dtype=np.int64) * 7
    return Messages(
        data, np.array(start, np.int64), length, np.arange(n, dtype=np.int32) % 3, np.arange(n), times, packed=False
    )

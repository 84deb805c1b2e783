"""A topic full of seeded shop events, made and written in bulk: the input of the stream bench.

What goes here: the events as bytes, writing them to a broker, how many there are. What does not: reading them.

115 bytes an event, 115 events a second of event time (10 M a day) of a million users (a flat zipf, the hottest has 1 %), 3 % purchases,
2 % late by up to a minute, 0.5 % delivered again up to a minute later, in the partition of the first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from ct_assets.adapters.events.kafka_sink import KafkaSink
from ct_assets.settings import KafkaSettings

CHUNK = 1_000_000
PARTITIONS = 2
USERS = 1_000_000
SPACING_US = 8_640  # 10 M events a day
MINUTE_US = 60_000_000
BEGIN = np.datetime64("2026-01-01T00:00:00", "us").astype(np.int64)


def chunks(events: int, seed: int = 7) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Payloads of each partition, about a million events at a time, in order of arrival. The same arguments, the same bytes."""
    weights = np.cumsum((np.arange(USERS) + 10.0) ** -1.05)
    names = np.random.default_rng(99).permutation(USERS)
    for number, first in enumerate(range(0, events, CHUNK)):
        rng = np.random.default_rng([seed, number])
        count = min(CHUNK, events - first)
        id_ = np.arange(first, first + count)
        time_ = id_ * SPACING_US + rng.integers(0, SPACING_US, count)
        user = names[np.searchsorted(weights, rng.random(count) * weights[-1])]
        kind = np.where(rng.random(count) < 0.03, 2, (rng.random(count) < 0.2).astype(np.int64))
        cents = rng.integers(100, 20_000, count)
        arrival = time_ + np.where(rng.random(count) < 0.02, rng.integers(0, MINUTE_US, count), 0)
        again = np.flatnonzero(rng.random(count) < 0.005)
        rows = np.concatenate([np.arange(count), again])
        arrives = np.concatenate([arrival, arrival[again] + rng.integers(0, MINUTE_US, len(again))])
        rows = rows[np.argsort(arrives, kind="stable")]
        text = _json(id_[rows], user[rows], time_[rows], kind[rows], cents[rows])
        side = user[rows] % PARTITIONS
        yield tuple(text.filter(pl.Series(side == p)).cast(pl.Binary).to_list() for p in range(PARTITIONS))  # pyright: ignore[reportReturnType]


def _json(id_: np.ndarray, user: np.ndarray, time_: np.ndarray, kind: np.ndarray, cents: np.ndarray) -> pl.Series:
    frame = pl.DataFrame({"id": id_, "user": user, "t": time_ + BEGIN, "kind": kind, "cents": cents})
    types = pl.Series(["click", "cart", "purchase"]).gather(frame["kind"])
    stamp = pl.col("t").cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    euros = pl.format("{}.{}", pl.col("cents") // 100, (pl.col("cents") % 100).cast(pl.String).str.zfill(2))
    amount = pl.when(pl.col("kind") == 2).then(euros).otherwise(pl.lit("null"))
    parts = [
        pl.lit('{"event_id":"'),
        pl.col("id").cast(pl.String).str.zfill(12),
        pl.lit('","user_id":'),
        pl.col("user"),
        pl.lit(',"event_time":"'),
        stamp,
        pl.lit('","event_type":"'),
        types,
        pl.lit('","amount":'),
        amount,
        pl.lit("}"),
    ]
    row = pl.concat_str(parts)
    return frame.select(row).to_series()


@dataclass(frozen=True)
class Topic:
    """A filled topic. ``messages`` by partition."""

    brokers: str
    name: str
    messages: dict[int, int]
    bytes: int

    @property
    def url(self) -> str:
        """As ``ct stream run`` takes it."""
        return f"kafka://{self.brokers}/{self.name}"

    @property
    def total(self) -> int:
        """Messages in all partitions."""
        return sum(self.messages.values())


def fill(brokers: str, name: str, events: int) -> Topic:
    """Write ``events`` (and their repeats) to a new topic of two partitions."""
    sink = KafkaSink(brokers, name, KafkaSettings(), PARTITIONS)
    counts, size, began = dict.fromkeys(range(PARTITIONS), 0), 0, time.monotonic()
    for parts in chunks(events):
        for partition, values in enumerate(parts):
            sink.send(values, partition=partition)
            counts[partition] += len(values)
            size += sum(map(len, values))
    sink.close()
    print(f"  filled {name}: {sum(counts.values()):,} messages in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return Topic(brokers, name, counts, size)


def reuse(brokers: str, name: str, events: int) -> Topic | None:
    """A topic that an earlier run filled with at least ``events``; None when there is none."""
    from ct_assets.adapters.events.kafka_client import KafkaTopic, NoSuchTopic

    try:
        counts = KafkaTopic(brokers, name, KafkaSettings()).offsets(None, end=True)
    except NoSuchTopic:
        return None
    if sum(counts.values()) < events:
        raise SystemExit(
            f"topic {name} has {sum(counts.values()):,} messages of {events:,}: remove the folder of --home"
        )
    return Topic(brokers, name, counts, 0)

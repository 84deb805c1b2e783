"""Both kinds of source behind one face, with the accidents that a test may cause: retention, a new topic, truncation.

What goes here: how to make and harm a topic of either kind. What does not: tests.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Protocol

import pytest

from ct_assets.adapters.events import log_segments as files
from ct_assets.adapters.events.broker import Broker
from ct_assets.adapters.events.kafka_batches import open_kafka_source
from ct_assets.adapters.events.kafka_client import KafkaTopic
from ct_assets.adapters.events.kafka_sink import KafkaSink
from ct_assets.adapters.events.log import LogSink, LogSource, add_partitions, create_log
from ct_assets.adapters.events.log_sink import partition_folder
from ct_assets.adapters.events.port import EventSink, EventSource, SourceError, parse_url
from ct_assets.settings import KafkaSettings, Secret

# Quick enough for a test: new partitions within half a second, a silent member out after three.
QUICK = "topic.metadata.refresh.interval.ms=500;heartbeat.interval.ms=300;session.timeout.ms=3000"

ON_KAFKA = [
    pytest.param(f"kafka-{reader}", marks=pytest.mark.xdist_group("kafka")) for reader in ("messages", "batches")
]


class World(Protocol):
    """One topic and what may happen to it."""

    kind: str
    group: str  # of consumers, this test's alone
    opened: list[EventSource]

    def create(self, partitions: int) -> None: ...
    def grow(self, total: int) -> None: ...
    def sink(self) -> EventSink: ...
    def source(self, further: str = "") -> EventSource: ...
    def expire(self, partition: int, before: int) -> None: ...
    def recreate(self, partitions: int) -> None: ...
    def truncate(self, partition: int, end: int) -> None: ...


class LogWorld:
    """The embedded log. Every :meth:`sink` call of a test writes segments of one frame, so that offsets can expire."""

    kind, group = "log", "workers"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[EventSource] = []

    def create(self, partitions: int) -> None:
        create_log(self.folder, partitions)

    def grow(self, total: int) -> None:
        add_partitions(self.folder, total)

    def sink(self) -> EventSink:
        return LogSink(self.folder)

    def source(self, further: str = "") -> EventSource:
        self.opened.append(LogSource(self.folder))
        return self.opened[-1]

    def expire(self, partition: int, before: int) -> None:
        folder = partition_folder(self.folder, partition)
        for base in files.segments(folder)[:-1]:
            if base < before:
                files.segment_path(folder, base).unlink()
        assert files.segments(folder)[0] == before, "write with a segment boundary at the offset that expires"

    def recreate(self, partitions: int) -> None:
        shutil.rmtree(self.folder)
        self.create(partitions)

    def truncate(self, partition: int, end: int) -> None:
        folder = partition_folder(self.folder, partition)
        for base in files.segments(folder):
            path = files.segment_path(folder, base)
            with path.open("r+b") as handle:
                kept = [f.end for f in files.frames(handle.fileno()) if f.next_offset <= end]
                handle.truncate(kept[-1] if kept else 0)


class KafkaWorld:
    """A topic of a real broker."""

    def __init__(self, broker: Broker, url: str, reader: str) -> None:
        self.kind = f"kafka-{reader}"
        self.broker = broker
        where = parse_url(url)
        assert where.topic is not None
        self.brokers, self.name, self.reader = where.place, where.topic, reader
        self.group = f"workers-{self.name}"
        self.opened: list[EventSource] = []
        self.topic = KafkaTopic(self.brokers, self.name, KafkaSettings())

    def create(self, partitions: int) -> None:
        self.topic.create(partitions)

    def grow(self, total: int) -> None:
        self.topic.add_partitions(total)

    def sink(self) -> EventSink:
        return KafkaSink(self.brokers, self.name, KafkaSettings())

    def source(self, further: str = "") -> EventSource:
        settings = KafkaSettings(reader=self.reader, options=Secret(f"{QUICK};{further}"))
        self.opened.append(open_kafka_source(self.brokers, self.name, settings))
        return self.opened[-1]

    def group_state(self) -> Any:
        """What the coordinator says of the group; None while nobody has joined it."""
        asked = self.topic.admin().describe_consumer_groups([self.group])
        try:
            return self.topic.answer(asked[self.group]).state
        except SourceError:
            return None

    def expire(self, partition: int, before: int) -> None:
        from confluent_kafka import TopicPartition

        asked = self.topic.admin().delete_records([TopicPartition(self.name, partition, before)])
        for future in asked.values():
            self.topic.answer(future)

    def recreate(self, partitions: int) -> None:
        old = self.topic.identity().topic_id
        self.topic.answer(self.topic.admin().delete_topics([self.name])[self.name])
        self.create(partitions)
        while self.topic.identity().topic_id == old:  # the controller answers before the brokers know
            time.sleep(0.02)

    def truncate(self, partition: int, end: int) -> None:
        """What an unclean election leaves: a broker that comes back with a shorter log and a new leader epoch."""
        self.broker.kill()
        log = self.broker.home / "data" / f"{self.name}-{partition}" / f"{0:020d}.log"
        raw, position = log.read_bytes(), 0
        while position < len(raw):  # record batches: base offset (8), length (4), ..., last offset delta at 23
            length = int.from_bytes(raw[position + 8 : position + 12], "big")
            last = int.from_bytes(raw[position : position + 8], "big") + int.from_bytes(
                raw[position + 23 : position + 27], "big"
            )
            if last >= end:
                break
            position += 12 + length
        assert position < len(raw), "nothing to truncate"
        with log.open("r+b") as handle:
            handle.truncate(position)
        for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
            (self.broker.home / "data" / name).unlink(missing_ok=True)
        for leftover in log.parent.glob("*.snapshot"):
            leftover.unlink()
        self.broker.start()

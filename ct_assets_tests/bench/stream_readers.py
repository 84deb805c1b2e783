"""What reading alone costs: whole batches out of librdkafka against the ordinary consumer, on the bench's topic.

What goes here: that one measurement, in turns. What does not: what is done with the messages.
"""

from __future__ import annotations

import os
import time

from ct_assets.adapters.events.port import BEGINNING, open_source
from ct_assets.settings import load
from ct_assets_tests.bench.stream_topic import Topic

READERS = ("batches", "messages")


def readers(topic: Topic, messages: int = 3_000_000, rounds: int = 2) -> str:
    """CPU microseconds a message of each reader, librdkafka's threads included, and the ratio; the least of the rounds."""
    found: dict[str, float] = {}
    for _ in range(rounds):
        for reader in READERS:
            found[reader] = min(found.get(reader, float("inf")), _cost(topic, reader, messages))
    batches, ordinary = (found[reader] for reader in READERS)
    return (
        f"reading alone, CPU s a million messages: whole batches {batches:.2f}, ordinary consumer {ordinary:.2f}"
        f" ({ordinary / batches:.1f} x), load {os.getloadavg()[0]:.1f}"
    )


def _cost(topic: Topic, reader: str, messages: int) -> float:
    source = open_source(topic.url, load({"CT_HOME": "unused", "CT_KAFKA_READER": reader}))
    try:
        source.assign(dict.fromkeys(topic.messages, BEGINNING))
        wanted = min(messages, topic.total // 2)
        first = 0
        while not first:  # connecting is not reading
            first = len(source.poll(100_000, 0.05))
        read, begun = first, time.process_time()
        while read < wanted + first:
            read += len(source.poll(100_000, 0.05))
        return (time.process_time() - begun) / (read - first) * 1e6
    finally:
        source.close()

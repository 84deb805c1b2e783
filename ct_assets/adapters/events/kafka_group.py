"""How a reader is a member of its consumer group: the settings of a session, its name, and leaving.

What goes here: options of the consumer that decide how soon partitions move. What does not: reading (``kafka``), addresses and
secrets (``kafka_client``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.events.kafka_client import LOG

if TYPE_CHECKING:
    from confluent_kafka import Consumer

# fetch.queue.backoff.ms: the default of 1 s stalls a full queue (165 k instead of 712 k events/s).
# queued.max.messages.kbytes bounds the memory, whatever the lag. session.timeout.ms: how long the partitions of a killed
# worker wait for somebody else, and the least that brokers allow by default; a supervised one is back before that (see
# ``named``). topic.metadata.refresh.interval.ms: new partitions are found within 10 s.
OPTIONS = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "partition.assignment.strategy": "cooperative-sticky",
    "enable.partition.eof": True,
    "check.crcs": True,
    "fetch.queue.backoff.ms": 5,
    "fetch.message.max.bytes": 4 << 20,
    "queued.min.messages": 200_000,
    "queued.max.messages.kbytes": 65_536,
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 2_000,
    "topic.metadata.refresh.interval.ms": 10_000,
}
_LEAVE_SECONDS = 2.0  # for telling the group; without a coordinator nobody could be told


def named(options: Mapping[str, Any], member: str | None) -> dict[str, Any]:
    """The options with the reader's name, if it has one (KIP-345, static membership).

    A killed process that comes back under its name gets its partitions at once, without a rebalance; without a name they
    wait for the end of its session (`bench_stream.py --only recovery` prints the time from kill -9 to the next commit).
    """
    return {**({} if member is None else {"group.instance.id": member}), **options}


def leave(consumer: Consumer) -> None:
    """Closing keeps a named reader's place until its session ends: librdkafka sends it away when it unsubscribes.

    It has left when it has no member id any more. One whose name somebody else has taken is in no group.
    """
    from confluent_kafka import KafkaException

    try:
        consumer.unsubscribe()
    except KafkaException as error:
        LOG.warning("%s", error.args[0].str())
    deadline = time.monotonic() + _LEAVE_SECONDS
    while consumer.memberid() and time.monotonic() < deadline:
        consumer.poll(0.02)

"""Writing to a Kafka topic.

What goes here: the producer and its delivery errors. What does not: options of clients (``kafka_client``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ct_assets.adapters.events.kafka_client import KafkaTopic, NoSuchTopic, client_options
from ct_assets.adapters.events.port import SourceError
from ct_assets.errors import UsageError
from ct_assets.settings import KafkaSettings

# `delivery.report.only.error`: no Python call a message. murmur2: keys go where Java's producers put them.
OPTIONS = {
    "enable.idempotence": True,
    "linger.ms": 5,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 200_000,
    "delivery.report.only.error": True,
}


class KafkaSink:
    """An :class:`~ct_assets.adapters.events.port.EventSink` on a Kafka topic; idempotent, acknowledged by all replicas."""

    def __init__(self, brokers: str, topic: str, kafka: KafkaSettings, partitions: int | None = None) -> None:
        """Open the topic; make it with ``partitions`` when it is absent and the number is given."""
        from confluent_kafka import Producer

        self._topic = KafkaTopic(brokers, topic, kafka)
        try:
            present = self._topic.partitions()
        except NoSuchTopic:
            if partitions is None:
                raise
            self._topic.create(partitions)
            present = list(range(partitions))
        if partitions is not None and partitions != len(present):
            raise UsageError(
                f"topic {topic} has {len(present)} partitions, not {partitions}",
                hint="leave the number away, or write to another topic",
            )
        self._errors: list[str] = []
        self._producer = Producer(OPTIONS | client_options(brokers, kafka))

    def partitions(self) -> list[int]:
        """The topic's partitions, ascending."""
        return self._topic.partitions()

    def send(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        partition: int | None = None,
        append_time: int | Sequence[int] | None = None,
    ) -> None:
        """Hand ``values`` to the producer; :meth:`flush` waits. ``append_time`` is used by topics with CreateTime alone."""
        common: dict[str, Any] = {"on_delivery": self._failed} | ({} if partition is None else {"partition": partition})
        for index, (value, stamp) in enumerate(zip(values, _stamps(append_time, len(values)), strict=True)):
            key = None if keys is None else keys[index]
            self._produce(value, common | ({"key": key} if key is not None else {}) | stamp)
        self._producer.poll(0)
        self._raise()

    def _produce(self, value: bytes | None, options: dict[str, Any]) -> None:
        while True:
            try:
                self._producer.produce(self._topic.name, value, **options)
            except BufferError:  # the queue is full: the broker is slower than we are
                self._producer.poll(0.1)
                self._raise()
            else:
                return

    def _failed(self, error: Any, _: Any) -> None:
        self._errors.append(error.str())

    def _raise(self) -> None:
        if self._errors:
            errors, self._errors = self._errors, []
            raise SourceError(
                f"{len(errors)} events could not be written to {self._topic.name}: {errors[0]}",
                hint="they are not in the topic; send them again",
            )

    def flush(self) -> None:
        """Return when the broker has everything; raise when something could not be written."""
        while self._producer.flush(1.0):
            self._raise()
        self._raise()

    def close(self) -> None:
        """Flush. Safe to repeat."""
        self.flush()


def _stamps(append_time: int | Sequence[int] | None, count: int) -> Iterator[dict[str, int]]:
    """Each message's time as Kafka takes it (milliseconds)."""
    for index in range(count):
        if append_time is None:
            yield {}
        else:
            time = append_time if isinstance(append_time, int) else append_time[index]
            yield {"timestamp": int(time) // 1000}

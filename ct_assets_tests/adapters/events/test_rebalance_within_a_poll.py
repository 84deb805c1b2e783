"""A partition that goes, comes back and is read to its end within one poll: what is left out is read again.

Why a fake consumer: librdkafka decides when it serves a rebalance, so between two pieces of one poll it cannot be had on order.
"""

from __future__ import annotations

from typing import Any, cast

from ct_assets.adapters.events.kafka import KafkaSource
from ct_assets.adapters.events.port import SourceIdentity
from ct_assets.settings import load


class Topic:
    """Two partitions of 1,000 messages."""

    name = "t"

    def __init__(self, *_: Any) -> None: ...

    def identity(self) -> SourceIdentity:
        return SourceIdentity("kafka", "c", "t", "id", True)

    def offsets(self, partitions: list[int] | None, *, end: bool) -> dict[int, int]:
        return dict.fromkeys(partitions or [0, 1], 1_000 if end else 0)


class Consumer:
    """Gives one message, then takes partition 0 away, then gives it back from where the state is and reads to its end."""

    def __init__(self, source: KafkaSource) -> None:
        self.source, self.turn, self.given, self.sought = source, 0, 0, []

    def incremental_assign(self, _: Any) -> None: ...

    def incremental_unassign(self, _: Any) -> None: ...

    def seek(self, place: Any) -> None:
        self.sought.append((place.partition, place.offset))

    def consume(self, count: int, _: float) -> list[Any]:
        from confluent_kafka import KafkaError, Message, TopicPartition

        def message(partition: int, offset: int) -> Any:
            return Message(
                topic="t", partition=partition, offset=offset, value=b"x", timestamp=(2, 1_000), leader_epoch=0
            )

        self.turn += 1
        if self.turn == 1:
            return [message(0, 90)]
        found: list[Any] = []
        if self.turn == 2:
            self.source._on_revoke(cast(Any, self), [TopicPartition("t", 0)])
        elif self.turn == 3:
            self.source._on_assign(cast(Any, self), [TopicPartition("t", 0)])
            end = Message(topic="t", partition=0, offset=110, error=KafkaError(KafkaError._PARTITION_EOF))
            found = [*(message(0, offset) for offset in range(100, 110)), end]
        others = count - len(found) if self.turn < 4 else 5
        found += [message(1, self.given + n) for n in range(others)]
        self.given += others
        return found


def test_the_end_that_left_out_messages_reached_moves_no_position(monkeypatch: Any) -> None:
    monkeypatch.setattr("ct_assets.adapters.events.kafka.KafkaTopic", Topic)
    monkeypatch.setattr("ct_assets.adapters.events.kafka_losses.IdentityWatch.look", lambda _: None)
    monkeypatch.setattr("ct_assets.adapters.events.kafka_losses.IdentityWatch.wait", lambda _: None)
    source = KafkaSource("127.0.0.1:1", "t", load({"CT_HOME": "unused"}).kafka)
    consumer = Consumer(source)
    source._callbacks = (lambda ps: dict.fromkeys(ps, 100), lambda _: None, lambda _: None)
    source._next = {0: 90, 1: 0}
    source._consumer = cast(Any, consumer)
    messages = source.poll(5_000, 0.0)
    assert set(messages.partition.tolist()) == {1}, "what was read of partition 0 before and after is another claim's"
    assert messages.offset.tolist() == list(range(consumer.given))
    assert consumer.sought == [(0, 100)]
    assert source.positions() == {0: 100, 1: consumer.given}

"""Reading a Kafka topic through confluent-kafka: an :class:`EventSource` that never skips in silence.

What goes here: the consumer, its group, its positions, and finding out what an error means for the data (F47 to F49).
What does not: questions to the cluster (``kafka_client``), being a member of a group (``kafka_group``), whole batches without
objects (``kafka_batches``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_assets.adapters.events.kafka_client import LOG, KafkaTopic, client_options
from ct_assets.adapters.events.kafka_group import OPTIONS, leave, named
from ct_assets.adapters.events.kafka_losses import IdentityWatch, diagnose, is_doubtful
from ct_assets.adapters.events.port import (
    BEGINNING,
    LostData,
    OnAssign,
    OnPartitions,
    Position,
    SourceError,
    SourceIdentity,
    Start,
    check_range,
    position_of,
)
from ct_assets.errors import CtError
from ct_assets.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

    from ct_assets.streaming.messages import Messages

_SILENCE_SECONDS = 10.0  # between two warnings of one kind
# Messages that exist as Python objects at a time. They and their bytes stay in the cache, their memory is used again at once,
# and fewer than 700 new objects do not wake Python's collector of cycles.
_PIECE = 512


class KafkaSource:
    """An :class:`~ct_assets.adapters.events.port.EventSource` on a Kafka topic."""

    def __init__(self, brokers: str, topic: str, kafka: KafkaSettings) -> None:
        """Ask the cluster which topic this is. Raises :class:`~ct_assets.adapters.events.port.SourceError`."""
        self._topic = KafkaTopic(brokers, topic, kafka)
        self._options = OPTIONS | client_options(brokers, kafka)
        self._member = kafka.member
        self._identity = self._topic.identity()
        self._consumer: Consumer | None = None
        self._callbacks: tuple[OnAssign, OnPartitions, OnPartitions] | None = None
        self._next: dict[int, int] = {}  # partition -> offset; its keys are the assignment
        self._epochs: dict[int, int] = {}
        self._gone: set[int] = set()  # revoked since the last poll began
        self._closing = False
        self._failed: CtError | None = None
        self._said = (0, 0.0)
        self._watch = IdentityWatch(self._topic, self._identity)

    # -- the topic

    def identity(self) -> SourceIdentity:
        """Which topic this was when the source was opened."""
        return self._identity

    def partitions(self) -> list[int]:
        """The topic's partitions now."""
        return self._topic.partitions()

    def begin_offsets(self, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """The first offset still held, per partition."""
        return self._topic.offsets(partitions, end=False)

    def end_offsets(self, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """The offset behind the last committed message, per partition."""
        return self._topic.offsets(partitions, end=True)

    # -- assignment

    def assign(self, offsets: Mapping[int, Start]) -> None:
        """Read exactly these partitions from these offsets, outside of any group."""
        consumer = self._open(f"ct_assets-{self._topic.name}")
        start = self._starting(offsets)
        self._forget(list(self._next))
        self._prepare(consumer, list(start))
        consumer.assign(self._places(start))
        self._began(start)

    def subscribe(self, group: str, on_assign: OnAssign, on_revoke: OnPartitions, on_lost: OnPartitions) -> None:
        """Join ``group`` with cooperative rebalancing; the callbacks run inside :meth:`poll` and :meth:`close`."""
        self._options = named(self._options, self._member)
        consumer = self._open(group)
        self._callbacks = (on_assign, on_revoke, on_lost)
        consumer.subscribe(
            [self._topic.name], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _open(self, group: str) -> Consumer:
        from confluent_kafka import Consumer

        if self._consumer is None:
            self._consumer = Consumer({"error_cb": self._on_error, **self._options, "group.id": group})
        return self._consumer

    def _starting(self, offsets: Mapping[int, Start]) -> dict[int, Position]:
        """``offsets`` with the beginning resolved, after looking whether the log still holds them."""
        self._watch.wait()
        wanted = {p: position_of(start) for p, start in offsets.items()}
        begins, ends = self.begin_offsets(list(wanted)), self.end_offsets(list(wanted))
        found = {p: Position(begins[p]) if at.offset == BEGINNING else at for p, at in wanted.items()}
        for p, at in found.items():
            check_range(p, at.offset, begins[p], ends[p])
        return found

    def _places(self, start: Mapping[int, Position]) -> list[Any]:
        """As librdkafka takes them. With a leader epoch it asks the broker whether the log still agrees (KIP-320)."""
        from confluent_kafka import TopicPartition

        name = self._topic.name
        epoch: dict[int, dict[str, Any]] = {
            p: {"leader_epoch": at.leader_epoch} if at.leader_epoch >= 0 else {} for p, at in start.items()
        }
        return [TopicPartition(name, p, at.offset, **epoch[p]) for p, at in start.items()]

    def _prepare(self, consumer: Consumer, partitions: Sequence[int]) -> None:
        """Called before reading of ``partitions`` begins; for readers that take messages another way."""

    def _began(self, start: Mapping[int, Position]) -> None:
        for p, at in start.items():
            self._next[p] = at.offset
            if at.leader_epoch >= 0:
                self._epochs[p] = at.leader_epoch

    def _forget(self, partitions: Sequence[int]) -> None:
        for p in partitions:
            self._next.pop(p, None)
            self._epochs.pop(p, None)
            self._gone.add(p)

    def _on_assign(self, consumer: Consumer, came: list[Any]) -> None:
        """librdkafka calls this inside a poll; what it raises comes out of that poll."""
        assert self._callbacks is not None
        if (
            self._closing
        ):  # what was given before the last poll is delivered all the same; to take it would fence others
            return
        partitions = sorted(tp.partition for tp in came)
        try:
            given = self._callbacks[0](partitions) if partitions else {}
            start = self._starting({p: given[p] for p in partitions}) if partitions else {}
        except CtError as error:
            self._failed = error
            raise
        self._prepare(consumer, partitions)
        consumer.incremental_assign(self._places(start))
        self._began(start)

    def _on_revoke(self, consumer: Consumer, going: list[Any]) -> None:
        assert self._callbacks is not None
        partitions = sorted(tp.partition for tp in going if tp.partition in self._next)
        try:
            self._callbacks[1](partitions)
        finally:
            self._forget(partitions)
            consumer.incremental_unassign(going)

    def _on_lost(self, consumer: Consumer, gone: list[Any]) -> None:
        assert self._callbacks is not None
        partitions = sorted(tp.partition for tp in gone)
        self._forget(partitions)
        try:
            self._callbacks[2](partitions)
        finally:
            consumer.incremental_unassign(gone)

    # -- reading

    def poll(self, max_messages: int, timeout_s: float) -> Messages:
        """The next messages. Raises what :class:`LostData` says, again and again: there is no going on."""
        from ct_assets.streaming.messages import Messages

        if self._failed is not None:
            raise self._failed
        assert self._consumer is not None, "assign or subscribe first"
        self._gone.clear()
        self._watch_identity()
        messages = self._without_gone(self._take(self._consumer, max_messages, timeout_s))
        if self._failed is not None and not len(messages):
            raise self._failed
        for p, index in messages.last_of_each().items():
            self._next[p] = int(messages.offset[index]) + 1
        return messages if len(messages) else Messages.empty()

    def _watch_identity(self) -> None:
        try:
            self._watch.look()
        except LostData as lost:
            self._failed = lost
            raise

    def _take(self, consumer: Consumer, max_messages: int, timeout_s: float) -> Messages:
        """Wait for one message, then take what else is there: waiting for a full batch would cost the first its time."""
        from ct_assets.streaming.messages import Messages

        pieces: list[Messages] = []
        wait, wanted, left = timeout_s, 1, max_messages
        while left:
            found = consumer.consume(wanted, wait)
            pieces.append(self._gathered(self._without_events(found)))
            left -= len(found)
            if len(found) < wanted:
                break
            wait, wanted = 0.0, min(_PIECE, left)
        return Messages.concat(pieces)

    def _without_events(self, found: list[Message]) -> list[Message]:
        from confluent_kafka import Message

        if any(map(Message.error, found)):
            for message in found:
                self._if_event(message)
            return [message for message in found if message.error() is None]
        return found

    def _gathered(self, found: list[Message]) -> Messages:
        """One array a field; ``map`` over the class's own functions takes half as long as a comprehension."""
        from confluent_kafka import Message

        from ct_assets.streaming.messages import ABSENT, Messages

        if not found:
            return Messages.empty()
        n = len(found)
        stamps = np.fromiter(chain.from_iterable(map(Message.timestamp, found)), np.int64, 2 * n).reshape(n, 2)
        stamped = stamps[:, 0] == 2  # TIMESTAMP_LOG_APPEND_TIME: the broker's; anything else is the producer's clock
        messages = Messages.from_values(
            list(map(Message.value, found)),
            np.fromiter(map(Message.partition, found), np.int32, n),
            np.fromiter(map(Message.offset, found), np.int64, n),
            np.where(stamped, stamps[:, 1] * 1000, ABSENT),
        )
        for p, index in messages.last_of_each().items():
            self._saw_epoch(p, found[index].leader_epoch())
        return messages

    def _saw_epoch(self, partition: int | None, epoch: int | None) -> None:
        if partition in self._next and epoch is not None and epoch >= 0:
            self._epochs[partition] = epoch

    def _without_gone(self, messages: Messages) -> Messages:
        """Leave out what a rebalance inside this very poll took away; if it came back, read it again."""
        if not self._gone or not len(messages):
            return messages
        from confluent_kafka import TopicPartition

        for p in self._gone & set(self._next):
            assert self._consumer is not None
            self._consumer.seek(TopicPartition(self._topic.name, p, self._next[p]))
        return messages.take(np.flatnonzero(~np.isin(messages.partition, list(self._gone))))

    # -- what goes wrong

    def _if_event(self, message: Message) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None:
            self._event(error, -1 if partition is None else partition, -1 if offset is None else offset)

    def _event(self, error: Any, partition: int, offset: int) -> None:
        """An event that came instead of a message: an end reached, or an error whose meaning must be found out."""
        from confluent_kafka import KafkaError

        if error.code() == KafkaError._PARTITION_EOF:
            # transaction markers take offsets too; the end of a partition that went and came back within this poll was
            # reached by messages that are left out and read again
            if partition in self._next and partition not in self._gone:
                self._next[partition] = max(self._next[partition], offset)
        elif is_doubtful(error):
            at = self._next.get(partition)
            self._failed = self._failed or diagnose(self._topic, self._watch, error, partition, at)
        elif error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            self._failed = SourceError(f"Kafka refuses: {error.str()}", hint="grant READ on the topic and the group")
        else:
            LOG.warning("partition %s: %s", partition, error.str())

    def _on_error(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.fatal() or error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._failed = SourceError(f"Kafka: {error.str()}", hint="see the CT_KAFKA_ variables: ct doctor")
        elif error.code() != self._said[0] or time.monotonic() > self._said[1] + _SILENCE_SECONDS:
            self._said = (error.code(), time.monotonic())  # librdkafka says it with every attempt
            LOG.warning("%s", error.str())

    # -- the rest of the port

    def positions(self) -> dict[int, int]:
        """The next offset of every assigned partition."""
        return dict(self._next)

    def leader_epochs(self) -> dict[int, int]:
        """The leader epoch of the last message read, per partition."""
        return dict(self._epochs)

    def commit_offsets(self, offsets: Mapping[int, int]) -> None:
        """Tell the broker's tools; does not wait and never fails the reader."""
        places = self._places({p: Position(offset) for p, offset in offsets.items()})
        if places and self._consumer is not None and self._callbacks is not None:
            self._quietly(lambda consumer: consumer.commit(offsets=places, asynchronous=True))

    def _quietly(self, act: Callable[[Consumer], Any]) -> None:
        from confluent_kafka import KafkaException

        assert self._consumer is not None
        try:
            act(self._consumer)
        except KafkaException as error:
            LOG.warning("%s", error.args[0].str())

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing of these; what is in the queue already is dropped and fetched again on resume."""
        assert self._consumer is not None
        self._consumer.pause(self._places({p: Position(self._next[p]) for p in partitions if p in self._next}))

    def resume(self, partitions: Sequence[int]) -> None:
        """Go on with these."""
        assert self._consumer is not None
        self._consumer.resume(self._places({p: Position(self._next[p]) for p in partitions if p in self._next}))

    def close(self) -> None:
        """Leave the group (``on_revoke`` is called). Safe to repeat."""
        if self._consumer is not None:
            self._closing = True
            consumer, self._consumer = self._consumer, None
            try:
                if "group.instance.id" in self._options:
                    leave(consumer)
            finally:
                consumer.close()

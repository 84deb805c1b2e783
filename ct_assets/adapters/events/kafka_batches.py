"""Whole batches out of librdkafka into one buffer: the ordinary consumer without a Python object a message.

What goes here: another way to take messages; groups, positions and losses stay those of ``kafka``. What does not: the C
functions (``librdkafka``).

How: the messages of every assigned partition are forwarded into a queue of our own, while errors of the client and
rebalances stay on the consumer's queue and reach its callbacks through ``Consumer.poll``. A batch is an array of addresses of
structs. numpy reads a field of many of them in one operation; payloads that lie close together (they do: a fetch response
is one buffer) are copied run by run, with what lies between them. All of that is done for a few thousand messages at a
time, from the structs to giving them back: they stay in the cache, which halves the cost of a message.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ct_assets.adapters.events import librdkafka
from ct_assets.adapters.events.kafka import KafkaSource
from ct_assets.adapters.events.kafka_client import LOG
from ct_assets.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

    from ct_assets.streaming.messages import Messages

_SLICE_SECONDS = 0.05  # how long to wait for messages before looking at the consumer's own events again
_MOST = 500_000
# Two bytes at most one page (4 KiB) apart lie on the same page or on neighbours, so what lies between them may be read.
_GAP = 4_000
_CHECKED = 8  # messages of a piece whose private fields are compared with the public functions
_PIECE = 4_096  # messages


def open_kafka_source(brokers: str, topic: str, kafka: KafkaSettings) -> KafkaSource:
    """The reader that ``kafka.reader`` names; ``auto``: batches where they are supported."""
    if kafka.reader == "messages":
        return KafkaSource(brokers, topic, kafka)
    try:
        return KafkaBatches(brokers, topic, kafka)
    except librdkafka.Unsupported as error:
        if kafka.reader == "batches":
            raise
        LOG.info("reading message by message: %s", error)
        return KafkaSource(brokers, topic, kafka)


class KafkaBatches(KafkaSource):
    """A :class:`~ct_assets.adapters.events.kafka.KafkaSource` that takes whole batches."""

    def __init__(self, brokers: str, topic: str, kafka: KafkaSettings) -> None:
        """Raises :class:`~ct_assets.adapters.events.librdkafka.Unsupported` before anything is opened."""
        self._library = librdkafka.Library()
        self._queue = self._client = 0
        self._forwarded: dict[int, int] = {}
        self._addresses = np.zeros(_PIECE, np.int64)
        self._room = 0  # bytes that the largest batch so far took
        self._slow_times = False
        super().__init__(brokers, topic, kafka)

    def _open(self, group: str) -> Consumer:
        consumer = super()._open(group)
        if not self._queue:
            self._client = self._library.client_of(consumer, str(self._options["client.id"]))
            self._queue = self._library.queue_new(self._client)
        return consumer

    def _prepare(self, consumer: Consumer, partitions: Sequence[int]) -> None:
        """Forward, before reading begins and again: librdkafka undoes it some time after a partition was given up.

        What has gathered in the meantime moves along, in order.
        """
        for p in partitions:
            if p not in self._forwarded:
                self._forwarded[p] = self._library.queue_of(self._client, self._topic.name.encode(), p)
            self._library.forward(self._forwarded[p], self._queue)

    def _take(self, consumer: Consumer, max_messages: int, timeout_s: float) -> Messages:
        from ct_assets.streaming.messages import Messages

        most = max(1, min(max_messages, _MOST))
        deadline = time.monotonic() + timeout_s
        while True:
            if strays := self._strays(consumer):
                return self._gathered(strays)
            self._prepare(consumer, list(self._next))
            left = deadline - time.monotonic()
            messages = self._fetched(most, max(0.0, min(left, _SLICE_SECONDS)))
            if len(messages):
                return messages
            if left <= 0 or self._failed is not None:
                return Messages.empty()

    def _strays(self, consumer: Consumer) -> list[Message]:
        """Let callbacks and errors come, and take the messages that reached the consumer's own queue all the same.

        They would be older than any in ours: a partition is forwarded from before its first message.
        """
        found: list[Message] = []
        while (message := consumer.poll(0)) is not None:
            if message.error() is None:
                found.append(message)
            else:
                self._if_event(message)
        return found

    def _fetched(self, most: int, wait: float) -> Messages:
        """Wait for one message, then take what else is there, piece by piece."""
        pieces = _Pieces(self._room)
        wanted = 1
        while True:
            count = self._library.consume(self._queue, int(wait * 1000), self._addresses.ctypes.data, wanted)
            if count > 0:
                self._emptied(self._addresses[:count], pieces)
                most -= count
            if count < wanted or not most:
                break
            wait, wanted = 0.0, min(most, _PIECE)
        messages = pieces.messages()
        self._room = max(self._room, len(messages.data))
        return messages

    def _emptied(self, addresses: np.ndarray, pieces: _Pieces) -> None:
        """Add the messages at ``addresses``; every one is given back to librdkafka, whatever happens."""
        try:
            errors = self._library.words(addresses, librdkafka.ERROR).astype(np.int32)  # the low half
            if errors.any():
                for address in addresses[errors != 0].tolist():
                    self._c_event(address)
                self._copied(addresses[errors == 0], pieces)
            else:
                self._copied(addresses, pieces)
        finally:
            deque(map(self._library.destroy, addresses.tolist()), 0)

    def _c_event(self, address: int) -> None:
        from confluent_kafka import KafkaError

        at = np.array([address])
        code, partition, offset, text, length = (
            int(self._library.words(at, field)[0])
            for field in (
                librdkafka.ERROR,
                librdkafka.PARTITION,
                librdkafka.OFFSET,
                librdkafka.PAYLOAD,
                librdkafka.LENGTH,
            )
        )
        said = ctypes.string_at(text, length).decode(errors="replace") if text else None
        low = ctypes.c_int32(code).value
        self._event(KafkaError(low, said) if said else KafkaError(low), ctypes.c_int32(partition).value, offset)

    def _copied(self, addresses: np.ndarray, pieces: _Pieces) -> None:
        from ct_assets.streaming.messages import ABSENT, last_of_each

        if not len(addresses):
            return
        read = self._library.words
        partition = read(addresses, librdkafka.PARTITION).astype(np.int32)
        payload, length = read(addresses, librdkafka.PAYLOAD), read(addresses, librdkafka.LENGTH)
        length = np.where(payload == 0, ABSENT, length)
        kind, stamp = self._times(addresses)
        for p, last in last_of_each(partition).items():
            self._saw_epoch(p, self._library.epoch(int(addresses[last])))
        start = pieces.copy(payload, length)
        offset = read(addresses, librdkafka.OFFSET)
        pieces.add(start, length, partition, offset, np.where(kind == librdkafka.APPEND_TIME, stamp * 1000, ABSENT))

    def _times(self, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Timestamp types and timestamps (ms): private fields of librdkafka, compared with its public functions each time."""
        if not self._slow_times:
            kind = self._library.words(addresses, librdkafka.KIND) >> 32
            stamp = self._library.words(addresses, librdkafka.TIMESTAMP)
            for index in {*np.linspace(0, len(addresses) - 1, _CHECKED).astype(int).tolist()}:
                if (kind[index], stamp[index]) != self._library.public_time(int(addresses[index])):
                    LOG.warning("librdkafka keeps timestamps elsewhere than expected: reading them one by one")
                    self._slow_times = True
            if not self._slow_times:
                return kind, stamp
        found = np.array([self._library.public_time(address) for address in addresses.tolist()], np.int64)
        return found[:, 0], found[:, 1]

    def close(self) -> None:
        """Leave the group and give every queue back. Safe to repeat."""
        if self._consumer is not None:
            for queue in self._forwarded.values():
                self._library.queue_destroy(queue)
            self._forwarded.clear()
            consumer_had_queue, self._queue = self._queue, 0
            if consumer_had_queue:
                self._library.queue_destroy(consumer_had_queue)
        super().close()


class _Pieces:
    """A batch that grows: payloads in one buffer, fields in lists of arrays."""

    def __init__(self, room: int) -> None:
        """``room``: bytes that the batch will likely need."""
        self._data = np.empty(room, np.uint8)
        self._used = 0
        self._fields: list[tuple[np.ndarray, ...]] = []

    def add(self, *fields: np.ndarray) -> None:
        """``start``, ``length``, ``partition``, ``offset``, ``append_time`` of the next messages."""
        self._fields.append(fields)

    def copy(self, payload: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Copy the bytes at the addresses ``payload``; where each lies in the buffer now, in ascending order."""
        there = length > 0
        if not there.any():  # tombstones and empty payloads have no byte to stand on
            return np.full(len(length), self._used, np.int64)
        first, last = _runs(payload[there], length[there])
        at, size = payload[there][first], payload[there][last] + length[there][last] - payload[there][first]
        into = self._used + np.concatenate(
            [[0], np.cumsum(size + 1)]
        )  # one byte more: something lies behind each payload
        self._grow(int(into[-1]))
        for target, source, count in zip(into.tolist(), at.tolist(), size.tolist(), strict=False):
            ctypes.memmove(self._data.ctypes.data + target, source, count)
        self._used = int(into[-1])
        start = np.zeros(len(length), np.int64)
        start[there] = payload[there] + np.repeat(into[:-1] - at, last - first + 1)
        return np.maximum.accumulate(start) if not there.all() else start

    def _grow(self, size: int) -> None:
        if size > len(self._data):
            larger = np.empty(max(size, 2 * len(self._data)), np.uint8)
            larger[: self._used] = self._data[: self._used]
            self._data = larger

    def messages(self) -> Messages:
        """The batch."""
        from ct_assets.streaming.messages import Messages

        if not self._fields:
            return Messages.empty()
        start, length, partition, offset, append_time = map(np.concatenate, zip(*self._fields, strict=True))
        return Messages(self._data.data[: self._used], start, length, partition, offset, append_time, packed=False)


def _runs(payload: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the first and of the last payload of every run of payloads that lie close together, in ascending order."""
    gap = payload[1:] - (payload[:-1] + length[:-1])
    first = np.concatenate([[0], np.flatnonzero((gap < 1) | (gap > _GAP)) + 1])
    return first, np.concatenate([first[1:], [len(payload)]]) - 1

"""Whole batches out of librdkafka into one buffer: the ordinary consumer without a Python object a message.

What goes here: another way to take messages; groups, positions and losses stay those of ``kafka``. What does not: the C
functions (``librdkafka``).

How: the messages of every assigned partition are forwarded into a queue of our own, while errors of the client and
rebalances stay on the consumer's queue and reach its callbacks through ``Consumer.poll``. A batch is an array of addresses of
structs. numpy reads a field of all of them in one operation; payloads that lie close together (they do: a fetch response
is one buffer) are copied run by run, and Arrow packs the pieces.
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
_CHECKED = 8  # messages of a batch whose private fields are compared with the public functions


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
        self._addresses = np.zeros(0, np.int64)
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
        if len(self._addresses) < most:
            self._addresses = np.zeros(most, np.int64)
        deadline = time.monotonic() + timeout_s
        while True:
            if strays := self._strays(consumer):
                return self._gathered(strays)
            self._prepare(consumer, list(self._next))
            left = deadline - time.monotonic()
            count = self._fetch(most, max(0.0, min(left, _SLICE_SECONDS)))
            if count:
                messages = self._emptied(self._addresses[:count])
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

    def _fetch(self, most: int, wait: float) -> int:
        """Wait for one, then take what else is there; returns how many addresses there are."""
        at = self._addresses.ctypes.data
        count = self._library.consume(self._queue, int(wait * 1000), at, 1)
        if count == 1 and most > 1:
            count += max(0, self._library.consume(self._queue, 0, at + 8, most - 1))
        return max(0, count)

    def _emptied(self, addresses: np.ndarray) -> Messages:
        """The batch at ``addresses``; every message is given back to librdkafka, whatever happens."""
        try:
            errors = self._library.words(addresses, librdkafka.ERROR).astype(np.int32)  # the low half
            if errors.any():
                for address in addresses[errors != 0].tolist():
                    self._c_event(address)
                addresses_good = addresses[errors == 0]
            else:
                addresses_good = addresses
            return self._copied(addresses_good)
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

    def _copied(self, addresses: np.ndarray) -> Messages:
        from ct_assets.streaming.messages import ABSENT, Messages

        if not len(addresses):
            return Messages.empty()
        read = self._library.words
        partition = read(addresses, librdkafka.PARTITION).astype(np.int32)
        payload, length = read(addresses, librdkafka.PAYLOAD), read(addresses, librdkafka.LENGTH)
        length = np.where(payload == 0, ABSENT, length)
        kind, stamp = self._times(addresses)
        for p, index in _last_of_each(partition):
            self._saw_epoch(p, self._library.epoch(int(addresses[index])))
        start = np.zeros(len(length), np.int64)
        np.cumsum(length[:-1] + 1, out=start[1:])  # a tombstone has length -1: it takes nothing
        return Messages(
            data=_packed(payload, length),
            start=start,
            length=length,
            partition=partition,
            offset=read(addresses, librdkafka.OFFSET),
            append_time=np.where(kind == librdkafka.APPEND_TIME, stamp * 1000, ABSENT),
        )

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


def _last_of_each(partition: np.ndarray) -> list[tuple[int, int]]:
    """(partition, index of its last message)."""
    values, index = np.unique(partition[::-1], return_index=True)
    return list(zip(values.tolist(), (len(partition) - 1 - index).tolist(), strict=True))


def _packed(payload: np.ndarray, length: np.ndarray) -> bytes | memoryview:
    """The bytes at the addresses ``payload``, each followed by a newline; nothing where ``length`` is -1."""
    if (length == 0).any():  # an empty payload has no byte to stand on: take them one by one
        sizes = zip(payload.tolist(), length.tolist(), strict=True)
        return b"".join(ctypes.string_at(at, size) + b"\n" for at, size in sizes if size >= 0)
    there = length > 0
    if not there.all():
        payload, length = payload[there], length[there]
    if not len(payload):
        return b""
    gap = payload[1:] - (payload[:-1] + length[:-1])
    first = np.concatenate([[0], np.flatnonzero((gap < 1) | (gap > _GAP)) + 1])
    last = np.concatenate([first[1:], [len(payload)]]) - 1
    size = payload[last] + length[last] - payload[first]
    into = np.concatenate([[0], np.cumsum(size + 1)])  # one byte more: the last newline of a run
    runs = np.empty(into[-1], np.uint8)
    for target, source, count in zip(into.tolist(), payload[first].tolist(), size.tolist(), strict=False):
        ctypes.memmove(runs.ctypes.data + target, source, count)
    shift = np.repeat(into[:-1] - payload[first], last - first + 1)
    return _without_gaps(runs, payload + shift, length)


def _without_gaps(runs: np.ndarray, at: np.ndarray, length: np.ndarray) -> memoryview:
    """The pieces ``[at, at + length)`` of ``runs`` with a newline behind each: at least one foreign byte lies there."""
    import pyarrow as pa

    runs[at + length] = 10
    bounds = np.empty(2 * len(at), np.int64)
    bounds[0::2], bounds[1::2] = at, at + length + 1
    pieces = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(runs)]
    )
    packed = pieces.take(pa.array(np.arange(0, len(bounds) - 1, 2)))
    return memoryview(packed.buffers()[2])[: int((length + 1).sum())]

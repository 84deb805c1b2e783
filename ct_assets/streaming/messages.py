"""A batch of undecoded messages in one buffer: no Python object a message.

What goes here: the layout that every source fills and every decoder reads. What does not: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Buffer = bytes | bytearray | memoryview

ABSENT = -1  # no append time; as a length: a tombstone
NEWLINE = b"\n"


@dataclass
class Messages:
    """``data`` holds the payloads in order; the arrays have one element a message.

    ``start``/``length``: where a payload lies in ``data`` (length -1: a tombstone, a message without value);
    ``partition``/``offset``: ascending offsets within a partition; ``append_time``: microseconds UTC, -1 when absent;
    ``packed``: one newline byte and nothing else between two payloads and behind the last one. Otherwise any bytes lie
    there, at least one behind each payload.
    """

    data: Buffer
    start: I64
    length: I64
    partition: I32
    offset: I64
    append_time: I64
    packed: bool = True

    def __len__(self) -> int:
        """How many messages, tombstones included."""
        return len(self.start)

    @classmethod
    def empty(cls) -> Messages:
        """No message."""
        none = np.empty(0, np.int64)
        return cls(b"", none, none, np.empty(0, np.int32), none, none)

    @classmethod
    def from_values(
        cls,
        values: Sequence[bytes | None],
        partition: int | npt.ArrayLike = 0,
        offset: npt.ArrayLike | None = None,
        append_time: npt.ArrayLike | None = None,
    ) -> Messages:
        """From payloads (None: tombstone); offsets count from 0 and append times are absent unless given."""
        n = len(values)
        if None in values:
            length = np.fromiter((ABSENT if v is None else len(v) for v in values), np.int64, n)
        else:
            length = np.fromiter(map(len, cast("Sequence[bytes]", values)), np.int64, n)
        return cls(
            data=NEWLINE.join([*(v for v in values if v is not None), b""]),
            start=_starts(length),
            length=length,
            partition=np.broadcast_to(np.asarray(partition, np.int32), n).copy(),
            offset=np.arange(n, dtype=np.int64) if offset is None else np.asarray(offset, np.int64).reshape(n),
            append_time=np.full(n, ABSENT, np.int64)
            if append_time is None
            else np.broadcast_to(np.asarray(append_time, np.int64), n).copy(),
        )

    @classmethod
    def from_lines(cls, data: Buffer, partition: int = 0, first_offset: int = 0) -> Messages:
        """One message a line of ``data``, which ends with a newline; no append times."""
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord(NEWLINE)).astype(np.int64)
        start = np.concatenate([np.zeros(min(len(ends), 1), np.int64), ends[:-1] + 1])
        n = len(ends)
        return cls(
            data,
            start,
            ends - start,
            np.full(n, partition, np.int32),
            np.arange(first_offset, first_offset + n, dtype=np.int64),
            np.full(n, ABSENT, np.int64),
        )

    def partitions(self) -> list[int]:
        """The partitions in the batch, ascending."""
        return list(last_of_each(self.partition))

    def last_of_each(self) -> dict[int, int]:
        """Of each partition in the batch the index of its last message."""
        return last_of_each(self.partition)

    def payload(self, index: int) -> bytes | None:
        """The bytes of one message; None for a tombstone."""
        length = int(self.length[index])
        if length < 0:
            return None
        start = int(self.start[index])
        return bytes(self.data[start : start + length])

    def take(self, indices: npt.ArrayLike) -> Messages:
        """The messages at these positions, in that order, in a buffer of their own."""
        where = np.asarray(indices, np.int64)
        if self.packed and len(where) == len(self) and np.array_equal(where, np.arange(len(self))):
            return self
        length = self.length[where]
        data = _packed(np.frombuffer(self.data, np.uint8), self.start[where], length)
        return Messages(
            data, _starts(length), length, self.partition[where], self.offset[where], self.append_time[where]
        )

    def slice(self, begin: int, end: int) -> Messages:
        """The messages [begin, end), in a buffer of their own."""
        here = slice(begin, end)
        whole = self.length[here] >= 0
        if not whole.any():
            low = high = 0
        else:
            starts, ends = self.start[here][whole], (self.start + self.length + 1)[here][whole]
            low, high = int(starts.min()), int(ends.max())
        start = np.where(whole, self.start[here] - low, 0)
        return Messages(
            bytes(self.data[low:high]),
            start,
            self.length[here],
            self.partition[here],
            self.offset[here],
            self.append_time[here],
            self.packed,
        )

    @classmethod
    def concat(cls, parts: Sequence[Messages]) -> Messages:
        """Several batches one after the other."""
        parts = [p for p in parts if len(p)]
        if not parts:
            return cls.empty()
        if len(parts) == 1:
            return parts[0]
        shift = np.cumsum([0, *(len(p.data) for p in parts[:-1])])
        return cls(
            data=b"".join(bytes(p.data) for p in parts),
            start=np.concatenate([p.start + s for p, s in zip(parts, shift, strict=True)]),
            length=np.concatenate([p.length for p in parts]),
            partition=np.concatenate([p.partition for p in parts]),
            offset=np.concatenate([p.offset for p in parts]),
            append_time=np.concatenate([p.append_time for p in parts]),
            packed=all(p.packed for p in parts),
        )


def last_of_each(partition: I32) -> dict[int, int]:
    """Of each partition, ascending, the index of its last message."""
    backwards = partition[::-1]
    return {
        p: len(backwards) - 1 - int(np.argmax(backwards == p)) for p in np.flatnonzero(np.bincount(partition)).tolist()
    }


def _starts(length: I64) -> I64:
    """Where each payload begins when they follow each other, each with its newline."""
    start = np.zeros(len(length), np.int64)
    np.cumsum(length[:-1] + 1, out=start[1:])  # a tombstone has length -1: it takes nothing
    return start


def _packed(data: npt.NDArray[np.uint8], start: I64, length: I64) -> Buffer:
    """The payloads at these places, each followed by a newline; nothing for a tombstone."""
    there = length >= 0
    if not there.all():
        start, length = start[there], length[there]
    if not len(start):
        return b""
    ends = start + length + 1
    if (start[1:] >= ends[:-1]).all():
        out = _taken(data, start, ends)
    else:
        out = data[np.repeat(start - _starts(length), length + 1) + np.arange(int((length + 1).sum()))]
    out[np.cumsum(length + 1) - 1] = ord(NEWLINE)
    return out.data


def _taken(data: npt.NDArray[np.uint8], start: I64, end: I64) -> npt.NDArray[np.uint8]:
    """The pieces [start, end) end to end, which ascend: Arrow takes every second of the values between all the bounds."""
    import pyarrow as pa

    bounds = np.empty(2 * len(start), np.int64)
    bounds[0::2], bounds[1::2] = start, end
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    pieces = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(bounds) - 1, buffers)
    taken = pieces.take(pa.array(np.arange(0, len(bounds) - 1, 2))).buffers()[2]
    out = np.frombuffer(taken, np.uint8)[: int((end - start).sum())]
    return out if out.flags.writeable else out.copy()

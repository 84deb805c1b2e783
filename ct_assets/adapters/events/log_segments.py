"""The files of the embedded log: frames of records in segments, written once, read without a lock.

What goes here: the layout below, finding offsets in it, cutting a torn tail, retention. What does not: who reads which
partition, keys, time.

    DIR/topic.json                      {"id": ..., "topic": ...}: another id is another topic
    DIR/p00000/00000000000000000000.log a segment, named by the first offset in it; the last one grows
    DIR/p00000/writer.lock              held by the one process that appends

A frame is one append: header (magic, CRC-32 of all that follows the CRC, first offset, records, data bytes), then every
record's length (int32, -1 a tombstone) and append time (int64, microseconds), then the payloads, each followed by a newline:
a reader takes the payloads of a frame as they lie, whatever their number.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ct_assets.errors import CtError

HEADER = struct.Struct("<4sIqIQ")
MAGIC = b"CTE1"
SEGMENT_BYTES = 32 << 20
FRAME_RECORDS = 65_536
FRAME_BYTES = 16 << 20
_CRC_FROM = 8  # the CRC covers everything behind itself


class LogCorrupt(CtError):
    """Bytes in the middle of the log are not what was written."""


@dataclass(frozen=True)
class Frame:
    """One append as it lies in a segment: ``end`` is the byte behind it."""

    position: int
    offset: int
    records: int
    data_bytes: int

    @property
    def end(self) -> int:
        """The byte behind the frame."""
        return self.position + HEADER.size + 12 * self.records + self.data_bytes

    @property
    def next_offset(self) -> int:
        """The offset behind the frame."""
        return self.offset + self.records


@dataclass(frozen=True)
class Records:
    """Some records of one frame: payloads with their newlines, their lengths (-1: tombstone) and append times (us)."""

    offset: int
    data: bytes | memoryview
    lengths: np.ndarray
    append_time: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def split(self, count: int) -> tuple[Records, Records]:
        """The first ``count`` records and the rest."""
        cut = int(np.where(self.lengths[:count] < 0, 0, self.lengths[:count] + 1).sum())
        return (
            Records(self.offset, self.data[:cut], self.lengths[:count], self.append_time[:count]),
            Records(self.offset + count, self.data[cut:], self.lengths[count:], self.append_time[count:]),
        )


def encode(offset: int, values: Sequence[bytes | None], append_time: np.ndarray) -> bytes:
    """``values`` from ``offset`` on as one frame; ``append_time``: int64 microseconds, one each."""
    lengths = np.fromiter((-1 if value is None else len(value) for value in values), np.dtype("<i4"), len(values))
    data = b"".join(value + b"\n" for value in values if value is not None)
    head = HEADER.pack(MAGIC, 0, offset, len(values), len(data))[_CRC_FROM:]
    body = b"".join((head, lengths.tobytes(), append_time.astype("<i8").tobytes(), data))
    return MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def decode(raw: bytes, frame: Frame, path: Path) -> Records:
    """The records of ``frame`` whose bytes are ``raw``. Raises :class:`LogCorrupt` when the CRC disagrees."""
    if zlib.crc32(memoryview(raw)[_CRC_FROM:]) != struct.unpack_from("<I", raw, 4)[0]:
        raise LogCorrupt(
            f"{path}: the frame at byte {frame.position} (offsets {frame.offset} to {frame.next_offset - 1}) has another CRC",
            hint="the disk or another program changed it; restore the file, or delete the log and produce again",
        )
    at = HEADER.size + 4 * frame.records
    lengths = np.frombuffer(raw, "<i4", frame.records, HEADER.size).astype(np.int64)
    return Records(
        frame.offset,
        memoryview(raw)[at + 8 * frame.records :],  # a view: taking a frame apart in small steps copies nothing
        lengths,
        np.frombuffer(raw, "<i8", frame.records, at).astype(np.int64),
    )


def intact(fd: int, frame: Frame) -> bool:
    """Whether the frame's bytes agree with its CRC."""
    raw = os.pread(fd, frame.end - frame.position, frame.position)
    return zlib.crc32(memoryview(raw)[_CRC_FROM:]) == struct.unpack_from("<I", raw, 4)[0]


def read_frame(fd: int, frame: Frame, path: Path) -> Records:
    """The records of ``frame``."""
    return decode(os.pread(fd, frame.end - frame.position, frame.position), frame, path)


def frames(fd: int, position: int = 0) -> Iterator[Frame]:
    """The frames from byte ``position`` on that are wholly in the file, by their headers alone."""
    size = os.fstat(fd).st_size
    while position + HEADER.size <= size:
        magic, _, offset, records, data_bytes = HEADER.unpack(os.pread(fd, HEADER.size, position))
        frame = Frame(position, offset, records, data_bytes)
        if magic != MAGIC or frame.end > size:
            return
        yield frame
        position = frame.end


def segments(folder: Path) -> list[int]:
    """The first offsets of a partition's segments, ascending. Raises FileNotFoundError when there is none: never empty."""
    found = sorted(int(entry.name[:-4]) for entry in os.scandir(folder) if entry.name.endswith(".log"))
    if not found:
        raise FileNotFoundError(f"no segment in {folder}")
    return found


def segment_path(folder: Path, base: int) -> Path:
    """The file of the segment that begins at ``base``."""
    return folder / f"{base:020d}.log"


class End:
    """The end offset of a partition, found again from where the last look stopped."""

    def __init__(self, folder: Path) -> None:
        """Look at the partition in ``folder``."""
        self._folder, self._base, self._position, self._next = folder, -1, 0, 0

    def offset(self) -> int:
        """The offset behind the last whole frame."""
        base = segments(self._folder)[-1]
        path = segment_path(self._folder, base)
        fd = os.open(path, os.O_RDONLY)
        try:
            if base != self._base or os.fstat(fd).st_size < self._position:  # a new segment, or a truncated one
                self._base, self._position, self._next = base, 0, base
            found = list(frames(fd, self._position))
            while found and not intact(fd, found[-1]):  # a tail that a power cut left behind
                found.pop()
        finally:
            os.close(fd)
        if found:
            self._position, self._next = found[-1].end, found[-1].next_offset
        return self._next


class Cursor:
    """Reads one partition from an offset on. Sees whole frames only."""

    def __init__(self, folder: Path, offset: int) -> None:
        """Begin at ``offset``, which must lie between the partition's first and end offset."""
        self._folder = folder
        self._rest: Records | None = None
        self._fd = -1
        bases = segments(folder)
        self._open(max((base for base in bases if base <= offset), default=bases[0]))
        self.next_offset = self._base
        for frame in frames(self._fd):
            if frame.next_offset > offset:
                break
            self._position, self.next_offset = frame.end, frame.next_offset
        if self.next_offset < offset:  # inside a frame
            self._load()
            assert self._rest is not None
            self._rest = self._rest.split(offset - self.next_offset)[1]
            self.next_offset = offset

    def _open(self, base: int) -> None:
        self.close()
        self._base, self._position = base, 0
        self._path = segment_path(self._folder, base)
        self._fd = os.open(self._path, os.O_RDONLY)

    def size(self) -> tuple[int, int]:
        """Bytes of the open segment, and how many of them were read: fewer bytes than read is a truncated log."""
        return os.fstat(self._fd).st_size, self._position

    def read(self, limit: int) -> Records | None:
        """The next records, at most ``limit``; None when there is nothing new."""
        if self._rest is None and not self._load() and not (self._next_segment() and self._load()):
            return None
        assert self._rest is not None
        taken, rest = self._rest, None
        if len(taken) > limit:
            taken, rest = taken.split(limit)
        self._rest = rest
        self.next_offset = taken.offset + len(taken)
        return taken

    def _load(self) -> bool:
        frame = next(frames(self._fd, self._position), None)
        if frame is None:
            return False
        try:
            self._rest = read_frame(self._fd, frame, self._path)
        except LogCorrupt:
            if frame.end >= os.fstat(self._fd).st_size and self._is_last():
                return False  # a tail that a power cut left behind: the writer cuts it when it opens
            raise
        self._position = frame.end
        return True

    def _is_last(self) -> bool:
        return segments(self._folder)[-1] == self._base

    def _next_segment(self) -> bool:
        later = [base for base in segments(self._folder) if base > self._base]
        if not later or next(frames(self._fd, self._position), None) is not None:
            return False
        if later[0] != self.next_offset:
            raise LogCorrupt(
                f"{self._path} ends at offset {self.next_offset}, but the next segment begins at {later[0]}",
                hint="a segment is missing or was cut; restore it",
            )
        self._open(later[0])
        return True

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def cut_torn_tail(fd: int, base: int, path: Path) -> tuple[int, int]:
    """Cut what a crash left half written at the end of the last segment; returns its bytes and the next offset.

    Only the tail is ever cut: a bad frame with more behind it raises :class:`LogCorrupt`.
    """
    position, offset = 0, base
    for frame in frames(fd):
        if not intact(fd, frame):
            break
        position, offset = frame.end, frame.next_offset
    size = os.fstat(fd).st_size
    if position < size:
        _only_a_tail(fd, position, size, path)
        os.ftruncate(fd, position)
        os.fsync(fd)
    return position, offset


def _only_a_tail(fd: int, position: int, size: int, path: Path) -> None:
    head = os.pread(fd, HEADER.size, position)
    if len(head) < HEADER.size or not head.strip(b"\0"):
        return
    magic, _, offset, records, data_bytes = HEADER.unpack(head)
    if magic != MAGIC or Frame(position, offset, records, data_bytes).end < size:
        raise LogCorrupt(
            f"{path}: damaged at byte {position} with {size - position} bytes behind it: this is no torn tail",
            hint="restore the file; nothing was cut",
        )


def delete_segments_before(folder: Path, append_time: int) -> int:
    """Retention: delete whole segments whose records all arrived before ``append_time`` (us); returns how many.

    The last segment always stays, so a partition never forgets its next offset.
    """
    deleted = 0
    for base in segments(folder)[:-1]:
        path = segment_path(folder, base)
        fd = os.open(path, os.O_RDONLY)
        try:
            newest = max((int(read_frame(fd, frame, path).append_time.max()) for frame in frames(fd)), default=0)
        finally:
            os.close(fd)
        if newest >= append_time:
            break
        path.unlink()
        deleted += 1
    return deleted

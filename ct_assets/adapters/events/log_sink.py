"""Writing the embedded log: make a topic, add partitions, append.

What goes here: the one writer of a partition. What does not: the layout of the files (``log_segments``), reading (``log``).
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.adapters.events import log_segments as files
from ct_assets.adapters.events.port import SourceError
from ct_assets.errors import UsageError, wrong_path

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class LogLocked(SourceError):
    """Another process appends to this partition."""


def partition_folder(folder: Path, partition: int) -> Path:
    """The folder of one partition."""
    return folder / f"p{partition:05d}"


def log_partitions(folder: Path) -> list[int]:
    """The partitions of the log in ``folder``, ascending; none when there is no log."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] == "p")
    return sorted(int(name[1:]) for name in names if name[1:].isdigit())


def create_log(folder: str | Path, partitions: int = 1) -> Path:
    """Make an empty log of ``partitions`` in ``folder``. Raises when there is one already."""
    root = Path(folder)
    if (root / "topic.json").exists():
        raise UsageError(
            f"there is a log in {root} already", hint="add_partitions grows it; another folder is another log"
        )
    if partitions < 1:
        raise UsageError(f"a log of {partitions} partitions", hint="expected 1 or more")
    try:
        root.mkdir(parents=True, exist_ok=True)
        _make_partitions(root, range(partitions))
    except OSError as error:
        raise wrong_path("log://", root, "a folder, or a place to make one", error) or error from error
    part = root / "topic.json.part"
    part.write_text(json.dumps({"id": str(uuid.uuid4()), "topic": root.name}) + "\n")
    part.replace(root / "topic.json")
    return root


def add_partitions(folder: str | Path, total: int) -> None:
    """Grow the log to ``total`` partitions. Readers notice by themselves."""
    root = Path(folder)
    present = log_partitions(root)
    if total < len(present):
        raise UsageError(f"{root} has {len(present)} partitions; they can only grow, not become {total}")
    _make_partitions(root, range(len(present), total))


def _make_partitions(root: Path, numbers: range) -> None:
    for number in numbers:
        part = root / f".p{number:05d}"
        part.mkdir(exist_ok=True)
        files.segment_path(part, 0).touch()
        part.rename(partition_folder(root, number))


class _Writer:
    """Appends to one partition; holds its lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 20, 0).decode() or "unknown"
            os.close(self._lock)
            raise LogLocked(
                f"{folder} is being written by another process (pid {owner})", hint="wait for it, or stop it"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        try:
            self._begin(files.segments(folder)[-1])
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, base: int) -> None:
        path = files.segment_path(self._folder, base)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._size, self._next = files.cut_torn_tail(self._fd, base, path)
        _sync_folder(self._folder)

    def append(self, values: Sequence[bytes | None], append_time: np.ndarray) -> None:
        for low, high in _frame_cuts(values):
            if self._size >= files.SEGMENT_BYTES:
                os.fsync(self._fd)
                os.close(self._fd)
                self._begin(self._next)
            frame = files.encode(self._next, values[low:high], append_time[low:high])
            written = os.pwrite(self._fd, frame, self._size)
            while written < len(frame):  # a signal, or a disk that filled up: the second write says which
                written += os.pwrite(self._fd, frame[written:], self._size + written)
            self._size += len(frame)
            self._next += high - low

    def flush(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._lock)  # and with it the lock


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _frame_cuts(values: Sequence[bytes | None]) -> Iterator[tuple[int, int]]:
    low = size = 0
    for index, value in enumerate(values):
        length = len(value) + 1 if value is not None else 0
        if index > low and (size + length > files.FRAME_BYTES or index - low >= files.FRAME_RECORDS):
            yield low, index
            low = index
            size = 0
        size += length
    if low < len(values):
        yield low, len(values)


class LogSink:
    """An :class:`~ct_assets.adapters.events.port.EventSink` on the embedded log. One process a partition."""

    def __init__(self, folder: str | Path, partitions: int | None = None, clock: Clock | None = None) -> None:
        """Open the log in ``folder``; make it with ``partitions`` (default 1) when there is none."""
        self._folder = Path(folder)
        self._clock = clock or SystemClock()
        self._writers: dict[int, _Writer] = {}
        self._turn = 0
        if not (self._folder / "topic.json").exists():
            create_log(self._folder, partitions or 1)
        self._partitions = log_partitions(self._folder)
        if partitions is not None and partitions != len(self._partitions):
            raise UsageError(
                f"{folder} has {len(self._partitions)} partitions, not {partitions}",
                hint="leave the number away, or write into another folder",
            )

    def partitions(self) -> list[int]:
        """The log's partitions, ascending."""
        self._partitions = log_partitions(self._folder)
        return list(self._partitions)

    def send(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        partition: int | None = None,
        append_time: int | Sequence[int] | None = None,
    ) -> None:
        """Append ``values`` in order. Without key or partition a whole call goes to one partition, the next call to the next."""
        if not len(values):
            return
        times = self._times(len(values), append_time)
        if partition is not None:
            self._writer(partition).append(values, times)
            return
        targets = self._targets(len(values), keys)
        for number in np.unique(targets).tolist():
            rows = np.flatnonzero(targets == number)
            some = values if len(rows) == len(values) else [values[row] for row in rows.tolist()]
            self._writer(number).append(some, times[rows])

    def _times(self, count: int, append_time: int | Sequence[int] | None) -> np.ndarray:
        if append_time is None:
            append_time = (self._clock.now() - _EPOCH) // dt.timedelta(microseconds=1)
        return np.broadcast_to(np.asarray(append_time, np.int64), (count,))

    def _targets(self, count: int, keys: Sequence[bytes | None] | None) -> np.ndarray:
        number = len(self._partitions)
        self._turn = (self._turn + 1) % number
        if keys is None:
            return np.full(count, self._turn)
        return np.fromiter((self._turn if key is None else zlib.crc32(key) % number for key in keys), np.int64, count)

    def _writer(self, partition: int) -> _Writer:
        if partition not in self._writers:
            if partition not in self._partitions and partition not in self.partitions():
                raise UsageError(
                    f"{self._folder} has no partition {partition}", hint=f"it has 0 to {len(self._partitions) - 1}"
                )
            self._writers[partition] = _Writer(partition_folder(self._folder, partition))
        return self._writers[partition]

    def flush(self) -> None:
        """Return when everything sent is on disk."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Flush, and let another process write. Safe to repeat."""
        self.flush()
        while self._writers:
            self._writers.popitem()[1].close()

"""Reading the embedded log ``log://DIR``: an :class:`EventSource` without a broker, for one machine.

What goes here: positions, assignment, what must stop a reader. What does not: the files (``log_segments``), writing
(``log_sink``), the sharing of partitions (``log_group``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ct_assets.adapters.events.log_group import LogGroup
from ct_assets.adapters.events.log_segments import Cursor, End, Records, segments
from ct_assets.adapters.events.log_sink import LogSink, add_partitions, create_log, log_partitions, partition_folder
from ct_assets.adapters.events.port import (
    BEGINNING,
    LogTruncated,
    OffsetOutOfRange,
    OnAssign,
    OnPartitions,
    SourceError,
    SourceIdentity,
    Start,
    TopicRecreated,
    check_range,
    position_of,
)
from ct_assets.errors import wrong_path

if TYPE_CHECKING:
    from ct_assets.streaming.messages import Messages

__all__ = ["LogSink", "LogSource", "add_partitions", "create_log"]

LOOK_SECONDS = 0.1  # between two looks at the group, the partitions and the identity
_PAUSE_SECONDS = 0.002


class LogSource:
    """An :class:`~ct_assets.adapters.events.port.EventSource` on the log in a folder."""

    def __init__(self, folder: str | Path) -> None:
        """Open the log. Raises :class:`~ct_assets.adapters.events.port.SourceError` when there is none."""
        self._folder = Path(folder)
        self._id, self._topic = _topic(self._folder)
        if not self._id:
            raise SourceError(
                f"no event log in {self._folder}", hint=f"ct events produce FILE.jsonl --to log://{folder} makes one"
            )
        self._cursors: dict[int, Cursor] = {}
        self._ends: dict[int, End] = {}
        self._paused: set[int] = set()
        self._group: LogGroup | None = None
        self._callbacks: tuple[OnAssign, OnPartitions] | None = None
        self._next_look = 0.0
        self._turn = 0

    def identity(self) -> SourceIdentity:
        """The log's id, made when it was made; arrivals are stamped by the writer."""
        return SourceIdentity("log", "log", self._topic, self._id, True)

    def partitions(self) -> list[int]:
        """The log's partitions now."""
        return log_partitions(self._folder)

    def begin_offsets(self, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """The first offset that retention has left, per partition."""
        with self._explained():
            return {p: segments(partition_folder(self._folder, p))[0] for p in self._named(partitions)}

    def end_offsets(self, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """The offset behind the last whole frame, per partition."""
        with self._explained():
            return {
                p: self._ends.setdefault(p, End(partition_folder(self._folder, p))).offset()
                for p in self._named(partitions)
            }

    def _named(self, partitions: Sequence[int] | None) -> Sequence[int]:
        present = self.partitions()
        for p in partitions or ():
            if p in self._cursors and p not in present:
                raise FileNotFoundError(f"{partition_folder(self._folder, p)} is gone")
            if p not in present:
                raise SourceError(f"{self._folder} has no partition {p}", hint=f"it has {present}")
        return present if partitions is None else partitions

    def assign(self, offsets: Mapping[int, Start]) -> None:
        """Read exactly these partitions from these offsets."""
        self._same_topic()
        self._drop(list(self._cursors))
        self._add(offsets)

    def subscribe(self, group: str, on_assign: OnAssign, on_revoke: OnPartitions, on_lost: OnPartitions) -> None:
        """Share the log with other processes. ``on_lost`` is never called: a lock is lost only with its process."""
        self._same_topic()
        self._group = LogGroup(self._folder, group)
        self._callbacks = (on_assign, on_revoke)

    def _add(self, offsets: Mapping[int, Start]) -> None:
        begins, ends = self.begin_offsets(list(offsets)), self.end_offsets(list(offsets))
        wanted = {p: position_of(start).offset for p, start in offsets.items()}
        wanted = {p: begins[p] if offset == BEGINNING else offset for p, offset in wanted.items()}
        for p, offset in wanted.items():
            check_range(p, offset, begins[p], ends[p])
        for p, offset in wanted.items():
            self._cursors[p] = Cursor(partition_folder(self._folder, p), offset)

    def _drop(self, partitions: Sequence[int]) -> None:
        for p in partitions:
            self._cursors.pop(p).close()
            self._paused.discard(p)

    def poll(self, max_messages: int, timeout_s: float) -> Messages:
        """The next records of the assigned partitions, in turn."""
        deadline = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            with self._explained():
                if now >= self._next_look:
                    self._look()
                    self._next_look = now + LOOK_SECONDS
                found = self._read(max_messages)
            if found or now >= deadline:
                return _messages(found)
            time.sleep(min(_PAUSE_SECONDS, max(deadline - now, 0)))

    def _look(self) -> None:
        self._same_topic()
        if self._group is not None and self._callbacks is not None:
            on_assign, on_revoke = self._callbacks
            came = self._group.balance(self.partitions(), self._revoking(on_revoke))
            if came:
                self._add({p: start for p, start in on_assign(came).items() if p in came})
        for p, cursor in self._cursors.items():
            size, read = cursor.size()
            if size < read:
                raise LogTruncated(p, cursor.next_offset, self.end_offsets([p])[p])

    def _revoking(self, on_revoke: OnPartitions) -> Callable[[list[int]], None]:
        def revoke(partitions: list[int]) -> None:
            on_revoke(partitions)
            self._drop([p for p in partitions if p in self._cursors])

        return revoke

    def _read(self, max_messages: int) -> list[tuple[int, Records]]:
        """What there is, at most ``max_messages``; every call begins with another partition, so that none starves."""
        active = [p for p in sorted(self._cursors) if p not in self._paused]
        self._turn += 1
        found: list[tuple[int, Records]] = []
        for index in range(len(active)):
            p = active[(index + self._turn) % len(active)]
            while max_messages > 0:
                records = self._cursors[p].read(max_messages)
                if records is None:
                    break
                found.append((p, records))
                max_messages -= len(records)
        return found

    def _same_topic(self) -> None:
        found, _ = _topic(self._folder)
        if found != self._id:
            raise TopicRecreated(self._id, found)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as missing:
            raise self._vanished(missing) from missing

    def _vanished(self, missing: FileNotFoundError) -> Exception:
        """What a missing file means: a whole log goes file by file when somebody deletes it (F48), a segment alone (F47)."""
        found, _ = _topic(self._folder)
        left = {p: _first_held(partition_folder(self._folder, p)) for p in self._cursors}
        if found != self._id or None in left.values():
            return TopicRecreated(self._id, found if found != self._id else "")
        for p, cursor in self._cursors.items():
            if cursor.next_offset < (begin := left[p] or 0):
                return OffsetOutOfRange(p, cursor.next_offset, begin)
        return missing

    def positions(self) -> dict[int, int]:
        """The next offset of every assigned partition."""
        return {p: cursor.next_offset for p, cursor in self._cursors.items()}

    def leader_epochs(self) -> dict[int, int]:
        """None: a log has one writer and no elections."""
        return {}

    def commit_offsets(self, offsets: Mapping[int, int]) -> None:
        """Nothing: no tool of a broker looks at a log, and the truth lies with the state."""

    def pause(self, partitions: Sequence[int]) -> None:
        """Deliver nothing of these until resumed."""
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        """Go on with these."""
        self._paused.difference_update(partitions)

    def close(self) -> None:
        """Give back what the group holds (``on_revoke`` is called) and release the files. Safe to repeat."""
        if self._group is not None and self._callbacks is not None:
            if self._group.held:
                self._callbacks[1](self._group.held)
            self._group.leave()
            self._group = None
        self._drop(list(self._cursors))


def _topic(folder: Path) -> tuple[str, str]:
    """Id and name of the log in ``folder``; two empty texts when there is none."""
    try:
        found = json.loads((folder / "topic.json").read_text())
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        raise wrong_path("log://", folder, "the folder of a log", error) or error from error
    return found["id"], found["topic"]


def _first_held(folder: Path) -> int | None:
    try:
        return segments(folder)[0]
    except FileNotFoundError:
        return None


def _messages(found: list[tuple[int, Records]]) -> Messages:
    from ct_assets.streaming.messages import Messages

    if not found:
        return Messages.empty()
    length = np.concatenate([records.lengths for _, records in found])
    start = np.zeros(len(length), np.int64)
    np.cumsum(length[:-1] + 1, out=start[1:])  # a tombstone has length -1: it takes nothing
    return Messages(
        data=found[0][1].data if len(found) == 1 else b"".join(records.data for _, records in found),
        start=start,
        length=length,
        partition=np.concatenate([np.full(len(records), p, np.int32) for p, records in found]),
        offset=np.concatenate([np.arange(r.offset, r.offset + len(r), dtype=np.int64) for _, r in found]),
        append_time=np.concatenate([records.append_time for _, records in found]),
    )

"""Sharing the partitions of an embedded log among processes of one machine, by file locks alone.

What goes here: who is alive, who should have which partition, handing over. What does not: reading.

A member holds a lock on a file of its own (alive = locked: a killed process lets go at once) and one lock per partition
it reads. Partition i belongs to member i modulo the number of live members, in order of their names; who has too many
lets go first, and only then the other can lock: nobody ever reads what another still holds.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable
from pathlib import Path


class LogGroup:
    """One member of a group on a log."""

    def __init__(self, folder: Path, group: str) -> None:
        """Join ``group`` on the log in ``folder``."""
        self._root = folder / "groups" / group
        self._members = self._root / "members"
        self._members.mkdir(parents=True, exist_ok=True)
        self._name = uuid.uuid4().hex
        part = self._members / f".{self._name}"
        self._own = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._own, fcntl.LOCK_EX)
        part.rename(self._members / self._name)  # visible only once it is locked
        self._held: dict[int, int] = {}

    @property
    def held(self) -> list[int]:
        """The partitions that this member holds, ascending."""
        return sorted(self._held)

    def balance(self, partitions: list[int], on_revoke: Callable[[list[int]], None]) -> list[int]:
        """Let go of what others should have (``on_revoke`` first), take what this member should have; returns what came."""
        members = self._alive()
        rank, number = members.index(self._name), len(members)
        mine = {partition for index, partition in enumerate(partitions) if index % number == rank}
        surplus = sorted(set(self._held) - mine)
        if surplus:
            on_revoke(surplus)
            self._release(surplus)
        return [partition for partition in sorted(mine - set(self._held)) if self._lock(partition)]

    def leave(self) -> None:
        """Let go of everything."""
        self._release(list(self._held))
        if self._own >= 0:
            (self._members / self._name).unlink(missing_ok=True)
            os.close(self._own)
            self._own = -1

    def _alive(self) -> list[str]:
        names = [entry.name for entry in os.scandir(self._members) if not entry.name.startswith(".")]
        return sorted(name for name in names if name == self._name or _locked(self._members / name))

    def _lock(self, partition: int) -> bool:
        handle = os.open(self._root / f"p{partition:05d}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._held[partition] = handle
        return True

    def _release(self, partitions: list[int]) -> None:
        for partition in partitions:
            os.close(self._held.pop(partition))


def _locked(path: Path) -> bool:
    """Whether a living process holds ``path``; removes what a dead one left."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(handle)

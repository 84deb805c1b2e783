"""Files that others drop into ``<landing>/<pipeline>/inbox``: which are complete, and taking those in.

What goes here: the rules of completeness. What does not: the copying itself (``landing``).

A file is complete when a manifest or marker beside it says so, or when it kept size and times over the quiet period.
Sizes are compared between two looks by this machine's own clock, so that a file server with another clock (F38) or a
copy that keeps old times cannot make a half-written file look old. Files stay where they are; what was taken is
remembered and not read again.

Manifest: ``NAME.manifest.json`` with any of ``sha256``, ``size`` (bytes), ``rows`` (records without the header).
Marker: an empty ``NAME.done``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.adapters.landing import Delivered, NotDelivered, take_in
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.postgres.migrate import prepared_url
from ct_assets.adapters.storage import LocalStorage, open_storage
from ct_assets.settings import Settings

MARKER, MANIFEST = ".done", ".manifest.json"
_TEMPORARY = (".part", ".tmp", ".filepart", ".crdownload", "~")


@dataclass
class Scan:
    """What one look found: files taken in, names still waited for (with the reason), names refused (with the reason)."""

    taken: list[Delivered] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def inbox_folder(settings: Settings, pipeline: str) -> Path:
    """Where others drop files for a pipeline; made on first use."""
    folder = settings.landing / pipeline / "inbox"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def scan(settings: Settings, pipeline: str, *, clock: Clock | None = None, wait: bool = False) -> Scan:
    """Look once, take in what is complete; ``wait`` looks a second time after the quiet period if something is new."""
    clock = clock or SystemClock()
    found = _look(settings, pipeline, clock)
    if wait and any(reason == _SETTLING for reason in found.waiting.values()):
        clock.sleep(settings.quiet_seconds)
        second = _look(settings, pipeline, clock)
        second.taken = found.taken + second.taken
        return second
    return found


_SETTLING = "waiting until its size has been steady for the quiet period"


def _look(settings: Settings, pipeline: str, clock: Clock) -> Scan:
    folder = inbox_folder(settings, pipeline)
    memory = _Memory.load(folder.parent)
    result = Scan()
    ready = []
    for path in _candidates(folder, result):
        problem = _incomplete(path, memory, settings.quiet_seconds, clock)
        if problem is None:
            ready.append(path)
        elif problem:
            result.waiting[path.name] = problem
    if ready:
        storage = open_storage(settings)
        with connect(prepared_url(settings), autocommit=True) as conn:
            for path in sorted(ready, key=lambda p: p.name):
                try:
                    result.taken.append(take_in(conn, storage, pipeline, path))
                    memory.taken(path)
                except NotDelivered as problem:
                    result.refused[path.name] = problem.message
    memory.save()
    return result


def _candidates(folder: Path, result: Scan) -> Iterator[Path]:
    """Regular files directly in the inbox; markers, hidden and temporary names are passed over."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith(".") or entry.name.endswith((MARKER, MANIFEST, *_TEMPORARY)):
            continue
        if entry.is_symlink():
            result.refused[entry.name] = "a symbolic link: only files that lie in the inbox itself are read"
        elif not entry.is_file(follow_symlinks=False):
            result.refused[entry.name] = "not a regular file"
        else:
            yield folder / entry.name


def _incomplete(path: Path, memory: _Memory, quiet: float, clock: Clock) -> str | None:
    """Why a file is not taken yet; None when it is complete; '' when this very file was taken before."""
    if memory.was_taken(path):
        return ""
    manifest = path.with_name(path.name + MANIFEST)
    if manifest.exists():
        return _short_of(path, manifest)
    if path.with_name(path.name + MARKER).exists():
        return None
    return None if memory.steady_for(path, clock) >= quiet else _SETTLING


def _short_of(path: Path, manifest: Path) -> str | None:
    try:
        says = json.loads(manifest.read_text(encoding="utf-8"))
        assert isinstance(says, dict)
    except (ValueError, OSError, AssertionError):
        return f"{manifest.name} is not (yet) a JSON object with sha256, size or rows"
    if not says.keys() & {"sha256", "size", "rows"}:
        return f"{manifest.name} names none of sha256, size, rows"
    for name, measure in (("size", _size), ("rows", _rows), ("sha256", _sha256)):
        if name in says and measure(path) != says[name]:
            return f"{name} is {measure(path)}, its manifest says {says[name]}"
    return None


def _size(path: Path) -> int:
    return path.stat().st_size


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _rows(path: Path) -> int:
    """Records without the header: line ends outside of quotes; a last record without a line end counts."""
    lines, inside, last = 0, False, b"\n"
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            last = block[-1:]
            for i, part in enumerate(block.split(b'"')):
                inside = inside if i == 0 else not inside
                lines += 0 if inside else part.count(b"\n")
    return max(0, lines + (last != b"\n") - 1)


@dataclass
class _Memory:
    """What earlier looks saw: file ``.seen.json`` beside the inbox. Losing it costs time, not correctness."""

    file: Path
    seen: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> _Memory:
        file = folder / ".seen.json"
        try:
            seen = json.loads(file.read_text())
        except (FileNotFoundError, ValueError):
            seen = {}
        return cls(file, seen if isinstance(seen, dict) else {})

    def save(self) -> None:
        there = {name: entry for name, entry in self.seen.items() if (self.file.parent / "inbox" / name).exists()}
        LocalStorage(self.file.parent).put(self.file.name, json.dumps(there).encode())

    def was_taken(self, path: Path) -> bool:
        entry = self.seen.get(path.name)
        return bool(entry and entry.get("taken") and entry["print"] == _print(path))

    def taken(self, path: Path) -> None:
        self.seen[path.name] = {"print": _print(path), "taken": True}

    def steady_for(self, path: Path, clock: Clock) -> float:
        """Seconds for which the file has looked as it does now."""
        now, entry = clock.now().timestamp(), self.seen.get(path.name)
        if entry is None or entry["print"] != _print(path) or entry.get("since", now) > now:
            self.seen[path.name] = {"print": _print(path), "since": now}
            return 0.0
        return now - entry["since"]


def _print(path: Path) -> list[int]:
    """What changes whenever somebody writes: inode, size, both times."""
    state = path.lstat()
    assert stat.S_ISREG(state.st_mode)
    return [state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]

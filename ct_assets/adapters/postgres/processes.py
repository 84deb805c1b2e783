"""Which processes work on a PostgreSQL data folder: read from the process table, never from a name alone.

What goes here: the pid file and the process table. What does not: starting, stopping (``server``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Postmaster:
    """What ``postmaster.pid`` says (format: PostgreSQL's ``src/include/utils/pidfile.h``)."""

    pid: int
    socket_folder: str
    port: int
    ready: bool


def read_pid_file(data: Path) -> Postmaster | None:
    """The server recorded for ``data``; None when there is no file or it is still being written."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return Postmaster(int(lines[0]), lines[4].strip(), int(lines[3]), lines[7].strip() == "ready")
    except (FileNotFoundError, IndexError, ValueError):
        return None


def working_on(data: Path) -> list[int]:
    """Ids of living ``postgres`` processes whose working folder is ``data`` (every server process sits there)."""
    target = os.path.realpath(data)
    if not os.path.isdir("/proc/self"):
        return _working_on_without_proc(target)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and _is_postgres_in(name, target):
            found.append(int(name))
    return found


def _is_postgres_in(pid: str, target: str) -> bool:
    try:  # a zombie has no working folder: readlink fails, and it rightly does not count
        return os.readlink(f"/proc/{pid}/cwd") == target and "postgres" in Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return False


def _working_on_without_proc(target: str) -> list[int]:
    import psutil

    found = []
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if "postgres" in (process.info["name"] or "") and process.cwd() == target:
                found.append(process.info["pid"])
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found

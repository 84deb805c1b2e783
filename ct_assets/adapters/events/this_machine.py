"""What runs and what listens on this machine, without a library: ``/proc`` where there is one, else ``ps``.

What goes here: the questions. What does not: starting and ending processes (``broker``), PostgreSQL's (``postgres.processes``).
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

PROC = Path("/proc")


def alive(pid: int) -> bool:
    """Whether the process runs; reaps it when it is a child of this one that ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:  # somebody else's child
        state = state_and_command(pid)[0]
        return state not in ("", "Z") or (state == "Z" and _threads(pid) > 1)


def _threads(pid: int) -> int:
    """A killed Java ends thread by thread: the first is Z up to a second before the last lets go of the port."""
    try:
        return len(list((PROC / str(pid) / "task").iterdir()))
    except OSError:
        return 0


def state_and_command(pid: int) -> tuple[str, str]:
    """A letter (Z: it ended, nobody waited for it) and the command line; two empty texts when there is no such process."""
    if not PROC.exists():  # macOS
        command = ["ps", "-ww", "-p", str(pid), "-o", "stat=", "-o", "command="]
        state, _, line = subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition(" ")
        return state[:1], line.strip()
    try:
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
        return state, (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "", ""


def listens(port: int) -> bool:
    """Whether something takes connections on this port of the loopback interface."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

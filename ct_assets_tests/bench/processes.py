"""CPU seconds and memory of processes, from outside, by /proc (Linux).

What goes here: reading counters, watching a peak. What does not: starting or ending anything.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        found += _children(parent)
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def resident_mb(pid: int) -> float:
    """Resident memory now, MB; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        return 0.0


class Watch:
    """Follows process trees until :meth:`stop`: the peak of their resident memory together, and their CPU seconds."""

    def __init__(self, pids: Iterable[int], every_seconds: float = 0.2) -> None:
        """Begin at once, on a thread."""
        self.peak_mb = 0.0
        self._cpu: dict[int, float] = {}
        self._series: list[tuple[float, float]] = []  # Unix seconds, CPU seconds so far
        self._pids, self._every, self._ended = list(pids), every_seconds, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def cpu(self, begin: float = 0.0, end: float = float("inf")) -> float:
        """CPU seconds of all processes seen between two moments (Unix seconds)."""
        if not self._series:
            return 0.0
        times, total = zip(*self._series, strict=True)
        if end == float("inf"):
            return total[-1] - (float(np.interp(begin, times, total)) if begin else 0.0)
        return float(np.interp(end, times, total) - np.interp(begin, times, total))

    def stop(self) -> Watch:
        """The last look was taken."""
        self._ended.set()
        self._thread.join()
        return self

    def _follow(self) -> None:
        while not self._ended.wait(self._every):
            everybody = [pid for root in self._pids for pid in tree(root)]
            self.peak_mb = max(self.peak_mb, sum(map(resident_mb, everybody)))
            for pid in everybody:
                fields = _stat(pid)
                if fields:
                    self._cpu[pid] = sum(map(int, fields[11:13])) / _TICKS
            self._series.append((time.time(), sum(self._cpu.values())))

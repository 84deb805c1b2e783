"""Supervision: worker processes that are started again when they crash or stall, and stopped together.

What goes here: the parent of the workers. What does not: what a worker does, metrics.

A child speaks through a pipe: a line after every pass of its loop that committed something or had nothing waiting. A
child whose pipe stays silent for ``stall_seconds`` hangs (fault F50): it is killed and started again. Exit codes of a
child: 0 done; 1 and 2 are decisions (stopped with an incident, wrong usage) and are not tried again; anything else,
signals and ``CRASHED`` included, is a crash and is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

DECIDED = (0, 1, 2)
CRASHED = (
    70  # a child's exit code for an error that nobody foresaw, or a database that stayed away (sysexits' EX_SOFTWARE)
)
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
STEADY_SECONDS = 60.0  # a child that lived this long begins with the first wait again


@dataclass
class _Child:
    number: int
    process: subprocess.Popen
    pipe: int
    started: float
    heard: float
    crashes: int = 0
    told: bool = False  # that it should stop


@dataclass
class Supervisor:
    """Keeps ``workers`` processes of ``command`` alive until each ended by decision, or until told to stop."""

    command: Sequence[str]
    workers: int
    say: Callable[[str], None]
    own: Callable[[int], Sequence[str]] = lambda number: ()  # what is added to the command of worker ``number``
    stall_seconds: float = 60.0
    drain_seconds: float = 30.0
    restarts: int = field(default=0, init=False)
    _stopping: bool = field(default=False, init=False)
    _again: dict[int, tuple[float, int]] = field(default_factory=dict, init=False)  # number -> (when, crashes)

    def run(self) -> int:
        """Run until the end; returns the worst exit code that was a decision."""
        previous = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        children = [self._start(number, 0) for number in range(self.workers)]
        worst = 0
        try:
            while children or self._again:
                self._listen(children)
                children += self._due()
                for child in list(children):
                    code = self._ended(child)
                    if code is None:
                        continue
                    children.remove(child)
                    worst = max(worst, self._after(child, code))
        finally:
            for child in children:
                child.process.kill()
                child.process.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return worst

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start(self, number: int, crashes: int) -> _Child:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        try:
            process = subprocess.Popen(
                [*self.command, *self.own(number), "--heartbeat-fd", str(writer)],
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        now = time.monotonic()
        return _Child(number, process, reader, now, now, crashes)

    def _listen(self, children: list[_Child]) -> None:
        """Wait up to half a second for heartbeats; pass a stop on to the children once."""
        pipes = {child.pipe: child for child in children}
        ready, _, _ = select.select(list(pipes), [], [], 0.5) if pipes else ([], [], [])
        if not pipes:
            time.sleep(0.1)
        for pipe in ready:
            if os.read(pipe, 65536):
                pipes[pipe].heard = time.monotonic()
            else:
                time.sleep(0.05)  # closed: the child is ending
        if self._stopping:
            self._again.clear()
            for child in children:
                if child.process.poll() is None and not child.told:
                    child.process.terminate()
                    child.told, child.heard = True, time.monotonic()

    def _ended(self, child: _Child) -> int | None:
        code = child.process.poll()
        silent = time.monotonic() - child.heard
        allowed = self.drain_seconds if self._stopping else self.stall_seconds
        if code is None and silent > allowed:
            self.say(f"worker {child.number}: no sign of progress for {silent:.0f} s; killing it")
            child.process.kill()
            code = child.process.wait()
        if code is not None:
            os.close(child.pipe)
        return code

    def _after(self, child: _Child, code: int) -> int:
        if code in DECIDED:
            return code
        if self._stopping:  # told before it could listen: Python was still starting, and nothing was in hand
            return 0 if child.told and code == -signal.SIGTERM else 1
        lived = time.monotonic() - child.started
        crashes = 1 if lived > STEADY_SECONDS else child.crashes + 1
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (crashes - 1))
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.say(f"worker {child.number}: ended with {how} after {lived:.0f} s; again in {wait:.1f} s")
        self._again[child.number] = (time.monotonic() + wait, crashes)
        self.restarts += 1
        return 0

    def _due(self) -> list[_Child]:
        now = time.monotonic()
        due = [number for number, (when, _) in self._again.items() if when <= now]
        return [self._start(number, self._again.pop(number)[1]) for number in due]

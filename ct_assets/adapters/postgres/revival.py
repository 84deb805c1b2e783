"""Start the embedded server again when it was killed while a long command works.

What goes here: noticing and starting. What does not: repeating the work that lost its connection (the command's own).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ct_assets.adapters.postgres.server import Server
from ct_assets.errors import CtError

LOOK_SECONDS = 0.5  # a look costs well under a millisecond


class Revival:
    """Watches the server of one home. ``count`` is how often it was started again.

    A server that was *stopped* (`ct stop`) has removed its pid file and stays down: somebody wanted that. One that was
    killed has left it.
    """

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        """``say`` gets one line each time the server is started again."""
        self.server, self.say, self.count = Server(home), say, 0
        self._one_at_a_time = threading.Lock()

    def look(self) -> int:
        """Start the server if it was killed; returns :attr:`count`."""
        with self._one_at_a_time:
            if self.server.running() is None and (self.server.data / "postmaster.pid").exists():
                self.server.ensure()
                self.count += 1
                self.say("the embedded PostgreSQL had ended unexpectedly: started again, nothing committed is lost")
        return self.count


@contextmanager
def revived(home: Path, say: Callable[[str], None]) -> Iterator[Revival]:
    """Look every half second, in a thread, until the block ends."""
    revival, done = Revival(home, say), threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            try:
                revival.look()
            except CtError:  # it cannot be started: the command meets the same error and says it
                return

    thread = threading.Thread(target=watch, name="postgres-revival", daemon=True)
    thread.start()
    try:
        yield revival
    finally:
        done.set()
        thread.join()

"""Ctrl-C and lost connections of long commands: what was reached, what is safe, how to go on.

What goes here: the second Ctrl-C, recognising a lost connection. What does not: what a command says about its own work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from ct_assets.errors import CtError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Interrupts:
    """How many SIGINT came. ``seen`` is a count that no handler can swallow."""

    def __init__(self) -> None:
        """None so far."""
        self.seen = 0

    def any(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.seen > 0

    def count(self, signals: socket.socket) -> None:
        """Read what the interpreter writes until it closes its end; the second SIGINT ends the process."""
        with signals:
            while received := signals.recv(1):
                self.seen += received[0] == signal.SIGINT
                if self.seen == 2:
                    os.write(2, b"interrupted again: ended at once; nothing half is visible\n")
                    os._exit(INTERRUPTED)


@contextlib.contextmanager
def second_ends_at_once() -> Iterator[Interrupts]:
    """Within the block a second SIGINT ends the process at once, whoever has replaced Python's handler.

    Dagster puts its own handlers in place while a run executes, so the signals are counted where the interpreter
    itself writes them: its wakeup file descriptor (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd).
    Every commit here is one transaction: ending anywhere leaves nothing half.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    ours, interpreters = socket.socketpair()
    interpreters.setblocking(False)
    before = signal.set_wakeup_fd(interpreters.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=interrupts.count, args=(ours,), name="second-interrupt", daemon=True).start()
    try:
        yield interrupts
    finally:
        signal.set_wakeup_fd(before)
        interpreters.close()  # ends the thread


def lost_connection(error: BaseException | None) -> CtError | None:
    """What a person is told when ``error`` came from a connection to PostgreSQL that broke; None for anything else.

    By name, because drivers are imported only where they are used: psycopg's and SQLAlchemy's ``OperationalError``,
    dagster-postgres' own exception after its retries.
    """
    first = error
    while error is not None:
        module = type(error).__module__.split(".")[0]
        broke = any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)
        if (broke and module in ("psycopg", "psycopg2", "sqlalchemy")) or module == "dagster_postgres":
            said = str(first).strip().splitlines() or [type(error).__name__]
            return CtError(
                f"the connection to PostgreSQL was lost: {said[0]}",
                hint="what was committed is safe and nothing half is visible; `ct doctor` says whether the server"
                " answers, then run the same command again",
            )
        error = error.__cause__ or error.__context__
    return None

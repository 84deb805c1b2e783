"""Commits in the background: while one batch is being committed, the next is read, decoded and judged.

What goes here: one thread, one waiting batch, and what a failed commit means. What does not: the transaction's content
(``adapters.stream.state``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from ct_assets.adapters.stream.state import DeadLetterRow, PartitionProgress


@dataclass(frozen=True)
class Batch:
    """What one commit holds: progress of each partition, accepted events, dead letters, when it was polled, and those of
    the letters that are events which came too late."""

    progress: list[PartitionProgress]
    events: pl.DataFrame
    dead: list[DeadLetterRow]
    polled_at: float  # time.monotonic
    messages: int
    late: pl.DataFrame | None = None


@dataclass(frozen=True)
class Committed:
    """How one commit went; seconds."""

    messages: int
    events: int
    dead: int
    commit_seconds: float
    since_poll_seconds: float


class Committer:
    """Runs ``commit(batch)`` on a thread, one at a time, in order.

    :meth:`submit` blocks while a batch waits already: that is the back-pressure, at most two batches are in memory
    beside the one being judged. After a failure nothing more is committed; :meth:`submit` and :meth:`flush` raise what
    failed, and the caller starts again from what the database holds.
    """

    def __init__(self, commit: Callable[[Batch], None], done: Callable[[Committed], None]) -> None:
        """``done`` is called on the committing thread after each success."""
        self._commit, self._done = commit, done
        self._state = threading.Condition()
        self._waiting: Batch | None = None
        self._busy = False
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="stream-committer", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Hand over a batch; blocks while another waits. Raises what an earlier commit raised."""
        with self._state:
            self._state.wait_for(lambda: self._waiting is None or self._failure is not None)
            self._raise()
            self._waiting = batch
            self._state.notify_all()

    def flush(self) -> None:
        """Wait until all that was handed over is committed. Raises what failed."""
        with self._state:
            self._state.wait_for(lambda: (self._waiting is None and not self._busy) or self._failure is not None)
            self._raise()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being committed."""
        with self._state:
            return self._waiting is None and not self._busy

    def check(self) -> None:
        """Raise what a commit raised, if one did."""
        with self._state:
            self._raise()

    def recover(self) -> None:
        """Forget a failure and what waited behind it: the session is about to start again from the database."""
        with self._state:
            self._state.wait_for(lambda: not self._busy)
            self._failure, self._waiting = None, None
            self._state.notify_all()

    def close(self) -> None:
        """Stop the thread; what waits is committed first unless a commit failed."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            started = time.monotonic()
            failure: BaseException | None = None
            try:
                self._commit(batch)
            except BaseException as error:  # noqa: BLE001 - handed to the loop, which decides
                failure = error
            ended = time.monotonic()
            if failure is None:
                self._done(
                    Committed(
                        batch.messages, len(batch.events), len(batch.dead), ended - started, ended - batch.polled_at
                    )
                )
            with self._state:
                self._busy, self._failure = False, failure
                self._state.notify_all()

    def _next(self) -> Batch | None:
        with self._state:
            self._state.wait_for(lambda: self._closing or (self._waiting is not None and self._failure is None))
            if self._waiting is None or self._failure is not None:
                return None
            batch, self._waiting, self._busy = self._waiting, None, True
            self._state.notify_all()
            return batch

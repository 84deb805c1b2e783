"""What a worker is given and what it says at its end.

What goes here: its options, the parts it is made of, the counts of a run. What does not: the loop that uses them (``worker``),
finding the parts by a user's settings (``wiring``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.adapters.crash import Crash, no_crash

if TYPE_CHECKING:
    from ct_assets.adapters.events.port import EventSource
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.redis_sync import Twin
    from ct_assets.adapters.stream.state import Stream
    from ct_assets.adapters.stream_worker.alarm import DeadLetterAlarm
    from ct_assets.adapters.stream_worker.metrics import Metrics
    from ct_assets.adapters.stream_worker.session import Decoder
    from ct_assets.streaming.definition import Acceptance

PATIENCE_SECONDS = 120.0  # how long database or broker may stay away before the worker gives up


@dataclass(frozen=True)
class Options:
    """How a worker runs. ``max_messages`` bounds a batch, so memory does not depend on the lag."""

    group: str
    owner: str
    max_messages: int = 100_000
    poll_seconds: float = 0.02
    until_idle: bool = False
    patience_seconds: float = PATIENCE_SECONDS
    keep_refused: bool = False  # go on when all first messages of a new stream are refused


@dataclass
class Summary:
    """What one run did."""

    messages: int = 0
    events: int = 0
    late: int = 0
    duplicates: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    tombstones: int = 0
    nothing_accepted: bool = False  # messages were set aside, and the stream never accepted one
    commits: int = 0
    restarts: int = 0
    seconds: float = 0.0
    first_message_at: float | None = None  # Unix seconds: with the next, how long the work itself took
    last_commit_at: float | None = None

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {**self.__dict__, "dead": dict(sorted(self.dead.items())), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Wiring:
    """What a worker is made of."""

    url: str  # PostgreSQL: stream state, offsets and online rows
    open_source: Callable[[], EventSource]
    stream: Stream
    acceptance: Acceptance
    tables: Sequence[OnlineTable]
    decoder: Decoder
    metrics: Metrics
    say: Callable[[str], None]
    beat: Callable[[], None] = lambda: None
    alarm: DeadLetterAlarm | None = None
    clock: Clock = field(default_factory=SystemClock)
    crash: Crash = no_crash
    twin: Twin | None = None  # the copy of the online rows in Redis


def own_name(number: int = 0) -> str:
    """A name for this process in the ledger: host, process id and number."""
    import socket

    return f"{socket.gethostname()}:{os.getpid()}:{number}"

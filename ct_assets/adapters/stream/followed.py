"""Tables of pinned versions in a process that reads for long: looked up again now and then, because they move.

What goes here: how long a found table is trusted. What does not: finding one (``versions``), reads.

A reader pins a version by its hash. The version stays, its table does not: `ct stream deploy --source` lets the same
definition answer over another topic, from another table, and `ct stream retire` drops the old one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.versions import find_table

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable

FOLLOW_SECONDS = 2.0  # how long a move may go unseen; a look costs one query


@dataclass
class FollowedTables:
    """The tables of versions by name and hash, each at most ``FOLLOW_SECONDS`` old. Threads may share it."""

    clock: Callable[[], float] = time.monotonic  # seconds
    _found: dict[tuple[str, str], tuple[OnlineTable, float]] = field(default_factory=dict, init=False)

    def table(self, conn: psycopg.Connection, name: str, hash_: str) -> OnlineTable:
        """The table of a version; the one that answers when it is there over several topics. Raises UsageError."""
        now, before = self.clock(), self._found.get((name, hash_))
        if before is not None and now - before[1] < FOLLOW_SECONDS:
            return before[0]
        table = find_table(conn, name, hash_)
        if before is not None and before[0] == table:
            table = before[0]  # it holds its queries ready
        self._found[name, hash_] = table, now
        return table

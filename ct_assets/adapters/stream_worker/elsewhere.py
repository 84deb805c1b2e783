"""Whether the partitions that a worker does not hold are read to their end too: `--until-idle` means the whole topic.

What goes here: that question. What does not: the worker's own partitions (``worker``).

Between the death of a worker and the end of its session in the group (6 s) nobody has its partitions, and the others get to
the end of theirs in that time: a run that ended then would have left messages behind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ct_assets.adapters.events.port import SourceError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.events.port import EventSource
    from ct_assets.adapters.stream.records import Stream

EVERY_SECONDS = 0.2
STILL_SECONDS = 30.0  # five sessions: whoever was to take the partitions has not


@dataclass
class Elsewhere:
    """What was found at the last look."""

    stream: Stream
    is_read: bool = field(default=False, init=False)
    _behind: dict[int, int] = field(default_factory=dict, init=False)
    _since: float = field(default=0.0, init=False)
    _looked_at: float = field(default=0.0, init=False)

    def look(self, source: EventSource, held: Sequence[int], conn: psycopg.Connection) -> None:
        """Ask the source for its partitions and the database how far each was read.

        Raises SourceError, so that the worker joins its group anew, when nobody moves them for ``STILL_SECONDS``.
        """
        now = time.monotonic()
        others = [p for p in source.partitions() if p not in held]
        if others and now - self._looked_at < EVERY_SECONDS:
            return
        self._looked_at = now
        behind = self._unread(source, others, conn) if others else {}
        if behind != self._behind:
            self._behind, self._since = behind, now
        self.is_read = not behind
        if behind and now - self._since > STILL_SECONDS:
            self._since = now
            raise SourceError(f"nobody reads the partitions {sorted(behind)}", hint="do all workers name one --group?")

    def _unread(self, source: EventSource, others: Sequence[int], conn: psycopg.Connection) -> dict[int, int]:
        rows = conn.execute(
            "select partition, next_offset from stream.partition where stream_id = %s", (self.stream.stream_id,)
        ).fetchall()
        reached, begins, ends = dict(rows), source.begin_offsets(others), source.end_offsets(others)
        places = {p: max(reached.get(p, 0), begins[p]) for p in others}
        return {p: at for p, at in places.items() if at < ends[p]}

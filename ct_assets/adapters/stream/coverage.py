"""Which stored events a topic can no longer give: what a version loses when it is read from the topic again.

What goes here: comparing stored events with the offsets at which a topic, or another reading of it, begins. What does
not: whether a deployment goes on then (``cli/stream_deploy``), building from stored events (``deployment``).

Two streams over one topic count the same offsets, so an offset says which event is meant whatever the contract made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.chunks import OFFSET, EventQuery, event_frames

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.records import Stream

_ALL = 2**62  # beyond any count of replays


@dataclass(frozen=True)
class Coverage:
    """``begins``: the first offset of each partition that was compared; ``gone``: stored events before them; ``unread``:
    stored events of partitions of which nothing was read again."""

    begins: Mapping[int, int]
    gone: int
    unread: int = 0

    @property
    def lacking(self) -> list[str]:
        """What is missing, a sentence each."""
        found = []
        if self.gone:
            begins = ", ".join(f"{offset} (partition {p})" for p, offset in sorted(self.begins.items()))
            found.append(f"the topic begins at {begins}: {self.gone:,} stored events are no longer in the topic")
        if self.unread:
            found.append(f"{self.unread:,} stored events lie in partitions that are not read yet")
        return found

    def __str__(self) -> str:
        """For people."""
        return "; ".join(self.lacking) or "every stored event is still in the topic"


def of_topic(
    conn: psycopg.Connection, stream: Stream, begins: Mapping[int, int], storage: Storage | None = None
) -> Coverage:
    """Stored events of ``stream`` against the first offsets that its topic holds by now."""
    return Coverage(begins, sum(_before(conn, stream, p, first, storage) for p, first in begins.items()))


def of_stream(conn: psycopg.Connection, old: Stream, new: Stream, storage: Storage | None = None) -> Coverage | None:
    """Stored events of ``old`` against what was read for ``new``; None: they are not over the same topic."""
    if (old.source_kind, old.cluster_id, old.topic_id) != (new.source_kind, new.cluster_id, new.topic_id):
        return None
    rows = conn.execute(
        """select partition, coalesce(least(
                   (select min(first_offset) from stream.chunk c where (c.stream_id, c.partition) = (p.stream_id, p.partition)),
                   (select min("offset") from stream.dead_letter d where (d.stream_id, d.partition) = (p.stream_id, p.partition))
               ), next_offset)
           from stream.partition p where stream_id = %s and next_offset >= 0""",
        (new.stream_id,),
    ).fetchall()
    begins = dict(rows)
    unread = conn.execute(
        "select coalesce(sum(rows), 0)::bigint from stream.chunk where stream_id = %s and partition <> all(%s)",
        (old.stream_id, list(begins)),
    ).fetchone()
    assert unread is not None
    found = of_topic(conn, old, begins, storage)
    return Coverage(begins, found.gone, unread[0])


def _before(conn: psycopg.Connection, stream: Stream, partition: int, first: int, storage: Storage | None) -> int:
    """Accepted events of a partition before an offset: whole chunks by their rows, the one across it by its events."""
    import polars as pl

    row = conn.execute(
        """select coalesce(sum(rows), 0)::bigint, coalesce(max(next_offset), -1) from stream.chunk
           where stream_id = %s and partition = %s and replay is null and next_offset <= %s""",
        (stream.stream_id, partition, first),
    ).fetchone()
    assert row is not None
    whole, end = row
    query = EventQuery(
        partitions=(partition,),
        after={partition: (end, 0)},
        version={partition: (first, _ALL)},
        columns=(),
        only=pl.col(OFFSET) < first,
    )
    return whole + sum(map(len, event_frames(conn, stream, query, storage)))

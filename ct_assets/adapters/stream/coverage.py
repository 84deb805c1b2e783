"""What a version lacks of the events that its windows reach: expired in the topic, removed by retention, lost unread.

What goes here: comparing stored events with the offsets at which a topic, or another reading of it, begins; from when on
values are whole. What does not: whether a deployment goes on then (``cli/stream_deploy``), building from stored events
(``deployment``), giving up what was lost (``losses``).

Two streams over one topic count the same offsets, so an offset says which event is meant whatever the contract made of it.
A version is whole from the moment on at which its longest window no longer reaches what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.chunks import OFFSET, EventQuery, event_frames

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.records import Stream

_ALL = 2**62  # beyond any count of replays


@dataclass(frozen=True)
class Coverage:
    """``begins``: the first offset of each partition that was compared (none: it is built from the stored events);
    ``gone``: stored events before them; ``unread``: stored events of partitions of which nothing was read again.

    ``removed``: events that retention has removed; ``whole_from``: from when on windows do not reach them (microseconds;
    None: they reach none of them as of the newest event).
    """

    begins: Mapping[int, int] | None
    gone: int = 0
    unread: int = 0
    removed: int = 0
    whole_from: int | None = None

    @property
    def lacking(self) -> list[str]:
        """What is missing, a sentence each."""
        found = []
        if self.gone and self.begins is not None:
            begins = ", ".join(f"{offset} (partition {p})" for p, offset in sorted(self.begins.items()))
            found.append(f"the topic begins at {begins}: {self.gone:,} stored events are no longer in the topic")
        if self.unread:
            found.append(f"{self.unread:,} stored events lie in partitions that are not read yet")
        if self.whole_from is not None:
            found.append(
                f"retention has removed {self.removed:,} events that its windows reach: its values are whole from"
                f" {moment_text(self.whole_from)} on"
            )
        return found

    def __str__(self) -> str:
        """For people."""
        whole = "every stored event is still in the topic" if self.begins is not None else "no event is missing"
        return "; ".join(self.lacking) or whole


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
    given_up = conn.execute(
        "select partition, first_offset, next_offset from stream.accepted_loss where stream_id = %s", (new.stream_id,)
    ).fetchall()
    lost = sum(
        _before(conn, old, p, end, storage) - _before(conn, old, p, first, storage) for p, first, end in given_up
    )
    return Coverage(begins, found.gone + lost, unread[0])


def of_retention(conn: psycopg.Connection, stream: Stream, window_us: int, lacks_before: int | None = None) -> Coverage:
    """A version with windows up to ``window_us`` that is built from the stored events now; ``lacks_before``: that was
    built when retention had removed those before that event time."""
    row = conn.execute(
        """select coalesce(%s, s.removed_before), p.events - c.rows, p.top
           from stream.stream s
           cross join lateral (select sum(events)::bigint as events, max(top) as top from stream.partition
                               where stream_id = s.stream_id) p
           cross join lateral (select coalesce(sum(rows), 0)::bigint as rows from stream.chunk
                               where stream_id = s.stream_id) c
           where s.stream_id = %s""",
        (lacks_before, stream.stream_id),
    ).fetchone()
    assert row is not None
    lacks, removed, top = row
    if lacks is None or top is None or top + 1 - window_us >= lacks:
        return Coverage(None)
    return Coverage(None, removed=removed, whole_from=lacks + window_us)


def of_version(conn: psycopg.Connection, table: OnlineTable) -> Coverage:
    """A version that is built, by what retention had removed then."""
    from ct_assets.adapters.stream.state import find_stream

    row = conn.execute(
        "select lacks_before from stream.definition where definition_id = %s", (table.definition_id,)
    ).fetchone()
    if row is None or row[0] is None:
        return Coverage(None)
    return of_retention(conn, find_stream(conn, table.stream_id), table.definition.max_window_us, row[0])


def whole_from(conn: psycopg.Connection, table: OnlineTable, at_us: int, *, stored: bool = False) -> int | None:
    """From when on the values of a version are whole when those at ``at_us`` are not; None: they are, as far as is known.

    ``stored``: values that are computed from the stored events (which refuse what retention has removed).
    """
    row = conn.execute(
        """select greatest(case when not %s then d.lacks_before end,
                           (select max(ends) from stream.accepted_loss l
                            where l.stream_id = d.stream_id and (begins is null or begins < %s)))
           from stream.definition d where definition_id = %s""",
        (stored, at_us, table.definition_id),
    ).fetchone()
    if row is None or row[0] is None:
        return None
    whole = row[0] + table.definition.max_window_us
    return whole if at_us < whole else None


def in_reach_of_losses(conn: psycopg.Connection, table: OnlineTable, moments: npt.NDArray[np.int64]) -> int:
    """At how many of ``moments`` (microseconds) windows reach messages that were given up unread."""
    import numpy as np

    lost = np.zeros(len(moments), np.bool_)
    for begins, ends in conn.execute(
        "select begins, ends from stream.accepted_loss where stream_id = %s", (table.stream_id,)
    ).fetchall():
        here = moments < ends + table.definition.max_window_us
        lost |= here if begins is None else here & (moments > begins)
    return int(np.count_nonzero(lost))


def moment_text(moment_us: int) -> str:
    """A moment for people and scripts: ISO 8601, UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)).isoformat()


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

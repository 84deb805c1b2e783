"""Messages that a topic deleted before they were read (F47): which, and giving them up in an audited step.

What goes here: comparing positions with what the topic still holds, moving positions on, the record of it. What does not:
noticing the loss while reading (``adapters.events.port``), what values lack then (``coverage``), the command
(``cli/stream_losses``).

Nothing moves a position by itself: only a person's command does, in one transaction that raises the partition's epoch, so
a worker that still holds the partition writes nothing over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ct_assets.adapters.events.port import LogTruncated
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.events.port import EventSource
    from ct_assets.adapters.stream.records import Stream

_WAIT_SECONDS = 5.0  # for the first message that a partition still holds; without it the loss ends now


@dataclass(frozen=True)
class Loss:
    """Offsets ``[first_offset, next_offset)`` of a partition, deleted unread. Times in microseconds, None where unknown:
    ``after``: the newest append time that was read; ``before``: that of the first message the topic still holds."""

    partition: int
    first_offset: int
    next_offset: int
    after: int | None = None
    before: int | None = None

    @property
    def offsets(self) -> int:
        """How many; at most so many messages (a topic's transactions and compaction take offsets too)."""
        return self.next_offset - self.first_offset


def lost_unread(conn: psycopg.Connection, stream: Stream, source: EventSource) -> list[Loss]:
    """What the topic no longer holds of what is to be read next, by partition. Raises :class:`LogTruncated` when a
    partition ends before what was read: that is no such loss."""
    rows = conn.execute(
        """select partition, next_offset, last_append from stream.partition
           where stream_id = %s and next_offset >= 0 order by partition""",
        (stream.stream_id,),
    ).fetchall()
    present = set(source.partitions())
    begins, ends = source.begin_offsets(), source.end_offsets()
    found = []
    for partition, following, appended in rows:
        if partition not in present:
            continue
        if following > ends[partition]:
            raise LogTruncated(partition, following, ends[partition])
        if following < begins[partition]:
            first = begins[partition]
            before = _appended(source, partition, first) if first < ends[partition] else None
            found.append(Loss(partition, following, first, appended, before))
    return found


def accept(conn: psycopg.Connection, stream: Stream, losses: Sequence[Loss], by: str) -> None:
    """Move each partition on to what the topic still holds, and record it; all or nothing.

    An event of the lost ones that would have been accepted lies between the watermark less the allowed lateness and its
    append time plus the future skew: these times are kept for ``coverage``. Raises CtError when a partition moved since.
    """
    rules = stream.acceptance
    with conn.transaction():
        for loss in sorted(losses, key=lambda loss: loss.partition):
            moved = conn.execute(
                """update stream.partition set next_offset = %s, epoch = epoch + 1, owner = null, caught_up = false,
                       updated_at = clock_timestamp()
                   where stream_id = %s and partition = %s and next_offset = %s returning top""",
                (loss.next_offset, stream.stream_id, loss.partition, loss.first_offset),
            ).fetchone()
            if moved is None:
                raise CtError(
                    f"partition {loss.partition} moved on from offset {loss.first_offset} meanwhile; nothing was changed",
                    hint="look again at what is lost: the same command without --yes",
                )
            begins = moved[0] and moved[0] - rules.out_of_orderness_us - rules.allowed_lateness_us
            conn.execute(
                """insert into stream.accepted_loss
                       (stream_id, partition, first_offset, next_offset, begins, ends, accepted_by)
                   values (%s, %s, %s, %s, %s,
                           coalesce(%s, (extract(epoch from clock_timestamp()) * 1000000)::bigint) + %s, %s)""",
                (
                    stream.stream_id,
                    loss.partition,
                    loss.first_offset,
                    loss.next_offset,
                    begins,
                    loss.before,
                    rules.max_future_skew_us,
                    by,
                ),
            )


def _appended(source: EventSource, partition: int, offset: int) -> int | None:
    """Append time of the first message from ``offset`` on; None where it has none, or does not come in time."""
    source.assign({partition: offset})
    messages = source.poll(1, _WAIT_SECONDS)
    if not len(messages) or int(messages.append_time[0]) < 0:
        return None
    return int(messages.append_time[0])

"""A moment in which nothing of a stream is committed, for what must see all of its events and none twice.

What goes here: the locks and their order. What does not: what is done meanwhile (``deployment``), commits (``state``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.records import Stream

_LOCK_AGAIN_SECONDS = 0.05


@contextmanager
def held_still(conn: psycopg.Connection, stream: Stream) -> Iterator[None]:
    """A transaction during which nothing of the stream is committed, by no partition that is there and by none that comes.

    A commit waits for its partition's row, and the first claim of a new partition for the stream's, to which its own row
    refers. For that one nobody waits here: whoever claims may hold it and wait for a partition that is locked here.
    """
    from psycopg import Rollback

    while True:
        with conn.transaction() as transaction:
            if _is_locked(conn, stream):
                yield
                return
            raise Rollback(transaction)
        time.sleep(_LOCK_AGAIN_SECONDS)


def _is_locked(conn: psycopg.Connection, stream: Stream) -> bool:
    """Lock every partition, then the stream; False when somebody has the stream, or had added a partition meanwhile."""
    from psycopg.errors import LockNotAvailable

    known = "select partition from stream.partition where stream_id = %s order by partition"
    locked = conn.execute(f"{known} for no key update".encode(), (stream.stream_id,)).fetchall()
    try:
        with conn.transaction():
            conn.execute("select from stream.stream where stream_id = %s for update nowait", (stream.stream_id,))
    except LockNotAvailable:
        return False
    return conn.execute(known, (stream.stream_id,)).fetchall() == locked

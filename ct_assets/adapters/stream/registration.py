"""First contact of a definition with a topic: its stream and its version, built from the stored events if there are any.

What goes here: what `ct stream run` needs before its first poll, what `ct stream deploy` does for a name that nobody
answers yet, and how a first contact with the wrong topic is undone. What does not: the build itself (``deployment``), tables (``online``), switching (``versions``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ct_assets.adapters.stream import coverage, deployment, online
from ct_assets.adapters.stream.state import find_stream, has_accepted, open_stream
from ct_assets.adapters.stream.versions import BUILD_LOCK, DDL_LOCK, drop, ready_tables, registered_table

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.events.port import SourceIdentity
    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.records import Stream
    from ct_assets.streaming.definition import Definition

_LOOK_SECONDS = 0.2
_TOLD_EVERY = 5_000_000  # events


@dataclass(frozen=True)
class Watcher:
    """Whom a build tells: people by ``say``, a supervisor that waits for a sign of life by ``beat``."""

    say: Callable[[str], None] = lambda _: None
    beat: Callable[[], None] = lambda: None
    _told: list[int] = field(default_factory=lambda: [0])

    def folded(self, events: int) -> None:
        """So many events are folded by now."""
        self.beat()
        if events >= self._told[0] + _TOLD_EVERY:
            self._told[0] = events
            self.say(f"{events:,} events folded")


def open_versions(
    conn: psycopg.Connection,
    definitions: Sequence[Definition],
    identity: SourceIdentity,
    storage: Storage | None = None,
    watcher: Watcher | None = None,
) -> tuple[Stream, list[OnlineTable]]:
    """The stream of the definitions over a topic and each one's table; registered on first use. Idempotent.

    A new name on a stream that holds events is built from them first, while other workers go on. Raises UsageError when
    another version of a name answers; nothing is registered then. A version over a stream that refused every message so
    far gives way.
    """
    with conn.transaction():  # a refusal leaves no empty stream behind
        stream = open_stream(conn, definitions[0].schema.name, definitions[0].acceptance, identity)
        for definition in definitions:
            _give_way(conn, stream, definition)
            if not _is_to_build(conn, stream, definition):
                online.ensure(conn, stream, definition)
    return stream, [first_version(conn, stream, d, storage, watcher or Watcher()) for d in definitions]


def first_version(
    conn: psycopg.Connection, stream: Stream, definition: Definition, storage: Storage | None, watcher: Watcher
) -> OnlineTable:
    """The table of a definition that answers from now on, built from what is stored if it must be.

    Two processes may call this at once: one builds, the other waits. One that was killed is begun again.
    """
    if not _is_to_build(conn, stream, definition):
        return online.ensure(conn, stream, definition)
    with alone(conn, definition.name, watcher):
        if _is_to_build(conn, stream, definition):
            watcher.say(f"{definition.name} is new on {stream.name}, which holds events: building it from them ...")
            built = deployment.build(conn, definition, stream, storage, watcher.folded)
            watcher.say(f"{definition.name} is built: {built.events:,} events within reach of a window")
            for lack in coverage.of_version(conn, built.table).lacking:
                watcher.say(f"{definition.name}: {lack}")
        return online.ensure(conn, stream, definition)


def forget(conn: psycopg.Connection, stream: Stream, owner: str) -> None:
    """Give ``owner``'s partitions back, and undo the first contact if nothing was ever committed and nobody else is there.

    Else the next run, on the right topic, would hear that the definition answers elsewhere. Versions that were deployed
    over the stream stay.
    """
    with conn.transaction():
        _lock(conn, stream.stream_id)
        conn.execute(
            "update stream.partition set owner = null, caught_up = false where stream_id = %s and owner = %s",
            (stream.stream_id, owner),
        )
        touched = conn.execute(
            """select from stream.partition where stream_id = %s and next_offset >= 0
               union all select from stream.definition d left join stream.active a using (definition_id)
               where d.stream_id = %s and (a.name is null or a.previous_id is not null)""",
            (stream.stream_id, stream.stream_id),
        ).fetchone()
        if touched is not None or _is_worked_on(conn, stream.stream_id):
            return
        for table in ready_tables(conn, stream):
            _drop_answering(conn, table)
        conn.execute("delete from stream.partition where stream_id = %s", (stream.stream_id,))
        conn.execute("delete from stream.stream where stream_id = %s", (stream.stream_id,))


def _give_way(conn: psycopg.Connection, stream: Stream, definition: Definition) -> None:
    """Drop the version that answers under the name when its stream has refused all it read: no value is lost with it."""
    row = conn.execute(
        """select d.definition_id, d.stream_id from stream.active a join stream.definition d using (definition_id)
           where a.name = %s and a.previous_id is null and (d.stream_id, d.hash) <> (%s, %s)
             and (select sum(events) = 0 and sum(dead) > 0 from stream.partition p where p.stream_id = d.stream_id)""",
        (definition.name, stream.stream_id, definition.hash),
    ).fetchone()
    if row is None:
        return
    _lock(conn, row[1])
    if not _is_worked_on(conn, row[1]) and not has_accepted(conn, find_stream(conn, row[1])):
        _drop_answering(conn, registered_table(conn, row[0]))


def _lock(conn: psycopg.Connection, stream_id: int) -> None:
    """No version is made or dropped, no partition claimed or committed until this transaction ends."""
    conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
    conn.execute("select from stream.stream where stream_id = %s for update", (stream_id,))
    conn.execute("select from stream.partition where stream_id = %s order by partition for update", (stream_id,))


def _is_worked_on(conn: psycopg.Connection, stream_id: int) -> bool:
    """Whether a worker holds a partition and was heard of within the 15 s after which `ct stream status` calls it silent."""
    row = conn.execute(
        """select from stream.partition where stream_id = %s and owner is not null
             and updated_at > clock_timestamp() - interval '15 seconds'""",
        (stream_id,),
    ).fetchone()
    return row is not None


def _drop_answering(conn: psycopg.Connection, table: OnlineTable) -> None:
    conn.execute("delete from stream.active where definition_id = %s", (table.definition_id,))
    online.withdraw_function(conn, table.definition.name)
    drop(conn, table)


def _is_to_build(conn: psycopg.Connection, stream: Stream, definition: Definition) -> bool:
    """Whether nobody answers under the name and the stream may hold events that its table lacks."""
    found, active = online.standing(conn, stream, definition)
    if active is not None:
        return False
    return online.has_history(conn, stream) if found is None else found[1] == "building"


@contextmanager
def alone(conn: psycopg.Connection, name: str, watcher: Watcher) -> Iterator[None]:
    """Hold the lock of a name on this session (it goes with the process): whoever builds a version of it does."""
    key, waits = (BUILD_LOCK, name), False
    while conn.execute("select pg_try_advisory_lock(%s, hashtext(%s))", key).fetchone() != (True,):
        if not waits:
            watcher.say(f"another process builds a version of {name}: waiting for it ...")
        waits = True
        watcher.beat()
        time.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(%s, hashtext(%s))", key)

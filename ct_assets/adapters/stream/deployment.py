"""Deploying a changed definition: what would change, building its table beside the old one, comparing both.

What goes here: plan, build, compare. What does not: switching (``versions``), the command line (``cli/stream_deploy``).

A version is built from the stored events while workers go on: first what is there, then, with the stream locked for a
moment, what came meanwhile; in that same transaction it becomes ready, and from then on every commit writes it too. So no
event is missed or counted twice, no worker restarts, and the old version stays correct: going back is one switch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream import online
from ct_assets.adapters.stream.chunks import EventQuery, event_frames
from ct_assets.adapters.stream.online import OnlineTable
from ct_assets.adapters.stream.standstill import held_still
from ct_assets.adapters.stream.state import Stream, find_stream, next_commit_id, stream_over
from ct_assets.adapters.stream.versions import DDL_LOCK, Version, drop, listed, registered_table
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.events.port import SourceIdentity
    from ct_assets.adapters.storage import Storage
    from ct_assets.streaming.definition import Definition

_ROWS_AT_ONCE = 200_000


@dataclass(frozen=True)
class Plan:
    """What deploying a definition would do. ``changes``: one line each; empty for ``nothing`` and ``first``.

    ``action``: nothing (this version answers), first (the name is new), build (from stored events), switch (built
    already), new_stream (what decides acceptance differs: the topic must be judged again), new_topic (nothing is stored
    of the topic that was named). ``topic``: where the version that answers reads.
    """

    name: str
    hash: str
    action: str
    active_hash: str | None = None
    changes: tuple[str, ...] = ()
    topic: str | None = None


def plan(conn: psycopg.Connection, definition: Definition, source: SourceIdentity | None = None) -> Plan:
    """Compare a definition with the version that answers; changes nothing.

    ``source``: the topic over which it shall answer (default: that of the version that answers).
    """
    versions = listed(conn, definition.name)
    active = next((v for v in versions if v.is_active), None)
    if active is None:
        return Plan(definition.name, definition.hash, "first")
    old, stream = registered_table(conn, active.definition_id).definition, find_stream(conn, active.stream_id)
    if source is None:
        action = _action_here(versions, active, old, definition)
    else:
        over = stream_over(conn, definition.acceptance, source)
        action = _action_over(versions, over, definition)
        if action == "new_topic" and is_of(stream, source):  # the topic it reads already: the contract differs
            action = "new_stream"
    changes = tuple(_changes(old, definition))
    topic = f"{stream.source_kind}://{stream.topic}"
    return Plan(definition.name, definition.hash, action, active.hash, changes, topic)


def is_of(stream: Stream, source: SourceIdentity) -> bool:
    """Whether a stream reads this topic."""
    theirs = (source.kind, source.cluster_id, source.topic_id)
    return (stream.source_kind, stream.cluster_id, stream.topic_id) == theirs


def _action_here(versions: Sequence[Version], active: Version, old: Definition, definition: Definition) -> str:
    if active.hash == definition.hash:
        return "nothing"
    if any(v.hash == definition.hash and v.state == "ready" for v in versions):
        return "switch"
    return "build" if old.acceptance == definition.acceptance else "new_stream"


def _action_over(versions: Sequence[Version], stream: Stream | None, definition: Definition) -> str:
    if stream is None:
        return "new_topic"
    there = [v for v in versions if (v.hash, v.stream_id, v.state) == (definition.hash, stream.stream_id, "ready")]
    if not there:
        return "build"
    return "nothing" if any(v.is_active for v in there) else "switch"


def _changes(old: Definition, new: Definition) -> Iterator[str]:
    before, after = ({a.name: a for a in d.aggregates} for d in (old, new))
    for name in before.keys() - after.keys():
        yield f"- {name}"
    for name in sorted(after.keys() - before.keys()):
        yield f"+ {name}: {_sentence(asdict(after[name]))}"
    for name in sorted(before.keys() & after.keys()):
        yield from (f"~ {name}: {c}" for c in _differing(asdict(before[name]), asdict(after[name])))
    for key in ("ttl_us", "freshness_us", "on_stale", "emit_hop_us", "entity"):
        if getattr(old, key) != getattr(new, key):
            yield f"~ {key}: {getattr(old, key)} -> {getattr(new, key)}"
    yield from (f"! {c}" for c in _differing(asdict(old.acceptance), asdict(new.acceptance)))


def _differing(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    return (f"{key} {before[key]} -> {after[key]}" for key in before if before[key] != after[key])


def _sentence(aggregate: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in aggregate.items() if key != "name" and value not in (None, ()))


@dataclass(frozen=True)
class Built:
    """What a build did: events folded, of which while the partitions were locked, and how long that lock was."""

    table: OnlineTable
    events: int
    caught_up: int
    locked_seconds: float


def build(
    conn: psycopg.Connection,
    definition: Definition,
    stream: Stream | None = None,
    storage: Storage | None = None,
    folding: Callable[[int], None] = lambda _: None,
) -> Built:
    """Make the version's table from the stored events and let commits write it from then on; it does not answer yet.

    ``stream``: whose events (default: that of the version that answers); ``folding`` is told how many are done. Killed in between, it is simply begun again.
    Only events that a window can still reach are folded. Raises UsageError when acceptance differs.
    """
    stream = stream or _stream_of(conn, definition)
    if stream.acceptance != definition.acceptance:
        raise UsageError(
            f"{definition.name}: what decides acceptance differs from the stored events of stream {stream.name!r}",
            hint="run it over the topic as a stream of its own (`ct stream run`), then deploy to switch",
        )
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
        _discard_unfinished(conn, stream, definition)
        table = online.create(conn, stream, definition, "building")
    since = _reach(conn, table)
    with conn.transaction():
        version = _version(conn, stream)
    folded = _fold(conn, table, stream, EventQuery(since=since, version=version), storage, folding)
    with held_still(conn, stream):
        started = time.monotonic()
        reach = _reach(conn, table)  # lower than before when a partition came whose events are older
        since = None if since is None or reach is None else min(since, reach)
        rest = _fold(conn, table, stream, EventQuery(since=since, after=version), storage, folding)
        conn.execute("update stream.definition set state = 'ready' where definition_id = %s", (table.definition_id,))
    return Built(table, folded + rest, rest, time.monotonic() - started)


def register_elsewhere(
    conn: psycopg.Connection, stream: Stream, definition: Definition, storage: Storage | None = None
) -> OnlineTable:
    """Register a version over a stream of its own, to be filled by a worker from the topic; it does not answer yet.

    When the stream has been read already (by another definition), the version is built from what is stored.
    """
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
        if not online.has_history(conn, stream):
            return online.create(conn, stream, definition, "ready")
    return build(conn, definition, stream, storage).table


def _stream_of(conn: psycopg.Connection, definition: Definition) -> Stream:
    row = conn.execute(
        "select d.stream_id from stream.active a join stream.definition d using (definition_id) where a.name = %s",
        (definition.name,),
    ).fetchone()
    if row is None:
        raise UsageError(f"no version of {definition.name} answers yet", hint="`ct stream run` with it makes the first")
    return find_stream(conn, row[0])


def _discard_unfinished(conn: psycopg.Connection, stream: Stream, definition: Definition) -> None:
    row = conn.execute(
        "select definition_id, state from stream.definition where stream_id = %s and hash = %s",
        (stream.stream_id, definition.hash),
    ).fetchone()
    if row is None:
        return
    if row[1] == "ready":
        raise UsageError(f"this version of {definition.name} is built already", hint="switch to it")
    drop(conn, online.table_of(row[0], stream.stream_id, definition))


def _reach(conn: psycopg.Connection, table: OnlineTable) -> int | None:
    """The earliest event time that can still matter: behind the slowest partition."""
    row = conn.execute("select min(top) from stream.partition where stream_id = %s", (table.stream_id,)).fetchone()
    if row is None or row[0] is None:
        return None
    return online.garbage_limit(table, row[0] - table.definition.acceptance.out_of_orderness_us)


def _version(conn: psycopg.Connection, stream: Stream) -> dict[int, tuple[int, int]]:
    rows = conn.execute(
        "select partition, next_offset, replays from stream.partition where stream_id = %s", (stream.stream_id,)
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def _fold(  # noqa: PLR0913 - what, of which events, from where
    conn: psycopg.Connection,
    table: OnlineTable,
    stream: Stream,
    query: EventQuery,
    storage: Storage | None,
    folding: Callable[[int], None],
) -> int:
    """Fold events into a table, so many at a time; how many."""
    import polars as pl

    waiting: list[pl.DataFrame] = []
    total = 0

    def write() -> None:
        with conn.transaction():
            online.write_rows(conn, table, pl.concat(waiting), next_commit_id(conn))
        waiting.clear()

    for frame in event_frames(conn, stream, query, storage):
        waiting.append(frame)
        total += len(frame)
        folding(total)
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            write()
    if waiting:
        write()
    return total


@dataclass(frozen=True)
class Comparison:
    """Two versions read at the same moments. ``equal`` and ``different`` count values of aggregates that did not change;
    ``changed``: per changed aggregate how many values differ, of how many."""

    entities: int
    equal: int
    different: int
    changed: dict[str, tuple[int, int]] = field(default_factory=dict)


def compare(
    conn: psycopg.Connection, old: OnlineTable, new: OnlineTable, at_us: int, entities: int = 1_000
) -> Comparison:
    """Read up to ``entities`` of the latest entities from both versions at one moment, in one snapshot."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        chosen = [
            row[0]
            for row in conn.execute(
                f"select entity from {new.quoted} group by entity order by max(last_t) desc limit %s".encode(),
                (entities,),
            )
        ]
        before, after = online.read(conn, old, chosen, at_us), online.read(conn, new, chosen, at_us)
    old_by = {a.name: a for a in old.definition.aggregates}
    equal = different = 0
    changed: dict[str, tuple[int, int]] = {}
    for aggregate in new.definition.aggregates:
        if aggregate.name not in old_by:
            continue
        pairs = [(b[aggregate.name], a[aggregate.name]) for b, a in zip(before.values, after.values, strict=True)]
        unequal = sum(b != a for b, a in pairs)
        if old_by[aggregate.name] == aggregate:
            different += unequal
            equal += len(pairs) - unequal
        else:
            changed[aggregate.name] = (unequal, len(pairs))
    return Comparison(len(chosen), equal, different, changed)

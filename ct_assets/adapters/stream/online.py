"""Online tables: one physical table and one SQL function a definition version; bulk writes; garbage.

What goes here: their DDL, the upsert, removing rows that no window can reach. What does not: the rows' form (``layout``,
``online_rows``), the query of the function (``online_query``), which version answers (``versions``).

For people in SQL: ``select * from online.user_activity(array[42, 43], now())`` gives one row an entity in that order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ct_assets.adapters.postgres.copy import SIGNATURE, TRAILER
from ct_assets.adapters.stream.layout import ROW_EVENTS, Layout, document
from ct_assets.adapters.stream.online_query import (
    PUBLIC_EXTRAS,
    entity_type,
    function,
    function_body,
    many_query,
    one_query,
    public_body,
    returned,
)
from ct_assets.adapters.stream.online_read import OnlineValues, read
from ct_assets.adapters.stream.online_rows import SEQUENCE_BITS, Rows, fold, table_columns
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.stream.state import Stream
    from ct_assets.streaming.definition import Definition

__all__ = [
    "OnlineTable",
    "OnlineValues",
    "collect_garbage",
    "create",
    "ensure",
    "garbage_limit",
    "has_history",
    "publish_function",
    "read",
    "standing",
    "table_of",
    "write_rows",
]

_DDL_LOCK = 7_236_010


@dataclass(frozen=True)
class OnlineTable:
    """The online table of one version of a definition over one stream."""

    definition_id: int
    stream_id: int
    definition: Definition = field(compare=False)
    name: str  # of the table in schema online
    layout: Layout = field(repr=False, compare=False)

    @property
    def quoted(self) -> str:
        """The table's qualified name."""
        return f'online."{self.name}"'

    @property
    def function(self) -> str:
        """The qualified name of this version's function of (entities, microseconds)."""
        return f'online."{self.name}"'

    @cached_property
    def reads(self) -> tuple[bytes, bytes]:
        """The queries of :func:`read`: of one entity, of many."""
        place = (self.layout, self.quoted, self.stream_id)
        return one_query(*place), many_query(*place)

    @cached_property
    def upsert(self) -> str:
        """Move what was copied into the staging table to its rows: appended to the open row, or as rows of their own."""
        columns = [c.name for c in table_columns(self.layout)]
        closes = f"r.n + excluded.n >= {ROW_EVENTS}"
        changed = ["n = r.n + excluded.n", "version = excluded.version"]
        changed += ["first_t = least(r.first_t, excluded.first_t)", "last_t = greatest(r.last_t, excluded.last_t)"]
        changed.append(f"seq = case when {closes} then excluded.version << {SEQUENCE_BITS} else 0 end")
        for summary in self.layout.summaries:
            merge = {"lo": "least(r.{0}, excluded.{0})", "hi": "greatest(r.{0}, excluded.{0})"}
            changed.append(f"{summary.name} = " + merge.get(summary.what, "r.{0} + excluded.{0}").format(summary.name))
        arrays = [c.name for c in table_columns(self.layout) if c.postgres_type.endswith("[]")]
        changed += [f"{name} = r.{name} || excluded.{name}" for name in arrays]
        return (
            f"insert into {self.quoted} as r ({', '.join(columns)}) select {', '.join(columns)} from {self.staging}"
            f" on conflict (entity, part, tile, seq) do update set {', '.join(changed)}"
        )

    @property
    def staging(self) -> str:
        """The temporary table that a commit copies into."""
        return f"pg_temp.staged_{self.definition_id}"


def table_name(definition: Definition, stream_id: int) -> str:
    """At most 63 characters: PostgreSQL cuts off longer names in silence."""
    return f"{definition.name}_{definition.hash[:8]}_{stream_id}"


def ensure(conn: psycopg.Connection, stream: Stream, definition: Definition) -> OnlineTable:
    """The table of this version; made, and made the one that answers, when the name is new. Idempotent.

    Raises UsageError when another version of the name answers already and this one was never deployed (a changed
    definition is replayed beside the old one first: ``ct stream deploy``), and when a new table would lack events that
    the stream holds (``registration`` builds it from them).
    """
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (_DDL_LOCK,))
        found, active = standing(conn, stream, definition)
        if found is None and active is not None:
            raise _answered(conn, stream, definition, active)
        if found is not None and found[1] != "ready":
            hint = (
                "wait for the deployment that builds it; `ct stream deploy` begins one again that was ended"
                if found[1] == "building"
                else "deploy it again"
            )
            raise UsageError(f"this version of {definition.name} is {found[1]}", hint=hint)
        if found is not None:
            table = table_of(found[0], stream.stream_id, definition)
            _renew_function(conn, table)
        elif has_history(conn, stream):
            raise UsageError(
                f"{definition.name} has no table yet, and stream {stream.name!r} holds events that it would lack",
                hint="`ct stream run` with it builds it from them",
            )
        else:
            table = create(conn, stream, definition, "ready")
        if active is None:
            conn.execute(
                "insert into stream.active (name, definition_id) values (%s, %s)",
                (definition.name, table.definition_id),
            )
            publish_function(conn, table)
        return table


def standing(
    conn: psycopg.Connection, stream: Stream, definition: Definition
) -> tuple[tuple[int, str] | None, int | None]:
    """(id and state of this version over this stream, id of the version that answers under its name)."""
    found = conn.execute(
        "select definition_id, state from stream.definition where stream_id = %s and hash = %s",
        (stream.stream_id, definition.hash),
    ).fetchone()
    active = conn.execute("select definition_id from stream.active where name = %s", (definition.name,)).fetchone()
    return found, active[0] if active else None


def has_history(conn: psycopg.Connection, stream: Stream) -> bool:
    """Whether a worker ever held a partition of the stream; if not, none can begin before this transaction ends.

    A worker's first claim adds partitions, whose reference to the stream waits for this lock: so a version that is made
    in the same transaction misses nothing. It is not taken when there are partitions: a commit holds theirs first.
    """
    query = "select exists (select from stream.partition where stream_id = %s)"
    if conn.execute(query, (stream.stream_id,)).fetchone() == (False,):
        conn.execute("select from stream.stream where stream_id = %s for update", (stream.stream_id,))
    return conn.execute(query, (stream.stream_id,)).fetchone() == (True,)


def _answered(conn: psycopg.Connection, stream: Stream, definition: Definition, active: int) -> UsageError:
    """Why a version that was never deployed over this stream may not begin: another one answers."""
    row = conn.execute(
        """select d.hash, d.stream_id, s.source_kind || '://' || s.topic, (s.cluster_id, s.topic) = (%s, %s)
           from stream.definition d join stream.stream s using (stream_id) where d.definition_id = %s""",
        (stream.cluster_id, stream.topic, active),
    ).fetchone()
    assert row is not None
    hash_, stream_id, topic, same = row
    if hash_ != definition.hash or stream_id == stream.stream_id:
        return UsageError(
            f"another version of {definition.name} answers already, and {definition.path} was never deployed",
            hint="`ct stream plan` shows what differs, `ct stream deploy` replays and switches",
        )
    was = ", as that topic was before it was made again" if same else ""
    return UsageError(
        f"{definition.name} answers on {topic}{was}; the source is another topic",
        hint=f"`ct stream deploy --definition {definition.path} --source URL` says how to move it there",
    )


def create(conn: psycopg.Connection, stream: Stream, definition: Definition, state: str) -> OnlineTable:
    """Register a version and make its table and function, inside the open transaction, which holds the lock for that:
    what retention has removed by now the version lacks, what its windows reach is kept from now on (``compaction``)."""
    name = table_name(definition, stream.stream_id)
    row = conn.execute(
        """insert into stream.definition (name, hash, document, stream_id, table_name, state, lacks_before)
           select %s, %s, %s, stream_id, %s, %s, removed_before from stream.stream where stream_id = %s
           returning definition_id""",
        (definition.name, definition.hash, document(definition), name, state, stream.stream_id),
    ).fetchone()
    assert row is not None
    table = table_of(row[0], stream.stream_id, definition)
    for statement in _ddl(table):
        conn.execute(statement.encode())
    return table


def table_of(definition_id: int, stream_id: int, definition: Definition) -> OnlineTable:
    """The table of a registered version."""
    layout = Layout(definition)
    return OnlineTable(definition_id, stream_id, definition, table_name(definition, stream_id), layout)


def _ddl(table: OnlineTable) -> list[str]:
    layout = table.layout
    columns = [f"{c.name} {c.postgres_type}{' not null' if c.required else ''}" for c in table_columns(layout)]
    about = json.dumps({"definition": layout.definition.name, "hash": layout.definition.hash}).replace("'", "''")
    return [
        # room for the next versions of a row on its page; appended rows grow, so much of it
        f"create table {table.quoted} ({', '.join(columns)}, primary key (entity, part, tile, seq)) with (fillfactor = 70)",
        f"comment on table {table.quoted} is '{about}'",
        "create " + function(layout, table.quoted, table.stream_id),
    ]


def _renew_function(conn: psycopg.Connection, table: OnlineTable) -> None:
    """Give a version's function the query of this code, where an older one made it."""
    layout, signature = table.layout, f"{table.function}({entity_type(table.layout)}[],bigint)"
    row = conn.execute("select prosrc from pg_proc where oid = to_regprocedure(%s)", (signature,)).fetchone()
    if row is not None and row[0] != function_body(layout, table.quoted, table.stream_id):
        conn.execute(f"create or replace {function(layout, table.quoted, table.stream_id)}".encode())


def publish_function(conn: psycopg.Connection, table: OnlineTable) -> None:
    """Let ``online.<name>(entities, at)`` answer by this version, inside the open transaction: readers see old or new."""
    layout, name = table.layout, table.definition.name
    withdraw_function(conn, name)
    conn.execute(
        f"""create function online."{name}" (_entities {entity_type(layout)}[], _at timestamptz default now())
            returns table ({returned(layout, PUBLIC_EXTRAS)}) language sql stable parallel safe
            as $read${public_body(layout, table.function)}$read$""".encode()
    )


def withdraw_function(conn: psycopg.Connection, name: str) -> None:
    """Take ``online.<name>`` away, inside the open transaction."""
    conn.execute(
        f"""do $$ declare f regprocedure; begin
              for f in select oid::regprocedure from pg_proc where pronamespace = 'online'::regnamespace and proname = '{name}'
              loop execute 'drop function ' || f; end loop; end $$""".encode()
    )


def write_rows(conn: psycopg.Connection, table: OnlineTable, events: pl.DataFrame, commit_id: int) -> int:
    """Fold accepted events into the table, inside the open transaction; rows upserted.

    Events of a commit may not be written twice: the transaction that fences them writes them, or a build that knows
    which offsets it has.
    """
    rows = fold(table.layout, events, commit_id) if len(events) else None
    if rows is None:
        return 0
    _stage(conn, table, rows)
    conn.execute(table.upsert.encode())
    return rows.count


def _stage(conn: psycopg.Connection, table: OnlineTable, rows: Rows) -> None:
    conn.execute(
        f"create temporary table if not exists {table.staging.removeprefix('pg_temp.')}"
        f" (like {table.quoted}) on commit delete rows".encode()
    )
    statement = f"copy {table.staging} ({', '.join(rows.columns)}) from stdin (format binary)"
    with conn.cursor() as cursor, cursor.copy(statement.encode()) as out:
        out.write(SIGNATURE)
        out.write(rows.payload)
        out.write(TRAILER)


def collect_garbage(
    conn: psycopg.Connection, table: OnlineTable, below: Mapping[int, int], first_page: int = 0, pages: int = 1_000
) -> tuple[int, int]:
    """Delete rows of partition p whose last event is before ``below[p]`` among ``pages`` pages, in one short transaction.

    Returns (rows deleted, the page to go on with; 0 at the end). The limits must lie the longest window, the allowed
    lateness and the oldest read anybody may make behind the partition's watermark: see :func:`garbage_limit`.
    """
    with conn.transaction():
        deleted = conn.execute(
            f"""delete from {table.quoted} r using unnest(%s::integer[], %s::bigint[]) as l (part, below)
                where r.ctid >= %s::tid and r.ctid < %s::tid and r.part = l.part and r.last_t < l.below""".encode(),
            (list(below), list(below.values()), f"({first_page},0)", f"({first_page + pages},0)"),
        ).rowcount
        row = conn.execute(
            "select pg_relation_size(%s::regclass) / current_setting('block_size')::int", (table.quoted,)
        ).fetchone()
    assert row is not None
    following = first_page + pages
    return deleted, following if following < row[0] else 0


def garbage_limit(table: OnlineTable, watermark_us: int) -> int:
    """The time before which no event can be read or corrected; reads may lag by one more longest window."""
    acceptance = table.definition.acceptance
    return watermark_us - 2 * table.definition.max_window_us - acceptance.allowed_lateness_us

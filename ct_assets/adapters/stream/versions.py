"""Versions of a definition: which there are, which one answers, switching and going back, retiring.

What goes here: the life of registered versions. What does not: making them (``deployment``), tables (``online``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream import online
from ct_assets.adapters.stream.layout import from_document
from ct_assets.adapters.stream.online import OnlineTable
from ct_assets.adapters.stream.state import Stream
from ct_assets.errors import CtError, UsageError, did_you_mean

if TYPE_CHECKING:
    import psycopg


_ROWS_AT_ONCE = 200_000
DDL_LOCK = 7_236_010
BUILD_LOCK = 7_236_014  # class of the advisory locks that builds hold; the key is the definition's name


class SwitchRefused(CtError):
    """Another switch came first, or the version is not ready."""


@dataclass(frozen=True)
class Version:
    """One registered version of a name."""

    definition_id: int
    name: str
    hash: str
    state: str
    stream_id: int
    created_at: Any
    is_active: bool


def listed(conn: psycopg.Connection, name: str | None = None) -> list[Version]:
    """All versions (of one name), oldest first."""
    rows = conn.execute(
        """select d.definition_id, d.name, d.hash, d.state, d.stream_id, d.created_at, a.name is not null
           from stream.definition d left join stream.active a using (definition_id)
           where %s::text is null or d.name = %s order by d.name, d.definition_id""",
        (name, name),
    ).fetchall()
    return [Version(*row) for row in rows]


def find_table(
    conn: psycopg.Connection,
    name: str,
    hash_: str | None = None,
    stream_id: int | None = None,
    *,
    retiring: bool = False,
) -> OnlineTable:
    """The version that answers under a name, or the one of a hash (or its beginning). Raises UsageError.

    One definition may be registered over several topics: of those the one of ``stream_id``, else the one that answers
    (or does not, when it is for ``retiring``; then one that was not built to its end is found too).
    """
    rows = conn.execute(
        """select d.definition_id, d.stream_id, d.document, d.hash from stream.definition d
           left join stream.active a using (definition_id)
           where d.name = %s and (%s or d.state <> 'building')
             and (case when %s::text is null then a.name is not null else starts_with(d.hash, %s) end)
             and (%s::integer is null or d.stream_id = %s)
           order by (a.name is null) = %s, d.definition_id desc""",
        (name, retiring, hash_, hash_ or "", stream_id, stream_id, not retiring),
    ).fetchall()
    if hash_ is not None and (not hash_ or len({row[3] for row in rows}) > 1):
        meant = ", ".join(sorted({_short(row[3]) for row in rows})) or "none is there"
        raise UsageError(f"version {hash_!r} of {name} may be any of: {meant}", hint="write more of the hash")
    row = rows[0] if rows else None
    if row is None:
        _refuse_unfinished(conn, name, hash_)
        names = sorted({v.name for v in listed(conn)})
        if hash_ and name in names:
            raise _no_version(conn, name, hash_)
        version = f" of version {hash_[:12]}" if hash_ else ""
        near = did_you_mean(name, names) or (f"there are: {', '.join(names)}" if names else "no definition ran yet")
        raise UsageError(f"no online table {name!r}{version}", hint=f"{near}; `ct stream run` makes one")
    return online.table_of(row[0], row[1], from_document(row[2]))


def _refuse_unfinished(conn: psycopg.Connection, name: str, hash_: str | None) -> None:
    """Raise UsageError when the version that is asked for is there and not built to its end."""
    found = [v for v in listed(conn, name) if v.state == "building" and v.hash.startswith(hash_ or "")]
    if not found:
        return
    if is_being_built(conn, name):
        raise UsageError(
            f"{name} is being built from the stored events and does not answer yet",
            hint="`ct stream status` says when it is ready",
        )
    short, answered = _short(found[-1].hash), any(v.is_active for v in listed(conn, name))
    again = "ct stream deploy --definition FILE" if answered else "ct stream run --definition FILE --source URL"
    raise UsageError(
        f"version {short} of {name} was not built to its end: whoever built it ended or was killed",
        hint=f"`{again}` begins again; `ct stream retire --view {name} --version {short} --yes` removes it",
    )


def is_being_built(conn: psycopg.Connection, name: str) -> bool:
    """Whether somebody builds a version of this name now."""
    row = conn.execute(
        """select exists (select from pg_locks where locktype = 'advisory' and granted and objsubid = 2
               and database = (select oid from pg_database where datname = current_database())
               and classid::bigint = %s and objid::bigint = hashtext(%s)::bigint & 4294967295)""",
        (BUILD_LOCK, name),
    ).fetchone()
    return row == (True,)


def _no_version(conn: psycopg.Connection, name: str, hash_: str) -> UsageError:
    """The view is right, its version is not."""
    there = ", ".join(dict.fromkeys(v.hash[:12] for v in listed(conn, name) if v.state != "building"))
    known = f"there are: {there}" if there else "none is ready yet"
    return UsageError(f"no online table {name!r} of version {hash_[:12]}", hint=f"{known}; `ct stream run` makes one")


def ready_tables(conn: psycopg.Connection, stream: Stream, known: Sequence[OnlineTable] = ()) -> list[OnlineTable]:
    """The tables that a commit of this stream writes; ``known`` spares reading the documents of those."""
    rows = conn.execute(
        "select definition_id from stream.definition where stream_id = %s and state = 'ready' order by definition_id",
        (stream.stream_id,),
    ).fetchall()
    have = {table.definition_id: table for table in known}
    return [have.get(row[0]) or registered_table(conn, row[0]) for row in rows]


def registered_tables(conn: psycopg.Connection, stream: Stream) -> list[OnlineTable]:
    """The tables of a stream in whatever state: what their windows reach must stay."""
    rows = conn.execute("select definition_id from stream.definition where stream_id = %s", (stream.stream_id,))
    return [registered_table(conn, row[0]) for row in rows.fetchall()]


def registered_table(conn: psycopg.Connection, definition_id: int) -> OnlineTable:
    """The table of a version by its id."""
    row = conn.execute(
        "select stream_id, document from stream.definition where definition_id = %s", (definition_id,)
    ).fetchone()
    assert row is not None
    return online.table_of(definition_id, row[0], from_document(row[1]))


def drop(conn: psycopg.Connection, table: OnlineTable) -> None:
    """Remove a version with its table and function, inside the open transaction; its events stay."""
    from ct_assets.adapters.stream.online_query import entity_type

    conn.execute(f"drop function if exists {table.function} ({entity_type(table.layout)}[], bigint)".encode())
    conn.execute(f"drop table if exists {table.quoted}".encode())
    conn.execute("delete from stream.definition where definition_id = %s", (table.definition_id,))


def latest(conn: psycopg.Connection, table: OnlineTable) -> int | None:
    """The moment just after the newest event of a table's stream: where two versions are worth comparing."""
    row = conn.execute("select max(top) + 1 from stream.partition where stream_id = %s", (table.stream_id,)).fetchone()
    return row[0] if row else None


def switch(
    conn: psycopg.Connection, name: str, to_hash: str, expected_hash: str | None, stream_id: int | None = None
) -> OnlineTable:
    """Let the version of ``to_hash`` answer, if ``expected_hash`` answers now; readers see the old one or the new one.

    ``stream_id`` says over which stream, when one definition is registered over several. Going back is the same with the hashes exchanged. Raises :class:`SwitchRefused`.
    """
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
        row = conn.execute(
            "select a.definition_id, d.hash from stream.active a join stream.definition d using (definition_id)"
            " where a.name = %s for update of a",
            (name,),
        ).fetchone()
        found = row[1] if row else None
        if found != expected_hash:
            raise SwitchRefused(
                f"{name} is answered by {_short(found)}, not by {_short(expected_hash)} as expected; nothing was changed",
                hint="look at `ct stream plan` again: somebody else switched",
            )
        table = find_table(conn, name, to_hash, stream_id)
        state = conn.execute(
            "select state from stream.definition where definition_id = %s", (table.definition_id,)
        ).fetchone()
        if state != ("ready",):
            raise SwitchRefused(f"version {_short(to_hash)} of {name} is not ready", hint="build it first")
        conn.execute(
            """insert into stream.active (name, definition_id, previous_id) values (%s, %s, null)
               on conflict (name) do update set previous_id = stream.active.definition_id,
                   definition_id = excluded.definition_id, changed_at = clock_timestamp()""",
            (name, table.definition_id),
        )
        online.publish_function(conn, table)
    return table


def switched_at(conn: psycopg.Connection, name: str) -> str:
    """Since when the version that answers under a name does; empty when none does."""
    row = conn.execute("select changed_at::text from stream.active where name = %s", (name,)).fetchone()
    return row[0] if row else ""


def previous(conn: psycopg.Connection, name: str) -> OnlineTable | None:
    """The version that answered before, to go back to."""
    row = conn.execute("select previous_id from stream.active where name = %s", (name,)).fetchone()
    return registered_table(conn, row[0]) if row and row[0] is not None else None


def retire(conn: psycopg.Connection, name: str, hash_: str) -> None:
    """Drop a version's table; its events stay. Raises UsageError for the one that answers, or that is being built.

    The partitions are locked for that moment: a commit that already knows the table would find it gone.
    """
    table = find_table(conn, name, hash_, retiring=True)
    with conn.transaction():
        refuse_while_built(conn, table)
        conn.execute("select pg_advisory_xact_lock(%s)", (DDL_LOCK,))
        conn.execute(
            "select from stream.partition where stream_id = %s order by partition for no key update", (table.stream_id,)
        )
        if conn.execute("select 1 from stream.active where definition_id = %s", (table.definition_id,)).fetchone():
            raise UsageError(f"version {_short(hash_)} of {name} answers now", hint="switch to another first")
        conn.execute("update stream.active set previous_id = null where previous_id = %s", (table.definition_id,))
        drop(conn, table)


def refuse_while_built(conn: psycopg.Connection, table: OnlineTable) -> None:
    """Of a version that is not ready: hold the lock of builds until the open transaction ends, or raise UsageError."""
    name = table.definition.name
    row = conn.execute(
        "select state from stream.definition where definition_id = %s", (table.definition_id,)
    ).fetchone()
    if row != ("building",):
        return
    if conn.execute("select pg_try_advisory_xact_lock(%s, hashtext(%s))", (BUILD_LOCK, name)).fetchone() != (True,):
        raise UsageError(f"{name} is being built now", hint="end the process that builds it, or wait for it")


def _short(hash_: str | None) -> str:
    return hash_[:12] if hash_ else "no version"

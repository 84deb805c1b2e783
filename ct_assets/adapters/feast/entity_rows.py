"""Online rows of ordinary Feast views: one row an entity, written in bulk, where an older version never wins.

What goes here: the tables in schema ``feast_online`` and their conditional upsert. What does not: Feast's types
(``online_store`` serialises them), live stream views (``adapters.stream.online``). Imports no Feast.

A write is newer when (event time, created time) is greater or equal; without a created time a row is older than any
with one at the same event time. So a repeat is harmless, a correction wins, and materialising the past changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

SCHEMA = "feast_online"


@dataclass(frozen=True)
class EntityRow:
    """One entity's values: ``values`` by feature, serialised; times are aware, ``created`` None when not known."""

    key: bytes
    event: datetime
    created: datetime | None
    values: dict[str, bytes]


@dataclass(frozen=True)
class EntityTable:
    """The online table of one ordinary view."""

    name: str
    features: tuple[str, ...]

    @property
    def quoted(self) -> str:
        """The qualified name."""
        return f'{SCHEMA}."{self.name}"'

    def columns(self) -> list[str]:
        """The columns of the features, quoted; the prefix keeps them apart from the key's."""
        return [f'"f_{feature}"' for feature in self.features]


def ensure(conn: psycopg.Connection, table: EntityTable) -> None:
    """Make the table, or add and drop columns so that it has exactly these features."""
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(7236011)")
        conn.execute(f"create schema if not exists {SCHEMA}".encode())
        conn.execute(
            f"""create table if not exists {table.quoted} (entity_key bytea primary key,
                event_ts timestamptz not null, created_ts timestamptz not null) with (fillfactor = 85)""".encode()
        )
        rows = conn.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
            " and starts_with(attname, 'f_')",
            (table.quoted,),
        ).fetchall()
        there = {f'"{row[0]}"' for row in rows}
        for column in table.columns():
            if column not in there:
                conn.execute(f"alter table {table.quoted} add column {column} bytea".encode())
        for column in there - set(table.columns()):
            conn.execute(f"alter table {table.quoted} drop column {column}".encode())


def drop(conn: psycopg.Connection, table: EntityTable) -> None:
    """Remove the table with its rows."""
    with conn.transaction():
        conn.execute(f"drop table if exists {table.quoted}".encode())


def write(conn: psycopg.Connection, table: EntityTable, rows: Iterable[EntityRow]) -> int:
    """Upsert in one transaction; rows that changed. A feature that a row lacks is stored as absent."""
    columns = ["entity_key", "event_ts", "created_ts", *table.columns()]
    listed = ", ".join(columns)
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute(
            f"create temporary table feast_staged on commit drop as select {listed}, 0::bigint as place"
            f" from {table.quoted} limit 0".encode()
        )
        with cursor.copy(f"copy feast_staged ({listed}, place) from stdin (format binary)".encode()) as copy:
            copy.set_types(["bytea", "timestamptz", "timestamptz", *["bytea"] * len(table.features), "int8"])
            never = datetime.min.replace(tzinfo=_utc())
            for place, row in enumerate(rows):
                values = (row.values.get(feature) for feature in table.features)
                copy.write_row((row.key, row.event, row.created or never, *values, place))
        return cursor.execute(
            f"""insert into {table.quoted} as r ({listed})
                select distinct on (entity_key) {listed} from feast_staged
                order by entity_key, event_ts desc, created_ts desc, place desc
                on conflict (entity_key) do update set {", ".join(f"{c} = excluded.{c}" for c in columns[1:])}
                where (excluded.event_ts, excluded.created_ts) >= (r.event_ts, r.created_ts)""".encode()
        ).rowcount


def read(
    conn: psycopg.Connection, table: EntityTable, keys: Sequence[bytes], not_before: datetime | None
) -> list[tuple[datetime, dict[str, bytes | None]] | None]:
    """Per key, in order: event time and values; None for an unknown entity or one older than ``not_before`` (its ttl)."""
    rows = conn.execute(
        f"select entity_key, event_ts{''.join(', ' + c for c in table.columns())} from {table.quoted}"
        " where entity_key = any(%s) and (%s::timestamptz is null or event_ts >= %s)".encode(),
        (list(keys), not_before, not_before),
        prepare=True,
        binary=True,
    ).fetchall()
    found = {bytes(row[0]): (row[1], dict(zip(table.features, row[2:], strict=True))) for row in rows}
    return [found.get(key) for key in keys]


def _utc():
    from datetime import UTC

    return UTC

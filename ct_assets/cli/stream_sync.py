"""`ct stream sync`: bring the copy of the online rows in Redis up to what is committed, or load it anew.

What goes here: options and printing, and the same for commands that change what is committed. What does not: syncing
(``adapters.stream.redis_sync``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ct_assets.cli.output import emit
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.redis_sync import Twin


@click.command()
@click.option(
    "--rebuild", is_flag=True, help="Load everything from PostgreSQL anew; readers see the old rows meanwhile."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON value.")
def sync(rebuild: bool, as_json: bool) -> None:
    """Apply to Redis (CT_ONLINE_URL) what PostgreSQL has and Redis lacks. Running workers do so by themselves."""
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.stream.versions import ready_tables
    from ct_assets.settings import load

    settings = load()
    if settings.online_url is None:
        raise UsageError("CT_ONLINE_URL is not set: PostgreSQL answers online reads", hint="nothing is to be synced")
    done: list[dict[str, str]] = []
    with connect(prepared_url(settings, "stream"), autocommit=True) as conn:
        for twin in twins(conn):
            tables = ready_tables(conn, twin.stream)  # before: one that becomes ready meanwhile is not claimed
            twin.sync(conn, rebuild)
            done += [{"name": table.definition.name, "hash": table.definition.hash} for table in tables]
    how = "loaded anew" if rebuild else "up to date"
    listed = ", ".join(f"{version['name']} {version['hash'][:12]}" for version in done) or "no definition yet"
    emit({"synced": done, "rebuilt": rebuild}, as_json, f"{how} in Redis: {listed}")


def twins(conn: psycopg.Connection, stream_id: int | None = None) -> list[Twin]:
    """The copies of all streams (or of one) in this installation's Redis; none without one."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream.redis_sync import Twin
    from ct_assets.adapters.stream.state import find_stream
    from ct_assets.settings import load

    settings = load()
    if settings.online_url is None:
        return []
    ids = [row[0] for row in conn.execute("select stream_id from stream.stream order by stream_id")]
    chosen = ids if stream_id is None else [stream_id]
    return [Twin.opened(settings.online_url, find_stream(conn, i), open_storage(settings)) for i in chosen]

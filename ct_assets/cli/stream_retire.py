"""`ct stream retire`: drop the online table of a version that nobody reads any more, or whose build was ended.

What goes here: options, who still needs it, printing. What does not: dropping (``adapters.stream.versions``), which version
a model was trained with (``adapters.champion``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ct_assets.cli.output import emit
from ct_assets.errors import CtError, UsageError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.settings import Settings


@click.command()
@click.option("--view", "name", required=True, help="Name of the definition.")
@click.option("--version", "hash_", required=True, help="Hash of the version, or its beginning (`ct stream status`).")
@click.option("--yes", is_flag=True, help="Do it; without, only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")
def retire(name: str, hash_: str, yes: bool, as_json: bool) -> None:
    """Drop the online table of a version that no longer answers; its events stay, so it can be deployed again.

    Refused (exit 1) while the champion of a model was trained with that version. A Feast view that is pinned to it cannot
    be read online any more. A version whose build was ended before it was whole can be dropped too.
    """
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.stream import versions
    from ct_assets.cli.stream_sync import twins
    from ct_assets.settings import load

    settings = load()
    with connect(prepared_url(settings, "stream"), autocommit=True) as conn:
        table = versions.find_table(conn, name, hash_, retiring=True)
        full = table.definition.hash
        there = {v.definition_id: v for v in versions.listed(conn, name)}
        if there[table.definition_id].is_active:
            raise UsageError(f"version {full[:12]} of {name} answers now", hint="switch to another first")
        champions = _champions(settings, conn, table)
        reading = [
            f"version {number} of {model} leads and reads version {full[:12]} of {name}" for model, number in champions
        ]
        with conn.transaction():
            versions.refuse_while_built(conn, table)
        if yes:
            if reading:
                raise CtError(
                    f"{'; '.join(reading)}: without its table `ct serve` could not answer; nothing was dropped",
                    hint="promote a model that was trained with the version that answers (`ct run --pipeline NAME`, or"
                    " `ct model train`), then retire",
                )
            copies = [twin.place(conn, table) for twin in twins(conn, table.stream_id)]
            versions.retire(conn, name, full)
            for copy in copies:
                copy.sweep(None)
    done = "is dropped" if yes else "would be refused" if reading else "would be dropped: say --yes"
    report = {
        "name": name,
        "hash": full,
        "retired": yes,
        "champions": [{"model": model, "version": number} for model, number in champions],
    }
    emit(report, as_json, "\n".join([*reading, f"{name}: the online table of {full[:12]} {done}"]))


def _champions(settings: Settings, conn: psycopg.Connection, table: OnlineTable) -> list[tuple[str, int]]:
    """Champions that need this table; none when their version can be read over another topic too."""
    from ct_assets.adapters import champion
    from ct_assets.adapters.postgres.connect import connect, url_for
    from ct_assets.adapters.stream import versions

    definition = table.definition
    same = [v for v in versions.listed(conn, definition.name) if v.hash == definition.hash and v.state == "ready"]
    if [v.definition_id for v in same] != [table.definition_id]:
        return []
    with connect(url_for(settings, "ledger")) as ledger:
        return champion.reading(ledger, definition.name, definition.hash)

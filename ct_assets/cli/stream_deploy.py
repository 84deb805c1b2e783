"""`ct stream plan`, `deploy` and `retire`: a changed definition beside the one that answers, then a switch.

What goes here: options and printing. What does not: building and switching (``adapters.stream.deployment``, ``versions``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ct_assets.cli.output import emit, say, working
from ct_assets.errors import CtError, UsageError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.deployment import Plan
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.streaming.definition import Definition

DEFINITION = click.option(
    "--definition",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="StreamAggregates file.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")
_NEXT = {
    "nothing": "this version answers already: nothing to do",
    "first": "no version answers yet: `ct stream run` makes the first, from the stored events where its topic was read already",
    "build": "`ct stream deploy` builds it from the stored events, compares and switches",
    "switch": "it is built already: `ct stream deploy` compares and switches",
    "new_stream": "what decides acceptance differs, so every event is judged again: `ct stream deploy` registers it, "
    "`ct stream run` reads the topic from its beginning, a second `ct stream deploy` switches",
}


@click.command()
@DEFINITION
@JSON
def plan(path: Path, as_json: bool) -> None:
    """Show what differs from the version that answers, and what a deployment would do. Changes nothing."""
    from ct_assets.adapters.stream import deployment
    from ct_assets.streaming.definition import load_definition

    with _connection() as conn:
        found = deployment.plan(conn, load_definition(path))
    lines = [
        f"{found.name}: {(found.active_hash or 'none')[:12]} -> {found.hash[:12]}",
        *(f"  {c}" for c in found.changes),
    ]
    emit(found.__dict__ | {"next": _NEXT[found.action]}, as_json, "\n".join([*lines, _NEXT[found.action]]))


@click.command()
@DEFINITION
@click.option("--back", is_flag=True, help="Go back to the version that answered before; no events are replayed.")
@click.option("--no-switch", is_flag=True, help="Build and compare only.")
@JSON
def deploy(path: Path, back: bool, no_switch: bool, as_json: bool) -> None:
    """Build the version beside the one that answers, compare both, switch. Workers go on; readers see one or the other.

    Values of aggregates that did not change must be equal in both versions, else nothing is switched (exit 1).
    """
    from ct_assets.adapters.stream import deployment, versions
    from ct_assets.cli.stream_sync import twins
    from ct_assets.streaming.definition import load_definition

    definition = load_definition(path)
    with _connection() as conn:
        if back:
            hash_ = versions.previous(conn, definition.name)
            if hash_ is None:
                raise UsageError(
                    f"no version of {definition.name} answered before", hint="`ct stream plan` shows where it stands"
                )
            active = versions.find_table(conn, definition.name).definition.hash
            versions.switch(conn, definition.name, hash_, active)
            emit(
                {"name": definition.name, "from": active, "to": hash_},
                as_json,
                f"{definition.name}: back to {hash_[:12]}",
            )
            return
        found = deployment.plan(conn, definition)
        table = _made(conn, definition, found)
        if table is None:
            emit(found.__dict__, as_json, _NEXT[found.action])
            return
        report = _compared(conn, definition, table)
        for twin in twins(conn, table.stream_id):  # readers of the new version find it in Redis at once
            twin.sync(conn)
        if not no_switch:
            versions.switch(conn, definition.name, definition.hash, found.active_hash)
        state = "built beside" if no_switch else "answers now"
        emit(
            report | {"name": definition.name, "hash": definition.hash, "switched": not no_switch},
            as_json,
            f"{definition.name}: {definition.hash[:12]} {state}",
        )


@click.command()
@click.option("--view", "name", required=True, help="Name of the definition.")
@click.option("--version", "hash_", required=True, help="Hash of the version, or its beginning (`ct stream status`).")
@click.option("--yes", is_flag=True, help="Do it; without, only say what would be done.")
@JSON
def retire(name: str, hash_: str, yes: bool, as_json: bool) -> None:
    """Drop the online table of a version that no longer answers; its events stay, so it can be deployed again.

    A model or Feast view that is pinned to the version cannot read it online any more.
    """
    from ct_assets.adapters.stream import versions
    from ct_assets.cli.stream_sync import twins

    with _connection() as conn:
        table = versions.find_table(conn, name, hash_)
        full = table.definition.hash
        if any(v.is_active for v in versions.listed(conn, name) if v.definition_id == table.definition_id):
            raise UsageError(f"version {full[:12]} of {name} answers now", hint="switch to another first")
        if yes:
            copies = [twin.place(conn, table) for twin in twins(conn, table.stream_id)]
            versions.retire(conn, name, full)
            for copy in copies:
                copy.sweep(None)
    done = "is dropped" if yes else "would be dropped: say --yes"
    emit({"name": name, "hash": full, "retired": yes}, as_json, f"{name}: the online table of {full[:12]} {done}")


def _made(conn: psycopg.Connection, definition: Definition, found: Plan) -> OnlineTable | None:
    """The version's table, ready; None when there is nothing to compare with or to switch to."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import deployment, state, versions
    from ct_assets.settings import load

    if found.action in ("nothing", "first"):
        return None
    if found.action == "switch":
        return versions.find_table(conn, definition.name, definition.hash)
    if found.action == "new_stream":
        old = state.find_stream(conn, versions.find_table(conn, definition.name).stream_id)
        stream = state.open_stream_beside(conn, old, definition.acceptance)
        deployment.register_elsewhere(conn, stream, definition)
        return None
    with working("replaying the stored events"):
        built = deployment.build(conn, definition, storage=open_storage(load()))
    say(f"{built.events} events folded; commits waited {built.locked_seconds * 1e3:.0f} ms")
    return built.table


def _compared(conn: psycopg.Connection, definition: Definition, table: OnlineTable) -> dict[str, object]:
    from ct_assets.adapters.clock import SystemClock
    from ct_assets.adapters.stream import deployment, versions

    now = round(SystemClock().now().timestamp() * 1e6)
    old = versions.find_table(conn, definition.name)
    found = deployment.compare(conn, old, table, versions.latest(conn, table) or now)
    say(f"{found.entities} entities: {found.equal} unchanged values equal, {found.different} differ")
    for name, (differ, of) in found.changed.items():
        say(f"  {name} changed: {differ} of {of} values differ")
    if found.different and old.stream_id == table.stream_id:
        raise CtError(
            f"{found.different} values that should be the same differ between the versions; nothing was switched",
            hint="run with --no-switch and compare online tables; report this: it must not happen",
        )
    return {"entities": found.entities, "equal": found.equal, "different": found.different, "changed": found.changed}


def _connection() -> psycopg.Connection:
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.settings import load

    return connect(prepared_url(load(), "stream"), autocommit=True)

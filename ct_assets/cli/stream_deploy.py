"""`ct stream plan` and `deploy`: a changed definition beside the one that answers, then a switch.

What goes here: options and printing. What does not: building and switching (``adapters.stream.deployment``, ``versions``).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ct_assets.cli.output import emit, say, working
from ct_assets.cli.stream_coverage import before_reading, fields, lacks, of_table, topic
from ct_assets.errors import CtError, UsageError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.events.port import EventSource, SourceIdentity
    from ct_assets.adapters.stream.deployment import Plan
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.records import Stream
    from ct_assets.streaming.definition import Definition

DEFINITION = click.option(
    "--definition",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="StreamAggregates file.",
)
SOURCE = click.option(
    "--source", "source_url", help="kafka://HOST:PORT/TOPIC or log://DIR: another topic, or one that was made again."
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")
_NEXT = {
    "nothing": "this version answers already on {topic}: nothing to do (to move it to another topic name that: --source URL)",
    "first": "no version answers yet: `ct stream run` makes the first, from the stored events where its topic was read already",
    "build": "`ct stream deploy` builds it from the stored events, compares and switches",
    "switch": "it is built already: `ct stream deploy` compares and switches",
    "lacking": "it is built already and lacks events: `ct stream deploy` compares and refuses to switch, with --yes it switches",
    "new_stream": "what decides acceptance differs, so every event is judged again: `ct stream deploy` registers it, "
    "`ct stream run` reads the topic from its beginning, a second `ct stream deploy` switches",
    "new_topic": "it answers on {topic}; nothing is stored of the topic that was named: `ct stream deploy --source URL` "
    "registers it there, `ct stream run --source URL` reads that topic, `ct stream deploy --source URL --yes` switches",
}


def readable(change: str) -> str:
    """A change for people: durations with their unit, the first 12 digits of a digest."""
    change = re.sub(r"\b[0-9a-f]{64}\b", lambda digest: digest[0][:12], change)
    return re.sub(r"\b(\w+)_us(:?) (\d+|None)(?: -> (\d+|None))?", _with_units, change)


def _with_units(found: re.Match[str]) -> str:
    from ct_assets.streaming.walk import duration_text

    name, colon, *values = found.groups()
    said = [v if v == "None" else duration_text(int(v)) for v in values if v is not None]
    return f"{name}{colon} {' -> '.join(said)}"


@click.command()
@DEFINITION
@SOURCE
@JSON
def plan(path: Path, source_url: str | None, as_json: bool) -> None:
    """Show what differs from the version that answers, and what a deployment would do. Changes nothing."""
    from ct_assets.adapters.stream import deployment
    from ct_assets.streaming.definition import load_definition

    definition = load_definition(path)
    with _connection() as conn, topic(source_url) as source:
        found = deployment.plan(conn, definition, source.identity() if source else None)
        report, said = before_reading(conn, definition, found, source)
    lines = [
        f"{found.name}: {(found.active_hash or 'none')[:12]} -> {found.hash[:12]}",
        *(f"  {readable(c)}" for c in found.changes),
        *said,
    ]
    following = _NEXT["lacking"] if found.action == "switch" and lacks(report) else _next(found)
    emit(found.__dict__ | {"next": following} | report, as_json, "\n".join([*lines, following]))


@click.command()
@DEFINITION
@SOURCE
@click.option(
    "--yes",
    is_flag=True,
    help="With --source: switch to the version over that topic. Without: switch to one that lacks events (retention has"
    " removed them, or the topic that was read again no longer holds them) or, read again, has other values.",
)
@click.option("--back", is_flag=True, help="Go back to the version that answered before; no events are replayed.")
@click.option("--no-switch", is_flag=True, help="Build and compare only.")
@JSON
def deploy(path: Path, source_url: str | None, as_json: bool, **choice: bool) -> None:
    """Build the version beside the one that answers, compare both, switch. Workers go on; readers see one or the other.

    Values of aggregates that did not change must be equal in both versions, else nothing is switched (exit 1). A version
    that was read from the topic again must also hold what is stored of the topic by now, and none may reach what retention
    has removed; there --yes switches all the same.
    With --source the version is that of another topic, and --yes switches.
    """
    from ct_assets.streaming.definition import load_definition

    definition = load_definition(path)
    with _connection() as conn, topic(source_url) as source:
        if choice["back"]:
            report, text = _back(conn, definition.name)
        else:
            report, text = _deployed(conn, definition, source, choice)
    emit(report, as_json, text)


def _back(conn: psycopg.Connection, name: str) -> tuple[dict[str, object], str]:
    from ct_assets.adapters.stream import versions

    to = versions.previous(conn, name)
    if to is None:
        raise UsageError(f"no version of {name} answered before", hint="`ct stream plan` shows where it stands")
    active, hash_ = versions.find_table(conn, name).definition.hash, to.definition.hash
    versions.switch(conn, name, hash_, active, to.stream_id)
    return {"name": name, "from": active, "to": hash_, "stream_id": to.stream_id}, f"{name}: back to {hash_[:12]}"


def _deployed(
    conn: psycopg.Connection, definition: Definition, source: EventSource | None, choice: dict[str, bool]
) -> tuple[dict[str, object], str]:
    """What was done, for scripts and for people."""
    from ct_assets.adapters.stream import deployment, versions
    from ct_assets.adapters.stream.registration import Watcher, alone
    from ct_assets.cli.stream_sync import twins

    identity = source.identity() if source else None
    with alone(conn, definition.name, Watcher(say)):  # planned when no other process builds any more
        found = deployment.plan(conn, definition, identity)
        table = _made(conn, definition, found, identity)
    if table is None:
        report, said = before_reading(conn, definition, found, source)
        return found.__dict__ | report, "\n".join([*said, _next(found)])
    switching = not choice["no_switch"] and (source is None or choice["yes"])
    report = _compared(conn, definition, table, refusing=switching and not choice["yes"])
    for twin in twins(conn, table.stream_id):  # readers of the new version find it in Redis at once
        twin.sync(conn)
    if switching:
        versions.switch(conn, definition.name, definition.hash, found.active_hash, table.stream_id)
    state = "answers now" if switching else "built beside"
    if source is not None:
        report["unread"] = unread = _unread(conn, table.stream_id, source)
        state += f"; {unread:,} messages of the topic are not read yet"
        state += "" if switching else f"; it answers on {found.topic} until you say --yes"
    report |= {"name": definition.name, "hash": definition.hash, "switched": switching}
    return report, f"{definition.name}: {definition.hash[:12]} {state}"


def _unread(conn: psycopg.Connection, stream_id: int, source: EventSource) -> int:
    """Offsets of the topic that no commit has passed yet."""
    rows = conn.execute("select partition, next_offset from stream.partition where stream_id = %s", (stream_id,))
    read = dict(rows.fetchall())
    begins, ends = source.begin_offsets(), source.end_offsets()
    return sum(max(0, end - max(read.get(p, 0), begins[p])) for p, end in ends.items())


def _next(found: Plan) -> str:
    return _NEXT[found.action].format(topic=found.topic)


def _made(
    conn: psycopg.Connection, definition: Definition, found: Plan, source: SourceIdentity | None
) -> OnlineTable | None:
    """The version's table, ready; None when there is nothing to compare with or to switch to."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import deployment, versions
    from ct_assets.settings import load

    if found.action in ("nothing", "first"):
        return None
    stream = _stream(conn, definition, found, source)
    if found.action == "switch":
        return versions.find_table(conn, definition.name, definition.hash, stream.stream_id if stream else None)
    if stream is not None:
        with working("replaying the stored events, if there are any"):
            table = deployment.register_elsewhere(conn, stream, definition, open_storage(load()))
        return table if found.action == "build" else None
    with working("replaying the stored events"):
        built = deployment.build(conn, definition, storage=open_storage(load()))
    say(f"{built.events} events folded; commits waited {built.locked_seconds * 1e3:.0f} ms")
    return built.table


def _stream(
    conn: psycopg.Connection, definition: Definition, found: Plan, source: SourceIdentity | None
) -> Stream | None:
    """Another stream than that of the version that answers, registered if need be; None: the same."""
    from ct_assets.adapters.stream import state, versions

    if source is not None:
        return state.open_stream(conn, definition.schema.name, definition.acceptance, source)
    if found.action != "new_stream":
        return None
    old = state.find_stream(conn, versions.find_table(conn, definition.name).stream_id)
    return state.open_stream_beside(conn, old, definition.acceptance)


def _compared(
    conn: psycopg.Connection, definition: Definition, table: OnlineTable, *, refusing: bool
) -> dict[str, object]:
    """What both versions say and hold. Raises CtError where that forbids a switch (``refusing``: to one that lacks events;
    over the same stored events no value may differ whatever was asked, where none is missing)."""
    from ct_assets.adapters.clock import SystemClock
    from ct_assets.adapters.stream import deployment, versions

    now = round(SystemClock().now().timestamp() * 1e6)
    old = versions.find_table(conn, definition.name)
    found = deployment.compare(conn, old, table, versions.latest(conn, table) or now)
    say(f"{found.entities} entities: {found.equal} unchanged values equal, {found.different} differ")
    for name, (differ, of) in found.changed.items():
        say(f"  {name} changed: {differ} of {of} values differ")
    covered = of_table(conn, definition, table)
    if found.different and old.stream_id == table.stream_id and not covered.lacking:
        raise CtError(
            f"{found.different} values that should be the same differ between the versions; nothing was switched",
            hint="run with --no-switch and compare online tables; report this: it must not happen",
        )
    report = {"entities": found.entities, "equal": found.equal, "different": found.different, "changed": found.changed}
    report |= fields(covered)
    if covered.begins is not None or covered.lacking:
        say(str(covered))
    against = covered.lacking
    if found.different:
        against.append(f"{found.different} values that should be the same differ between the versions")
    if against and refusing:
        file = shlex.quote(str(definition.path))
        first = (
            f"`ct stream run --definition {file} --source URL` reads the rest of the topic; " if covered.unread else ""
        )
        raise CtError(
            f"{'; '.join(against)}; nothing was switched",
            hint=f"{first}`ct stream deploy --definition {file} --yes` switches all the same (--back undoes it); what expired"
            " can only be produced again, what retention has removed is no longer missed once windows have passed it",
        )
    return report


def _connection() -> psycopg.Connection:
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.settings import load

    return connect(prepared_url(load(), "stream"), autocommit=True)

"""`ct dead-letter list|show|replay`: messages of a stream that did not count.

What goes here: options and printing. What does not: reading and replaying them (``adapters.stream.dead_letters``).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ct_assets.adapters.events.formats import FORMATS, open_decoder
from ct_assets.cli.output import emit, table

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.dead_letters import Chosen
    from ct_assets.adapters.stream.records import Stream
    from ct_assets.streaming.definition import Definition

STREAM = click.option("--stream", help="Name of the stream, or its number where two have one name; default: all.")
REASON = click.option("--reason", help="poison, null_key, timestamp_out_of_range, contract, future, conflict or late.")
_COLUMNS = ("stream_id", "stream", "topic", "reason", "letters", "came_back", "last")
ID = click.IntRange(1, 2**63 - 1)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")


@click.group("dead-letter")
def dead_letter() -> None:
    """List, show and replay messages that did not count."""


@dead_letter.command("list")
@STREAM
@JSON
def list_reasons(stream: str | None, as_json: bool) -> None:
    """How many letters of which reason, and how many came back."""
    from ct_assets.adapters.stream import dead_letters, letter_streams

    with _connection() as conn:
        letter_streams.check_stream(conn, stream)
        found = dead_letters.summary(conn, stream)
    if as_json:
        for row in found:
            emit(row | {key: row[key].isoformat() for key in ("first", "last")}, True)
        return
    emit(
        None,
        False,
        table([row | _readable(row) for row in found], _COLUMNS) if found else "no dead letter",
    )


def _readable(row: dict[str, Any]) -> dict[str, str]:
    return {
        "topic": f"{row['source']}://{row['topic']}",
        "last": f"{row['last'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
    }


@dead_letter.command()
@click.argument("numbers", type=ID, nargs=-1, metavar="[ID]...")
@STREAM
@REASON
@click.option("--id", "ids", type=ID, multiple=True, help="The same as ID.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many letters.")
@JSON
def show(  # noqa: PLR0913 - one parameter an option
    numbers: tuple[int, ...],
    stream: str | None,
    reason: str | None,
    ids: tuple[int, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Letters (all, or those of the IDs) with their coordinates, what was wrong, and the bytes as they came."""
    from ct_assets.adapters.stream import dead_letters

    with _connection() as conn:
        found = dead_letters.letters(conn, dead_letters.Chosen(stream, reason, (*numbers, *ids) or None, limit=limit))
    for letter in found:
        value = dead_letters.as_json(letter)
        place = f"{letter.topic}/{letter.partition}@{letter.offset}"
        came_back = f" (replayed: {letter.outcome})" if letter.outcome else ""
        emit(
            value,
            as_json,
            f"{letter.dead_letter_id}  {place}  {letter.reason}: {letter.error}{came_back}\n    {_shown(value['raw'])}",
        )
    if not found and not as_json:
        emit(None, False, "no dead letter")


@dead_letter.command()
@click.option(
    "--definition",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A definition of the stream, with the contract as it is now; default: the installed pipeline's of that name.",
)
@click.option("--format", "message_format", type=click.Choice(FORMATS), default="json", show_default=True)
@STREAM
@REASON
@click.option("--id", "ids", type=ID, multiple=True, help="One letter; may come several times. Default: all.")
@JSON
def replay(  # noqa: PLR0913 - one parameter an option
    path: Path | None, message_format: str, stream: str | None, reason: str | None, ids: tuple[int, ...], as_json: bool
) -> None:
    """Judge letters again, as if they arrived now. What was accepted before is never replayed twice.

    Exit 1 when letters stay dead.
    """
    from ct_assets.adapters.clock import SystemClock
    from ct_assets.adapters.stream import dead_letters, letter_streams
    from ct_assets.adapters.stream.stored_form import fitted
    from ct_assets.cli.stream_sync import twins
    from ct_assets.settings import load

    settings = load()
    now = round(SystemClock().now().timestamp() * 1e6)
    chosen = dead_letters.Chosen(stream, reason, ids or None)
    dead = 0
    with _connection() as conn:
        dead_letters.check_reason(reason)
        letter_streams.check_stream(conn, stream)
        found = _definitions(conn, path, chosen)
        dead_letters.check_chosen(conn, [stream for stream, _ in found], chosen)
        waiting = {stream.stream_id for stream, _ in letter_streams.streams_of(conn, chosen)}
        decoders = {  # all of them before the first letter comes back: a refusal leaves everything as it was
            stream.stream_id: fitted(conn, stream, definition, open_decoder(settings, definition, message_format))
            for stream, definition in found
            if stream.stream_id in waiting
        }
        for each, _ in found:
            outcomes: Counter[str] = Counter()
            if each.stream_id in decoders:
                outcomes = dead_letters.replay(conn, each, decoders[each.stream_id], chosen, now).outcomes
            for twin in twins(conn, each.stream_id):
                twin.sync(conn)
            dead += sum(n for outcome, n in outcomes.items() if outcome not in dead_letters.FINAL)
            value = {"stream_id": each.stream_id, "stream": each.name, "source": each.source_kind, "topic": each.topic}
            emit(value | {"outcomes": outcomes}, as_json, f"{each.label}: {_told(outcomes)}")
        if not found and not as_json:
            emit(None, False, "nothing to replay")
        _tell_of_others(conn, found, chosen)
    if dead:
        raise click.exceptions.Exit(1)


def _tell_of_others(conn: psycopg.Connection, taken: Sequence[tuple[Stream, Definition]], chosen: Chosen) -> None:
    """Letters of an earlier version of the contract, over a topic whose stream was taken, are left alone: say so."""
    from ct_assets.adapters.stream.letter_streams import is_alike, streams_of

    numbers = {stream.stream_id for stream, _ in taken}
    for stream, _ in [] if chosen.stream is not None else streams_of(conn, chosen):
        place = (stream.name, stream.topic_key)
        over = any((s.name, s.topic_key) == place and is_alike(stream, d) for s, d in taken)
        if over and stream.stream_id not in numbers:
            click.echo(
                f"{stream.label}, run by another version of the contract, has letters too:"
                f" `ct dead-letter replay --stream {stream.stream_id}` takes them",
                err=True,
            )


def _told(outcomes: Counter[str]) -> str:
    """``2 came back, 1 was there already, 479 stay dead (479 poison)``."""
    if not outcomes:
        return "nothing to replay"
    dead = {outcome: n for outcome, n in sorted(outcomes.items()) if outcome not in ("accepted", "duplicate")}
    repeats = f", {outcomes['duplicate']:,} were there already" if outcomes["duplicate"] else ""
    listed = ", ".join(f"{n:,} {outcome}" for outcome, n in dead.items())
    stay = f", {sum(dead.values()):,} stay dead ({listed})" if dead else ""
    return f"{outcomes['accepted']:,} came back{repeats}{stay}"


def _load(path: Path) -> Definition:
    from ct_assets.streaming.definition import load_definition

    return load_definition(path)


def _definitions(conn: psycopg.Connection, path: Path | None, chosen: Chosen) -> list[tuple[Stream, Definition]]:
    """The streams whose letters are meant, each with the definition that judges them."""
    from ct_assets.adapters.stream.letter_streams import find_streams

    found: dict[int, tuple[Stream, Definition]] = {}
    for definition in [_load(path)] if path is not None else _installed(conn, chosen):
        for stream in find_streams(conn, definition, chosen):
            found.setdefault(stream.stream_id, (stream, definition))  # several definitions of one stream judge alike
    return [found[number] for number in sorted(found)]


def _installed(conn: psycopg.Connection, chosen: Chosen) -> list[Definition]:
    """One definition of each stream with letters to replay, from the files of the installed pipelines.

    The database has the names and not the contract's rules, by which a letter must be judged. Raises UsageError for a
    stream whose definitions are none of these files.
    """
    from ct_assets.adapters.datasets import stream_files
    from ct_assets.adapters.stream.letter_streams import streams_of
    from ct_assets.errors import CtError, UsageError

    files = {}
    for path in stream_files():
        with contextlib.suppress(CtError):  # a mistake in another team's file is no reason to stop this one
            definition = _load(path)
            files[definition.name] = definition
    found = {}
    for stream, names in streams_of(conn, chosen):
        here = [files[name] for name in names if name in files]
        if not here:
            over = f" ({', '.join(names)})" if names else ""
            raise UsageError(
                f"no installed pipeline has a definition of the stream {stream.name}{over}",
                hint="say which file it is: `ct dead-letter replay --definition FILE`",
            )
        found[here[0].name] = here[0]
    return list(found.values())


def _shown(raw: str) -> str:
    """Control characters escaped: a message must not steer the reader's terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw)


def _connection() -> psycopg.Connection:
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.settings import load

    return connect(prepared_url(load(), "stream"), autocommit=True)

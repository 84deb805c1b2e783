"""`ct dead-letter list|show|replay`: messages of a stream that did not count.

What goes here: options and printing. What does not: reading and replaying them (``adapters.stream.dead_letters``).
"""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ct_assets.adapters.events.formats import FORMATS, open_decoder
from ct_assets.cli.output import emit, table

if TYPE_CHECKING:
    import psycopg

STREAM = click.option("--stream", help="Name of the stream; default: all.")
REASON = click.option("--reason", help="poison, null_key, timestamp_out_of_range, contract, future, conflict or late.")
_COLUMNS = ("stream", "topic", "reason", "letters", "came_back", "last")
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
    from ct_assets.adapters.stream import dead_letters

    with _connection() as conn:
        found = dead_letters.summary(conn, stream)
    if as_json:
        for row in found:
            emit(row | {key: row[key].isoformat() for key in ("first", "last")}, True)
        return
    emit(
        None,
        False,
        table([row | {"last": f"{row['last'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"} for row in found], _COLUMNS)
        if found
        else "no dead letter",
    )


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
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A definition of the stream, with the contract as it is now.",
)
@click.option("--format", "message_format", type=click.Choice(FORMATS), default="json", show_default=True)
@REASON
@click.option("--id", "ids", type=ID, multiple=True, help="One letter; may come several times. Default: all.")
@JSON
def replay(path: Path, message_format: str, reason: str | None, ids: tuple[int, ...], as_json: bool) -> None:
    """Judge letters again, as if they arrived now. What was accepted before is never replayed twice.

    Exit 1 when letters stay dead.
    """
    from ct_assets.adapters.clock import SystemClock
    from ct_assets.adapters.stream import dead_letters
    from ct_assets.cli.stream_sync import twins
    from ct_assets.errors import UsageError
    from ct_assets.settings import load
    from ct_assets.streaming.definition import load_definition

    definition = load_definition(path)
    decoder = open_decoder(load(), definition, message_format)
    now = round(SystemClock().now().timestamp() * 1e6)
    chosen = dead_letters.Chosen(reason=reason, ids=ids or None)
    dead = 0
    with _connection() as conn:
        streams = dead_letters.find_streams(conn, definition.acceptance)
        if not streams:
            raise UsageError(
                f"no stream was run with what {path} says about acceptance",
                hint="`ct dead-letter list` names the streams",
            )
        dead_letters.check_chosen(conn, streams, chosen)
        for stream in streams:
            outcomes = dead_letters.replay(conn, stream, decoder, chosen, now).outcomes
            for twin in twins(conn, stream.stream_id):
                twin.sync(conn)
            dead += sum(n for outcome, n in outcomes.items() if outcome not in dead_letters.FINAL)
            text = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())) or "nothing to replay"
            emit(
                {"stream": stream.name, "topic": stream.topic, "outcomes": outcomes}, as_json, f"{stream.name}: {text}"
            )
    if dead:
        raise click.exceptions.Exit(1)


def _shown(raw: str) -> str:
    """Control characters escaped: a message must not steer the reader's terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw)


def _connection() -> psycopg.Connection:
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.settings import load

    return connect(prepared_url(load(), "stream"), autocommit=True)

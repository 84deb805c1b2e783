"""`ct stream accept-loss`: give up messages that a topic deleted before they were read.

What goes here: options and printing. What does not: what is lost and moving on (``adapters.stream.losses``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ct_assets.cli.output import emit
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    from ct_assets.adapters.stream.losses import Loss
    from ct_assets.adapters.stream.records import Stream
    from ct_assets.settings import Settings
    from ct_assets.streaming.definition import Definition


@click.command("accept-loss")
@click.option(
    "--definition",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="StreamAggregates file; any one of those that share the stream.",
)
@click.option("--source", "source_url", required=True, help="kafka://HOST:PORT/TOPIC or log://DIR.")
@click.option("--yes", is_flag=True, help="Do it; without, only say what is lost.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value.")
def accept_loss(path: Path, source_url: str, yes: bool, as_json: bool) -> None:
    """Give up messages that the topic deleted before a worker read them (its retention, deleted records).

    `ct stream run` stops there with exit 1 and an incident. First restore them if you can; otherwise this moves each
    partition on to the first message that the topic still holds, closes the incident, and keeps what was lost, when and
    by whom: `ct stream status` shows it, and values whose windows reach it say from when on they are whole.
    """
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.stream import losses, state
    from ct_assets.cli.stream_coverage import topic
    from ct_assets.settings import load
    from ct_assets.streaming.definition import load_definition

    definition, settings = load_definition(path), load()
    with connect(prepared_url(settings, "stream"), autocommit=True) as conn, topic(source_url) as source:
        assert source is not None
        stream = state.stream_over(conn, definition.acceptance, source.identity())
        if stream is None:
            raise UsageError(
                f"{definition.name} was never read from {source_url}", hint="`ct stream status` lists what is read"
            )
        found = losses.lost_unread(conn, stream, source)
        if not found:
            raise UsageError(
                f"nothing was lost: {source_url} holds the next message of every partition",
                hint="`ct stream run` goes on",
            )
        if yes:
            losses.accept(conn, stream, found, _person())
    if yes:
        _settle(settings, definition, stream)
    report = {"stream_id": stream.stream_id, "losses": [_as_json(loss) for loss in found], "accepted": yes}
    done = "given up: `ct stream run` goes on" if yes else "nothing was changed: --yes gives them up"
    emit(report, as_json, "\n".join([*map(_line, found), done]))


def _line(loss: Loss) -> str:
    known = _as_json(loss)
    span = f", appended after {known['appended_after']}" if loss.after is not None else ""
    span += f", before {known['appended_before']}" if loss.before is not None else ""
    return f"partition {loss.partition}: offsets [{loss.first_offset}, {loss.next_offset}), at most {loss.offsets:,} messages{span}"


def _as_json(loss: Loss) -> dict[str, Any]:
    from ct_assets.adapters.stream.coverage import moment_text

    return {
        "partition": loss.partition,
        "from": loss.first_offset,
        "to": loss.next_offset,
        "offsets": loss.offsets,
        "appended_after": None if loss.after is None else moment_text(loss.after),
        "appended_before": None if loss.before is None else moment_text(loss.before),
    }


def _person() -> str:
    """Who accepted it: account and host."""
    import getpass
    import socket

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def _settle(settings: Settings, definition: Definition, stream: Stream) -> None:
    """The incident that the worker opened is over."""
    from ct_assets.adapters import incidents
    from ct_assets.adapters.postgres.connect import connect, url_for

    with connect(url_for(settings, "ledger")) as conn:
        incidents.settle(conn, definition.schema.name, ["offset_out_of_range"], stream.reading, definition.name)

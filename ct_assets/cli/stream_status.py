"""`ct stream status`: the streams, how far they are, and which version of each definition answers.

What goes here: options and printing. What does not: the questions (``adapters.stream.overview``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from ct_assets.cli.output import emit, table

_STREAM = (
    "stream_id", "name", "topic", "partitions", "events", "late_accepted", "duplicates", "dead", "tombstones", "state",
)  # fmt: skip
# the topic's id tells two topics of one name apart: logs in folders of one name, or a topic that was made again
_TIMES = ("stream_id", "watermark", "staleness", "chunks", "files", "bytes", "removed_before", "topic_id")
_LOSS = ("stream_id", "partition", "from", "to", "accepted_at", "accepted_by")
_VERSION = ("name", "version", "state", "answers", "stream_id", "online_bytes", "created_at", "whole_from")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON value.")
def status(as_json: bool) -> None:
    """The streams of this installation: counts, watermark, staleness, storage, versions of definitions."""
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.stream import overview
    from ct_assets.settings import load

    with connect(prepared_url(load(), "stream"), autocommit=True) as conn:
        streams, definitions, losses = overview.streams(conn), overview.definitions(conn), overview.losses(conn)
    if as_json:
        emit({"streams": _plain(streams), "definitions": _plain(definitions), "losses": _plain(losses)}, True)
        return
    if not streams:
        emit(None, False, "no stream yet: `ct stream run` makes one")
        return
    shown = [row | {"state": _state(row), "staleness": _seconds(row["staleness_seconds"])} for row in streams]
    parts = [("Streams", shown, _STREAM), ("Time and storage", shown, _TIMES), ("Definitions", definitions, _VERSION)]
    if losses:
        parts.append(("Offsets [from, to) that were lost unread and given up", losses, _LOSS))
    emit(None, False, "\n\n".join(f"{title}\n{table(_readable(rows), columns)}" for title, rows, columns in parts))


def _state(row: dict[str, Any]) -> str:
    if not row["owners"]:
        return "no worker" + (f" ({row['silent']} silent for more than 15 s: killed?)" if row["silent"] else "")
    return f"{row['owners']} worker{'s' if row['owners'] > 1 else ''}, {'caught up' if row['caught_up'] else 'reading'}"


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{max(seconds, 0):,.1f} s"


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in rows]


def _readable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: f"{v.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if isinstance(v, datetime) else v for k, v in row.items()}
        for row in rows
    ]

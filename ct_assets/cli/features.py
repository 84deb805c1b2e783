"""`ct features get`: the values of a view now or at a moment in the past; `ct features check`: online equals offline.

What goes here: options and printing. What does not: reading (``adapters.stream``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ct_assets.cli.output import emit
from ct_assets.errors import UsageError, did_you_mean
from ct_assets.streaming.definition import WHOLE_64

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable

_TIME = "ISO 8601 with an offset, e.g. 2026-01-01T00:05:00Z"


@click.group()
def features() -> None:
    """Read feature values."""


@features.command()
@click.option("--view", required=True, help="Name of the view: that of its definition.")
@click.option(
    "--entity", "entities", multiple=True, required=True, help="KEY=VALUE, e.g. user_id=42; may come several times."
)
@click.option("--at", help=f"The moment of the values (default now); {_TIME}.")
@click.option("--as-known-at", help=f"Only events known by then; {_TIME}.")
@click.option("--version", "hash_", help="Hash (or its beginning) of another version than the one that answers.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value an entity.")
def get(  # noqa: PLR0913 - one parameter an option
    view: str, entities: tuple[str, ...], at: str | None, as_known_at: str | None, hash_: str | None, as_json: bool
) -> None:
    """The values of VIEW for the entities, exact to the microsecond.

    Now, the online table answers, with watermark and staleness. With --at or --as-known-at the stored events answer;
    beyond_watermark says that the moment lies beyond what is known by now. whole_from: events that the windows reach are
    missing (removed before the version was made, or lost), and values are whole from then on.
    """
    from ct_assets.adapters.clock import SystemClock
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.stream.versions import find_table
    from ct_assets.settings import load

    now = round(SystemClock().now().timestamp() * 1e6)
    with connect(prepared_url(load(), "stream"), autocommit=True) as conn:
        table = find_table(conn, view, hash_)
        asked = [_entity(table, text) for text in entities]
        if at is None and as_known_at is None:
            found = _online(conn, table, asked, now)
        else:
            moments = (
                now if at is None else moment(at, "--at"),
                as_known_at and moment(as_known_at, "--as-known-at"),
            )
            found = _history(conn, table, asked, moments, now)
    for values in found:
        lines = [f"{name:24s} {'' if value is None else value}" for name, value in values.items()]
        if values.get("beyond_watermark"):
            lines.append(
                f"{values['at']} lies beyond the watermark ({values['watermark'] or 'none yet'}): events before it may"
                " not be in yet, so 0 is no answer"
            )
        if values["whole_from"] is not None:
            lines.append(
                f"events that these windows reach are missing: values are whole from {values['whole_from']} on"
            )
        emit(values, as_json, "\n".join(lines))


@features.command()
@click.option("--view", required=True, help="Name of the view: that of its definition.")
@click.option("--sample", default=200, show_default=True, type=click.IntRange(0), help="Entities to read now and keep.")
@click.option(
    "--hours", default=24.0, show_default=True, type=click.FloatRange(0), help="Recompute reads this far back."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON value.")
def check(view: str, sample: int, hours: float, as_json: bool) -> None:
    """Read some entities online, then recompute every kept read from the stored events. Exit 1 when a value differs.

    Also says how many served values late events have changed since (no fault, but what a model was served).
    """
    from ct_assets.adapters.clock import SystemClock
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import consistency
    from ct_assets.adapters.stream.versions import find_table
    from ct_assets.settings import load

    settings = load()
    now = round(SystemClock().now().timestamp() * 1e6)
    since = now - round(hours * 3.6e9)
    with connect(prepared_url(settings, "stream"), autocommit=True) as conn:
        table = find_table(conn, view)
        sampled = consistency.some_entities(conn, table, sample)
        consistency.sample_reads(conn, table, sampled, now, settings.online_url)
        report = consistency.recompute(conn, open_storage(settings), table, since)
        skew = consistency.as_served(conn, open_storage(settings), table, since)
    changed = sum(skew.changed.values())
    found = {
        "view": view,
        "definition": report.definition_hash[:12],
        "reads": report.reads,
        "values": report.values,
        "mismatches": report.mismatches,
        "left_out": report.left_out,
        "first": [m.__dict__ for m in report.first],
        "changed_by_late_events": changed,
    }
    lines = [
        f"{view}: {report.reads} reads with {report.values} values recomputed, {report.mismatches} differ",
        *(
            f"  {m.entity} at {_text(m.at_us)} {m.aggregate}: served {m.served}, is {m.recomputed}"
            for m in report.first
        ),
        f"late events have changed {changed} of them since",
    ]
    if report.left_out:
        lines.append(f"{report.left_out} more reach events that retention has removed since, and were left out")
    emit(found, as_json, "\n".join(lines))
    if report.mismatches:
        raise click.exceptions.Exit(1)


def _entity(table: OnlineTable, text: str) -> Any:
    """The value of KEY=VALUE in the entity's type."""
    key = table.definition.entity
    name, equals, value = text.partition("=")
    if not equals or name != key:
        near = did_you_mean(name, [key]) if equals else None
        raise UsageError(
            f"--entity {text!r}: the key of {table.definition.name} is {key}", hint=near or f"write {key}=VALUE"
        )
    if table.definition.schema.column(key).type != "integer":
        return value
    try:
        number = int(value)
    except ValueError:
        raise UsageError(f"--entity {text!r}: {key} is an integer", hint=f"for example {key}=42") from None
    if number not in WHOLE_64:
        raise UsageError(f"--entity {text!r}: {key} does not fit 64 bits", hint=f"for example {key}=42")
    return number


def moment(text: str, option: str) -> int:
    """An option's ISO 8601 text in microseconds UTC. Raises UsageError."""
    from ct_assets.streaming.times import NotATime, microseconds

    try:
        return microseconds(text)
    except NotATime as wrong:
        raise UsageError(f"{option}: {wrong}", hint=_TIME) from None


def _online(conn: psycopg.Connection, table: OnlineTable, entities: list[Any], now: int) -> list[dict[str, Any]]:
    from ct_assets.adapters.stream.coverage import whole_from
    from ct_assets.adapters.stream.online_reads import OnlineReads
    from ct_assets.settings import load

    found = OnlineReads(load().online_url).read(conn, table, entities, now)
    about = {
        "at": _text(now),
        "watermark": _text(found.watermark_us),
        "staleness_seconds": None if found.staleness_us is None else found.staleness_us / 1e6,
        "is_stale": found.is_stale,
        "whole_from": _text(whole_from(conn, table, now)),
        "definition": table.definition.hash[:12],
    }
    key = table.definition.entity
    return [{key: entity} | values | about for entity, values in zip(entities, found.values, strict=True)]


def _history(
    conn: psycopg.Connection, table: OnlineTable, entities: list[Any], moments: tuple[int, Any], now: int
) -> list[dict[str, Any]]:
    import polars as pl

    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream.coverage import whole_from
    from ct_assets.adapters.stream.snapshots import position
    from ct_assets.adapters.stream.training_frames import Request, training_frame
    from ct_assets.settings import load

    at, known = moments
    watermark = position(conn, table, now).watermark  # before the values: what comes meanwhile may only add to them
    labels = pl.DataFrame({table.definition.entity: entities, "at": [at] * len(entities)})
    request = Request("corrected", known_by=known, storage=open_storage(load()), tells_losses=False)
    rows = training_frame(conn, table, labels, request).to_dicts()
    about = {
        "at": _text(at),
        "as_known_at": _text(known),
        "watermark": _text(watermark),
        "beyond_watermark": watermark is None or at > watermark,
        "whole_from": _text(whole_from(conn, table, at, stored=True)),
        "definition": table.definition.hash[:12],
    }
    return [row | about for row in rows]


def _text(moment: int | None) -> str | None:
    from datetime import UTC, datetime, timedelta

    return None if moment is None else (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).isoformat()

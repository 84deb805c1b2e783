"""What `ct stream plan` and `deploy` say of events that a version lacks: the topic, or retention, no longer has them.

What goes here: finding the topic to ask, the report and its line. What does not: counting (``adapters.stream.coverage``),
refusing a switch (``stream_deploy``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ct_assets.errors import CtError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.events.port import EventSource
    from ct_assets.adapters.stream.coverage import Coverage
    from ct_assets.adapters.stream.deployment import Plan
    from ct_assets.adapters.stream.online import OnlineTable
    from ct_assets.adapters.stream.records import Stream
    from ct_assets.streaming.definition import Definition

_UNKNOWN = "whether the topic still holds every stored event is not known: name it with --source URL"


@contextmanager
def topic(url: str | None) -> Iterator[EventSource | None]:
    """The topic at a URL while it is needed; None for none."""
    from ct_assets.adapters.events.port import open_source
    from ct_assets.settings import load

    source = open_source(url, load()) if url else None
    try:
        yield source
    finally:
        if source is not None:
            source.close()


def before_reading(
    conn: psycopg.Connection, definition: Definition, found: Plan, source: EventSource | None
) -> tuple[dict[str, object], list[str]]:
    """Of a plan: what the version will lack, or lacks; fields and lines, no lines when it takes every event from what is
    stored."""
    from ct_assets.adapters.stream import coverage, state, versions

    over = None if source is None else state.stream_over(conn, definition.acceptance, source.identity())
    if found.action == "switch":
        table = versions.find_table(conn, definition.name, definition.hash, over.stream_id if over else None)
        covered = of_table(conn, definition, table)
        return (fields(covered), [] if covered.begins is None and not covered.lacking else [str(covered)])
    if found.action == "build" and over is None:
        over = state.find_stream(conn, versions.find_table(conn, definition.name).stream_id)
    if found.action in ("build", "first") and over is not None:
        covered = coverage.of_retention(conn, over, definition.max_window_us)
        return fields(covered), covered.lacking
    if found.action != "new_stream":
        return {}, []
    covered = _of_topic(conn, state.find_stream(conn, versions.find_table(conn, definition.name).stream_id), source)
    if covered is None:
        return {"topic_begins": None, "events_gone": None}, [_UNKNOWN]
    return fields(covered), [str(covered)]


def of_table(conn: psycopg.Connection, definition: Definition, table: OnlineTable) -> Coverage:
    """What a version lacks: by what retention had removed when it was made and, where it was read from the topic again,
    of what is stored for the one that answers."""
    from dataclasses import replace

    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import coverage, state, versions
    from ct_assets.settings import load

    retained = coverage.of_version(conn, table)
    old = versions.find_table(conn, definition.name).stream_id
    if old == table.stream_id:
        return retained
    new = state.find_stream(conn, table.stream_id)
    covered = coverage.of_stream(conn, state.find_stream(conn, old), new, open_storage(load()))
    if covered is None:
        return retained
    return replace(covered, removed=retained.removed, whole_from=retained.whole_from)


def fields(covered: Coverage) -> dict[str, object]:
    """For scripts."""
    from ct_assets.adapters.stream.coverage import moment_text

    whole = None if covered.whole_from is None else moment_text(covered.whole_from)
    found: dict[str, object] = {"events_removed": covered.removed, "whole_from": whole}
    if covered.begins is not None:
        found |= {"topic_begins": dict(covered.begins), "events_gone": covered.gone, "events_unread": covered.unread}
    return found


def lacks(report: dict[str, object]) -> bool:
    """Whether such fields say that something is missing."""
    return any(report.get(name) for name in ("events_gone", "events_unread", "whole_from"))


def _of_topic(conn: psycopg.Connection, stream: Stream, source: EventSource | None) -> Coverage | None:
    """None: no topic was named, and the one in CT_KAFKA_URL is another or does not answer."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import coverage, deployment
    from ct_assets.settings import load

    settings = load()
    if source is None and stream.source_kind == "kafka" and settings.kafka.url:
        try:
            with topic(settings.kafka.url) as asked:
                return None if asked is None else _of_topic(conn, stream, asked)
        except CtError:
            return None
    if source is None or not deployment.is_of(stream, source.identity()):
        return None
    return coverage.of_topic(conn, stream, source.begin_offsets(), open_storage(settings))

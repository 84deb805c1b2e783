"""What `ct stream plan` and `deploy` say of stored events that the topic no longer holds.

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
    """Of a plan: what a version that is read from the topic again will lack, or lacks; fields and lines, none when every
    event is taken from what is stored."""
    from ct_assets.adapters.stream import state, versions

    if found.action == "switch":
        over = None if source is None else state.stream_over(conn, definition.acceptance, source.identity())
        table = versions.find_table(conn, definition.name, definition.hash, over.stream_id if over else None)
        covered = of_table(conn, definition, table)
        return ({}, []) if covered is None else (fields(covered), [str(covered)])
    if found.action != "new_stream":
        return {}, []
    covered = _of_topic(conn, state.find_stream(conn, versions.find_table(conn, definition.name).stream_id), source)
    if covered is None:
        return {"topic_begins": None, "events_gone": None}, [_UNKNOWN]
    return fields(covered), [str(covered)]


def of_table(conn: psycopg.Connection, definition: Definition, table: OnlineTable) -> Coverage | None:
    """What a version that was read from the topic again lacks of what is stored for the one that answers; None: it is over
    the same stored events, or over another topic."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import coverage, state, versions
    from ct_assets.settings import load

    old = versions.find_table(conn, definition.name).stream_id
    if old == table.stream_id:
        return None
    new = state.find_stream(conn, table.stream_id)
    return coverage.of_stream(conn, state.find_stream(conn, old), new, open_storage(load()))


def fields(covered: Coverage) -> dict[str, object]:
    """For scripts."""
    return {"topic_begins": dict(covered.begins), "events_gone": covered.gone}


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

"""Hop emission of a live stream: the rows of all windows that are complete, from what was committed.

What goes here: which windows are complete, reading their events in bounded slices. What does not: the windows
(``streaming.windows.hops``), files (the command).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.chunks import EventQuery, event_frames
from ct_assets.adapters.stream.coverage import moment_text
from ct_assets.adapters.stream.snapshots import position
from ct_assets.adapters.stream.state import find_stream
from ct_assets.adapters.stream.training_frames import computable_from
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable

SLICE_US = 3_600_000_000  # of event time read at once, and the longest window before it


def emitted(
    conn: psycopg.Connection, table: OnlineTable, span: tuple[int | None, int | None], now: int, storage: Storage
) -> Iterator[pl.DataFrame]:
    """Frames of entity, window_end and aggregates, for the windows that end in ``(since, until]`` and are complete.

    A window is complete when the stream's completeness (all partitions; ``now`` says which are idle) has reached its end.
    ``since`` None: from the first event, or the first window of which retention has removed none; ``until`` None: up to
    completeness. Late events that came since are in the values. Times in microseconds. Raises UsageError when the
    definition has no ``emit``, and when retention has removed events of a window that is asked for.
    """
    import polars as pl

    from ct_assets.streaming.windows import hops

    definition = table.definition
    if definition.emit_hop_us is None:
        raise UsageError(f"{definition.name} does not emit hops", hint="add `emit: {hop: 1m}` to its file")
    complete = position(conn, table, now).watermark
    first = _first(conn, table)
    if complete is None or first is None:
        return
    end = complete if span[1] is None else min(span[1], complete)
    begin = max(first, _whole_from(conn, table, span[0])) - 1
    begin = begin if span[0] is None else max(span[0], begin)
    columns = tuple(dict.fromkeys((definition.entity, definition.acceptance.event_time, *definition.columns)))
    stream = find_stream(conn, table.stream_id)
    while begin < end:
        until = min(begin + SLICE_US, end)
        query = EventQuery(since=begin - definition.max_window_us, until=until, columns=columns)
        frames = list(event_frames(conn, stream, query, storage))
        if frames:
            yield hops(definition, pl.concat(frames), begin, until)
        begin = until


def _whole_from(conn: psycopg.Connection, table: OnlineTable, since: int | None) -> int:
    """The first end of a window that retention has left whole. Raises UsageError when windows before it are asked for."""
    whole = computable_from(conn, table)
    if whole is None:
        return -(2**62)
    if since is not None and since + 1 < whole:
        raise UsageError(
            f"retention has removed events that windows of {table.definition.name} need (CT_STREAM_RETENTION_DAYS)",
            hint=f"windows are whole that end at {moment_text(whole)} or later",
        )
    return whole


def _first(conn: psycopg.Connection, table: OnlineTable) -> int | None:
    """A moment before all events."""
    row = conn.execute(
        "select min(min_event_time) from stream.chunk where stream_id = %s", (table.stream_id,)
    ).fetchone()
    return None if row is None else row[0]

"""Values of a definition at many (entity, moment) pairs in the past, from the stored events: training sets.

What goes here: which events such a question needs, slices that bound memory. What does not: the window kernel
(``streaming.windows``), Feast's interface (``adapters.feast``).

By default a value is read as it was known at its moment, which is what serving would have answered; ``corrected`` sees late
events too. Every label row stays, in its order: an entity without events counts 0.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ct_assets.adapters.stream.chunks import KNOWN, EventQuery, event_frames
from ct_assets.adapters.stream.coverage import in_reach_of_losses
from ct_assets.adapters.stream.late import late_events
from ct_assets.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import polars as pl
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.online import OnlineTable

Reading = Literal["as_known", "corrected"]
_TABLE = 1 << 26  # a table of entities takes a byte each
_SAMPLE = 2_048  # events of a chunk that tell how many of it are asked for
_SHOWN = 5  # rows that an error names
SLICE_LABELS = 1_000_000  # labels evaluated at a time, in order of their moments


@dataclass(frozen=True)
class Request:
    """How to read. ``known_by``: one moment (microseconds) for all labels instead of each its own; ``version``: only
    what an online reader of that version saw (then ``reading`` is ``corrected``); ``with_late``: events too that came later
    than is allowed, which no online value ever sees (``reading`` is ``corrected``)."""

    reading: Reading = "as_known"
    at: str = "at"
    known_by: int | None = None
    version: Mapping[int, tuple[int, int]] | None = None
    as_built: bool = False  # what the version lacked when it was made it may lack here too
    storage: Storage | None = None
    with_late: bool = False
    tells_losses: bool = True  # by a warning; False where it is said otherwise


class LossInReach(UserWarning):
    """Values lack messages that a topic deleted before they were read, and that were given up since."""


def training_frame(
    conn: psycopg.Connection, table: OnlineTable, labels: pl.DataFrame, request: Request | None = None
) -> pl.DataFrame:
    """``labels`` with one column an aggregate; same rows, same order, whatever else they hold.

    ``labels`` has the entity's column and ``request.at`` (a Datetime, or integer microseconds UTC). Memory holds the
    events of the labels' entities in the span of one slice of labels. A null entity is one without events. Raises UsageError
    for a missing column, a missing moment, and an entity of another type than the contract's.
    """
    import numpy as np
    import polars as pl

    request = request or Request()
    moments, asked = _moments(table, labels, request), _entities(table, labels)
    if request.tells_losses and (some := in_reach_of_losses(conn, table, moments)):
        warnings.warn(
            f"windows of {some:,} of {len(moments):,} labels of {table.definition.name} reach messages that were given up"
            " unread (`ct stream status`): their values lack them, as online values did",
            LossInReach,
            stacklevel=2,
        )
    if 0 < len(moments) <= SLICE_LABELS:
        return labels.hstack(_slice(conn, table, asked, moments, request))
    order = np.argsort(moments, kind="stable")
    parts = []
    for start in range(0, len(order), SLICE_LABELS):
        part = order[start : start + SLICE_LABELS]
        parts.append(_slice(conn, table, asked[part], moments[part], request))
    if not parts:
        return labels.hstack(_empty(table, asked))
    values = pl.concat(parts)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return labels.hstack(values[back])


def _slice(
    conn: psycopg.Connection, table: OnlineTable, asked: pl.Series, moments: np.ndarray, request: Request
) -> pl.DataFrame:
    from ct_assets.streaming.windows import evaluate

    events = _events(conn, table, asked, (int(moments.min()), int(moments.max())), request)
    known = None
    if request.known_by is not None:
        known = moments * 0 + request.known_by
    elif request.reading == "as_known" and request.version is None:
        known = moments
    return evaluate(table.definition, events, asked, moments, as_known_at=known)


def _events(
    conn: psycopg.Connection, table: OnlineTable, asked: pl.Series, span: tuple[int, int], request: Request
) -> pl.DataFrame:
    """The events that labels of the entities ``asked`` can see: of their entities, kept by a filter, in reach of a window; and others
    where they are few."""
    import numpy as np
    import polars as pl

    from ct_assets.adapters.stream.online_rows import matches
    from ct_assets.adapters.stream.state import find_stream
    from ct_assets.streaming.windows import MOST

    definition = table.definition
    stream = find_stream(conn, table.stream_id)
    _refuse_removed(conn, table, span, request)
    columns = dict.fromkeys((definition.entity, definition.acceptance.event_time, *definition.columns))
    query = EventQuery(
        since=span[0] - definition.max_window_us,
        until=span[1],
        known_by=request.known_by if request.known_by is not None else _latest(span, request),
        version=request.version,
        columns=tuple(columns),
        append_times=False,
    )
    is_asked = _chooser(table, asked)
    passes = pl.any_horizontal([matches(where) for where in table.layout.filters])

    def kept(frame: pl.DataFrame) -> np.ndarray:
        return is_asked(frame) & frame.select(passes).to_series().to_numpy()

    frames = []
    for frame in event_frames(conn, stream, query, request.storage):
        sample = kept(frame[np.arange(0, len(frame), max(len(frame) // _SAMPLE, 1))])
        # to leave out a few takes longer than to sort them along
        is_most = np.count_nonzero(sample) > MOST * len(sample)
        frames.append(frame if is_most else frame.filter(pl.Series(kept(frame))))
    if request.with_late:
        frames += [late] if (late := late_events(conn, stream, query, request.storage)) is not None else []
    _refuse_removed(conn, table, span, request)  # again: retention may have removed some while they were being read
    if not frames:
        return _no_events(table)
    found = pl.concat(frames)
    # of the other columns only few values are read, where they are
    whole = (definition.entity, definition.acceptance.event_time, KNOWN)
    return found.with_columns(found[name].rechunk() for name in whole)


def _chooser(table: OnlineTable, asked: pl.Series) -> Callable[[pl.DataFrame], np.ndarray]:
    """What says which events are of entities that a label asks for. A table lookup where entities are near integers: a
    twentieth of the time of a join."""
    import numpy as np
    import polars as pl

    name, asked = asked.name, asked.drop_nulls().unique()
    kind = table.definition.schema.column(name).type
    if kind == "integer" and asked.dtype.is_integer() and len(asked):
        low, high = int(asked.min()), int(asked.max())  # pyright: ignore[reportArgumentType]
        if high - low < _TABLE:
            there = np.zeros(high - low + 1, np.bool_)
            there[asked.to_numpy() - low] = True

            def by_table(frame: pl.DataFrame) -> np.ndarray:
                entity = frame[name].to_numpy()
                if entity.min() >= low and entity.max() <= high:
                    return there[entity - low]
                return there[np.clip(entity, low, high) - low] & (entity >= low) & (entity <= high)

            return by_table
    return lambda frame: (
        frame.select(pl.col(name).is_in(asked.cast(frame.schema[name]).implode())).to_series().to_numpy()
    )


def _refuse_removed(conn: psycopg.Connection, table: OnlineTable, span: tuple[int, int], request: Request) -> None:
    """A window that retention has emptied must not read as if nothing had happened in it."""
    from datetime import UTC, datetime, timedelta

    removed, lacks = removals(conn, table)
    whole = computable_from(conn, table)
    if removed is None or whole is None or span[0] >= whole:
        return
    if request.as_built and lacks is not None and removed <= lacks:
        return
    first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=whole)
    raise UsageError(
        f"retention has removed events that labels of {table.definition.name} need (CT_STREAM_RETENTION_DAYS)",
        hint=f"values can be computed from {first.isoformat()} on: leave out earlier labels",
    )


def computable_from(conn: psycopg.Connection, table: OnlineTable) -> int | None:
    """The first moment at which no window reaches events that retention has removed; None: it has removed none."""
    removed, _ = removals(conn, table)
    return None if removed is None else removed + table.definition.max_window_us


def removals(conn: psycopg.Connection, table: OnlineTable) -> tuple[int | None, int | None]:
    """Event times before which retention has removed events by now, and had when the version was made."""
    row = conn.execute(
        """select s.removed_before, d.lacks_before from stream.stream s
           left join stream.definition d on d.definition_id = %s where s.stream_id = %s""",
        (table.definition_id, table.stream_id),
    ).fetchone()
    return (None, None) if row is None else row


def _latest(span: tuple[int, int], request: Request) -> int | None:
    return span[1] if request.reading == "as_known" and request.version is None else None


def _no_events(table: OnlineTable) -> pl.DataFrame:
    import polars as pl

    from ct_assets.streaming.rules import dtype

    definition = table.definition
    columns = dict.fromkeys((definition.entity, definition.acceptance.event_time, *definition.columns))
    schema: dict[str, Any] = {name: dtype(definition.schema.column(name), definition.acceptance) for name in columns}
    places = {"_partition": pl.Int32, "_offset": pl.Int64, "_append_time": pl.Int64, KNOWN: pl.Int64}
    return pl.DataFrame(schema={**schema, **places})


def _empty(table: OnlineTable, asked: pl.Series) -> pl.DataFrame:
    import numpy as np

    from ct_assets.streaming.windows import evaluate

    return evaluate(table.definition, _no_events(table), asked, np.empty(0, np.int64))


def _moments(table: OnlineTable, labels: pl.DataFrame, request: Request) -> np.ndarray:
    import polars as pl

    for name in (table.definition.entity, request.at):
        if name not in labels.columns:
            near = did_you_mean(name, labels.columns) or f"columns: {', '.join(labels.columns)}"
            raise UsageError(f"the labels have no column {name!r}", hint=near)
    moments = labels[request.at]
    if isinstance(moments.dtype, pl.Datetime):
        moments = moments.dt.epoch("us")
    if not moments.dtype.is_integer() and moments.dtype != pl.Null:
        raise UsageError(
            f"column {request.at!r} holds {moments.dtype}, no moments", hint="UTC timestamps or integer microseconds"
        )
    if moments.null_count():
        raise without_moment(request.at, moments.is_null().to_numpy(), "leave those rows out, or give them a moment")
    return moments.cast(pl.Int64).to_numpy()


def without_moment(column: str, missing: np.ndarray, hint: str) -> UsageError:
    """What to say of labels without a moment: a value would be one of no time at all. ``missing`` says which they are."""
    rows = missing.nonzero()[0]
    some = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
    return UsageError(
        f"column {column!r} has no moment in {len(rows)} of {len(missing)} rows (from 0 on: {some})", hint=hint
    )


def _entities(table: OnlineTable, labels: pl.DataFrame) -> pl.Series:
    """The labels' entities in the contract's type. Raises UsageError for another."""
    import polars as pl

    name = table.definition.entity
    found, kind = labels[name], table.definition.schema.column(name).type
    wanted, fitting = (
        (pl.Int64(), found.dtype.is_integer())
        if kind == "integer"
        else (pl.String(), found.dtype in (pl.String, pl.Categorical, pl.Enum))
    )
    if fitting or found.dtype == pl.Null:
        cast = found.cast(wanted, strict=False)
        if cast.null_count() == found.null_count():
            return cast
    raise UsageError(
        f"column {name!r} of the labels holds {found.dtype}; the key of {table.definition.name} is of type {kind}",
        hint=f"convert it: labels.with_columns(pl.col({name!r}).cast(pl.{wanted}))",
    )

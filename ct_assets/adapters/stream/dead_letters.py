"""Dead letters after the commit: what there is, and their way back into the stream.

What goes here: listing, showing, replaying. What does not: why a message is one (``streaming``), writing it
(``state``), whose letters a definition may replay (``letter_streams``).

A replayed letter is judged as if its message arrived now: decoded again (the contract may have been mended), brought into
the columns of its stream (``stored_form``), against what the partition remembers and the watermark it has reached. Accepted, it is stored in a chunk of its own, folded into every
online table, and the partition's count of replays rises, so a reader's version says whether it was seen. It does not move
the watermark. What comes back too late is kept for the snapshot of its hour (``late``). Replaying twice changes nothing: what was accepted or was a repeat is never replayed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.chunks import OFFSET, PARTITION, ChunkPlace, insert_chunk, replay_frames
from ct_assets.adapters.stream.late import keep_late
from ct_assets.adapters.stream.state import Stream, next_commit_id
from ct_assets.adapters.stream.stored_form import FittedDecoder
from ct_assets.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.streaming.accept import Accepted
    from ct_assets.streaming.messages import Messages

FINAL = ("accepted", "duplicate")
REASONS = ("poison", "null_key", "timestamp_out_of_range", "contract", "future", "conflict", "late")
_AT_ONCE = 10_000


@dataclass(frozen=True)
class DeadLetter:
    """One letter with its coordinates. ``outcome`` None: never replayed."""

    dead_letter_id: int
    stream: str
    topic: str
    partition: int
    offset: int
    reason: str
    error: str
    contract_digest: str
    raw: bytes
    append_time: int | None
    created_at: datetime
    outcome: str | None


@dataclass(frozen=True)
class Chosen:
    """Which letters: all conditions that are given hold. ``stream``: a name, or the number of one."""

    stream: str | None = None
    reason: str | None = None
    ids: tuple[int, ...] | None = None
    open_only: bool = False
    limit: int = 100


def summary(conn: psycopg.Connection, stream: str | None = None) -> list[dict[str, Any]]:
    """Letters by stream and reason: how many, how many came back, offsets and times of the first and last."""
    rows = conn.execute(
        """select s.stream_id, s.name, s.topic, s.source_kind, d.reason, count(*),
                  count(*) filter (where d.outcome = any(%s)), min(d.created_at), max(d.created_at)
           from stream.dead_letter d join stream.stream s using (stream_id)
           where %s::text is null or %s in (s.name, s.stream_id::text)
           group by 1, 2, 3, 4, 5 order by 1, 6 desc""",
        (list(FINAL), stream, stream),
    ).fetchall()
    names = ("stream_id", "stream", "topic", "source", "reason", "letters", "came_back", "first", "last")
    return [dict(zip(names, row, strict=True)) for row in rows]


def letters(conn: psycopg.Connection, chosen: Chosen) -> list[DeadLetter]:
    """Letters in order of arrival. Raises UsageError for a stream or reason that none has, and for ids of no letter."""
    rows = conn.execute(
        """select d.dead_letter_id, s.name, s.topic, d.partition, d."offset", d.reason, d.error, d.contract_digest, d.raw,
                  d.append_time, d.created_at, d.outcome
           from stream.dead_letter d join stream.stream s using (stream_id)
           where (%(stream)s::text is null or %(stream)s in (s.name, s.stream_id::text)) and (%(reason)s::text is null or d.reason = %(reason)s)
             and (%(ids)s::bigint[] is null or d.dead_letter_id = any(%(ids)s))
             and (not %(open)s or d.outcome is null or d.outcome <> all(%(final)s))
           order by d.dead_letter_id limit %(limit)s""",
        {
            "stream": chosen.stream,
            "reason": chosen.reason,
            "ids": None if chosen.ids is None else list(chosen.ids),
            "open": chosen.open_only,
            "final": list(FINAL),
            "limit": chosen.limit,
        },
    ).fetchall()
    if not rows:
        _check(conn, chosen)
    _check_ids(conn, chosen.ids or (), {row[0] for row in rows})
    return [DeadLetter(*row) for row in rows]


def check_chosen(conn: psycopg.Connection, streams: Sequence[Stream], chosen: Chosen) -> None:
    """Raises UsageError for a reason that does not exist, and for ids of no letter of these streams."""
    check_reason(chosen.reason)
    rows = conn.execute(
        "select dead_letter_id from stream.dead_letter where stream_id = any(%s) and dead_letter_id = any(%s)",
        ([s.stream_id for s in streams], list(chosen.ids or ())),
    ).fetchall()
    missing = sorted(set(chosen.ids or ()) - {row[0] for row in rows})
    if missing:
        there = ", ".join(sorted({s.name for s in streams})) or "a stream"
        raise UsageError(
            f"no dead letter {', '.join(map(str, missing))} of {there}", hint="`ct dead-letter show` lists them"
        )


def check_reason(reason: str | None) -> None:
    """Raises UsageError for a reason that does not exist."""
    if reason is not None and reason not in REASONS:
        near = did_you_mean(reason, REASONS) or f"one of {', '.join(REASONS)}"
        raise UsageError(f"there is no reason {reason!r}", hint=near)


def _check(conn: psycopg.Connection, chosen: Chosen) -> None:
    found = summary(conn)
    check_reason(chosen.reason)
    for given, column in ((chosen.stream, "stream"), (chosen.reason, "reason")):
        known = sorted({str(row[column]) for row in found})
        numbers = {str(row["stream_id"]) for row in found} if column == "stream" else set()
        if given is not None and given not in known and given not in numbers:
            near = did_you_mean(given, known) if column == "stream" else None
            near = near or (f"there are: {', '.join(known)}" if known else "there is none at all")
            raise UsageError(f"no dead letter of {column} {given!r}", hint=near)
    if chosen.ids:
        raise _no_letter(chosen.ids)


def _check_ids(conn: psycopg.Connection, ids: Sequence[int], found: set[int]) -> None:
    """Every id is a letter's, if only one beyond the limit or of another stream or reason than was asked for."""
    rest = sorted(set(ids) - found)
    rows = conn.execute("select dead_letter_id from stream.dead_letter where dead_letter_id = any(%s)", (rest,))
    missing = sorted(set(rest) - {row[0] for row in rows.fetchall()})
    if missing:
        raise _no_letter(missing)


def _no_letter(ids: Sequence[int]) -> UsageError:
    return UsageError(
        f"no dead letter {', '.join(map(str, ids))} as asked for", hint="`ct dead-letter show` lists them"
    )


@dataclass(frozen=True)
class Replayed:
    """What became of the letters: how many by outcome (accepted, duplicate, or the reason they are dead again)."""

    outcomes: Counter[str] = field(default_factory=Counter)


def replay(conn: psycopg.Connection, stream: Stream, decoder: FittedDecoder, chosen: Chosen, now_us: int) -> Replayed:
    """Judge the chosen letters of a stream again, in order of offset; some thousand a transaction.

    Workers may run: one that holds the partition is fenced when a letter was accepted and begins again with it
    remembered. ``now_us``: the moment of re-entry (microseconds).
    """
    outcomes: Counter[str] = Counter()
    open_ones = replace(chosen, stream=None, open_only=True, limit=_AT_ONCE)
    partitions = conn.execute(
        "select distinct partition from stream.dead_letter where stream_id = %s order by 1", (stream.stream_id,)
    ).fetchall()
    for (partition,) in partitions:
        after: int | None = -1
        while after is not None:  # letters that stay dead stay open: go on behind them
            with conn.transaction():
                found, after = _replay_partition(conn, (stream, decoder, open_ones, now_us), partition, after)
            outcomes += found
    return Replayed(outcomes)


def _replay_partition(
    conn: psycopg.Connection, how: tuple[Stream, FittedDecoder, Chosen, int], partition: int, after: int
) -> tuple[Counter[str], int | None]:
    """The next letters behind an offset: what became of them, and the offset to go on behind (None: no more)."""
    from ct_assets.streaming.messages import Messages

    stream, decoder, chosen, now_us = how
    row = conn.execute(
        """select top, frontier, replays from stream.partition where stream_id = %s and partition = %s
           for no key update""",
        (stream.stream_id, partition),
    ).fetchone()
    found = conn.execute(
        """select "offset", raw from stream.dead_letter where stream_id = %s and partition = %s and "offset" > %s
             and (%s::text is null or reason = %s) and (%s::bigint[] is null or dead_letter_id = any(%s))
             and (outcome is null or outcome <> all(%s)) order by "offset" limit %s""",
        (
            stream.stream_id,
            partition,
            after,
            chosen.reason,
            chosen.reason,
            *[list(chosen.ids) if chosen.ids else None] * 2,
            list(FINAL),
            chosen.limit,
        ),
    ).fetchall()
    if not found or row is None:
        return Counter(), None
    offsets = [r[0] for r in found]
    messages = Messages.from_values([bytes(r[1]) for r in found], partition, offsets, now_us)
    accepted = _judged(conn, (stream, decoder), messages, (partition, row[0], row[1]))
    outcome = {int(o): "accepted" for o in accepted.events[OFFSET]} | {
        offsets[d.index]: d.reason for d in accepted.dead
    }
    decided = [outcome.get(o, "duplicate") for o in offsets]
    kept = keep_late(conn, stream, accepted.late, row[2] + 1)
    if len(accepted.events):
        _store(
            conn,
            stream,
            accepted.events,
            ChunkPlace(partition, min(outcome), max(offsets) + 1, next_commit_id(conn), row[0], row[2] + 1),
        )
    elif kept:
        _count_replay(conn, stream, partition)
    conn.execute(
        """update stream.dead_letter d set replayed_at = clock_timestamp(), outcome = u.outcome
           from unnest(%s::bigint[], %s::text[]) u ("offset", outcome)
           where d.stream_id = %s and d.partition = %s and d."offset" = u."offset" """,
        (offsets, decided, stream.stream_id, partition),
    )
    return Counter(decided), offsets[-1]


def _judged(
    conn: psycopg.Connection,
    how: tuple[Stream, FittedDecoder],
    messages: Messages,
    state: tuple[int, int | None, int | None],
) -> Accepted:
    """Decode and judge against what the partition remembers."""
    from ct_assets.streaming.accept import Acceptor

    stream, decoder = how
    partition, top, frontier = state
    acceptor = Acceptor(stream.acceptance, stream.ingestion_lag_us)
    if top is not None:
        since = top - stream.acceptance.out_of_orderness_us - stream.acceptance.dedup_horizon_us
        kept = replay_frames(conn, stream, partition, since)
        acceptor.restore(partition, top=top, frontier=frontier, events=kept)
    return acceptor.accept(decoder.decode(messages), messages, first_read_us=None)


def _store(conn: psycopg.Connection, stream: Stream, events: pl.DataFrame, place: ChunkPlace) -> None:
    """One chunk, the online rows, and a higher epoch: a worker that holds the partition must remember these events too."""
    from ct_assets.adapters.stream.online import write_rows
    from ct_assets.adapters.stream.versions import ready_tables

    events = events.sort(PARTITION, OFFSET)
    insert_chunk(conn, stream, place, events)
    for table in ready_tables(conn, stream):
        write_rows(conn, table, events, place.commit_id)
    conn.execute(
        "update stream.partition set epoch = epoch + 1, events = events + %s where stream_id = %s and partition = %s",
        (len(events), stream.stream_id, place.partition),
    )
    _count_replay(conn, stream, place.partition)


def _count_replay(conn: psycopg.Connection, stream: Stream, partition: int) -> None:
    """What is asked for from a version on sees what came with it."""
    conn.execute(
        "update stream.partition set replays = replays + 1 where stream_id = %s and partition = %s",
        (stream.stream_id, partition),
    )


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """A letter as one JSON value; bytes that are no UTF-8 come as base64."""
    import base64

    found: dict[str, Any] = {k: v for k, v in letter.__dict__.items() if k != "raw"}
    found["created_at"] = letter.created_at.isoformat()
    raw = bytes(letter.raw)
    try:
        return found | {"raw": raw.decode()}
    except UnicodeDecodeError:
        return found | {"raw": base64.b64encode(raw).decode(), "raw_base64": True}

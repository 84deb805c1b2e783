"""Which streams' dead letters are meant: by name or number, by the definition that shall replay them, or all with any.

What goes here: finding those streams. What does not: the letters themselves (``dead_letters``).

Two streams may have one name (an earlier version of the contract, another topic), and two datasets columns of equal names:
so a definition replays letters of its contract's dataset only, and a number always says which stream is meant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ct_assets.adapters.stream.dead_letters import FINAL, Chosen
from ct_assets.adapters.stream.state import Stream, find_stream
from ct_assets.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import psycopg

    from ct_assets.streaming.definition import Definition


def check_stream(conn: psycopg.Connection, chosen: str | None) -> None:
    """Raises UsageError for the name and the number of no stream."""
    rows = conn.execute("select name, stream_id from stream.stream").fetchall()
    names = sorted({row[0] for row in rows})
    if chosen is not None and chosen not in names and chosen not in {str(row[1]) for row in rows}:
        known = f"there are: {', '.join(names)}" if names else "no stream ran yet"
        raise UsageError(f"no stream {chosen!r}", hint=did_you_mean(chosen, names) or known)


def find_streams(conn: psycopg.Connection, definition: Definition, chosen: Chosen | None = None) -> list[Stream]:
    """The streams whose letters a definition may replay: of its contract's dataset, all equal but for the contract's rules.

    Of one topic that is the stream of exactly this contract where there is one (it has judged every message of the topic
    by it), else those of its earlier versions. A ``chosen`` stream, or letters chosen by id, may be of any of them. Raises
    UsageError when the chosen one is none, and when there is none at all.
    """
    chosen = chosen or Chosen()
    dataset, contract = definition.schema.name, definition.schema.contract_id
    rows = conn.execute(
        """select s.stream_id, s.name, array_agg(distinct d.document -> 'contract' ->> 'id')
               filter (where d.document -> 'contract' ->> 'id' is not null)
           from stream.stream s left join stream.definition d using (stream_id) group by 1, 2 order by 1"""
    ).fetchall()
    alike = [(s, name, ids or [contract]) for i, name, ids in rows if is_alike(s := find_stream(conn, i), definition)]
    found = [s for s, name, ids in alike if name == dataset and contract in ids]
    if chosen.stream is None and chosen.ids is None:
        exact = {s.topic_key for s in found if s.acceptance == definition.acceptance}
        found = [s for s in found if s.acceptance == definition.acceptance or s.topic_key not in exact]
    if chosen.stream is not None:
        found = [s for s in found if chosen.stream in (s.name, str(s.stream_id))]
    if not found:
        others = ", ".join(f"{s.label} of contract {' or '.join(ids)}" for s, _, ids in alike)
        raise UsageError(
            f"no stream{'' if chosen.stream is None else f' {chosen.stream!r}'} was run with the dataset {dataset} of contract {contract}"
            f" and what {definition.path} says about acceptance",
            hint=(f"alike, but of other datasets: {others}; " if others else "")
            + "`ct stream status` shows the streams, `ct dead-letter list` their letters",
        )
    return found


def is_alike(stream: Stream, definition: Definition) -> bool:
    """Whether a stream was run with this acceptance, whatever the contract's rules were."""
    mine = definition.acceptance
    return replace(stream.acceptance, contract_digest=mine.contract_digest) == mine


def streams_of(conn: psycopg.Connection, chosen: Chosen) -> list[tuple[Stream, list[str]]]:
    """The streams that have letters which may be replayed, each with the names of the definitions over it."""
    rows = conn.execute(
        """select s.stream_id, array_agg(distinct d.name) filter (where d.name is not null)
           from stream.stream s left join stream.definition d using (stream_id)
           where (%(stream)s::text is null or %(stream)s in (s.name, s.stream_id::text))
             and exists (select from stream.dead_letter l where l.stream_id = s.stream_id
               and (l.outcome is null or l.outcome <> all(%(final)s))
               and (%(ids)s::bigint[] is null or l.dead_letter_id = any(%(ids)s))
               and (%(reason)s::text is null or l.reason = %(reason)s))
           group by s.stream_id order by s.stream_id""",
        {
            "stream": chosen.stream,
            "final": list(FINAL),
            "ids": list(chosen.ids) if chosen.ids else None,
            "reason": chosen.reason,
        },
    ).fetchall()
    return [(find_stream(conn, stream_id), definitions or []) for stream_id, definitions in rows]

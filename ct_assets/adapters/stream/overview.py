"""What streams there are and how far they are: read-only questions for `ct stream status`.

What goes here: the questions. What does not: printing (``cli/stream_status``), progress of a running worker (its metrics).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ct_assets.adapters.stream.versions import is_being_built

if TYPE_CHECKING:
    import psycopg

_STREAMS = """
select s.stream_id, s.name, s.source_kind || '://' || s.topic as topic, s.topic_id,
       case when s.removed_before is not null then timestamptz 'epoch' + s.removed_before * interval '1 microsecond' end
           as removed_before,
       p.partitions, p.events, p.late_accepted, p.dead, p.duplicates, p.tombstones, p.owners, p.silent, p.caught_up,
       timestamptz 'epoch' + g.watermark * interval '1 microsecond' as watermark,
       extract(epoch from clock_timestamp() - (timestamptz 'epoch' + g.fresh_as_of * interval '1 microsecond'))::float8
           as staleness_seconds,
       c.chunks, c.files, c.bytes::bigint as bytes
from stream.stream s
cross join lateral (
    select count(*) as partitions, coalesce(sum(events), 0)::bigint as events,
           coalesce(sum(late_accepted), 0)::bigint as late_accepted, coalesce(sum(dead), 0)::bigint as dead,
           coalesce(sum(duplicates), 0)::bigint as duplicates, coalesce(sum(tombstones), 0)::bigint as tombstones,
           count(distinct owner) filter (where updated_at > clock_timestamp() - interval '15 seconds') as owners,
           count(distinct owner) filter (where updated_at <= clock_timestamp() - interval '15 seconds') as silent,
           coalesce(bool_and(caught_up), false) as caught_up
    from stream.partition where stream_id = s.stream_id
) p
cross join lateral (
    select count(*) filter (where location is null) as chunks, count(*) filter (where location is not null) as files,
           coalesce(sum(bytes), 0) as bytes
    from stream.chunk where stream_id = s.stream_id
) c
cross join lateral stream.progress(
    s.stream_id, (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    (s.acceptance ->> 'out_of_orderness_us')::bigint, (s.acceptance ->> 'idle_timeout_us')::bigint
) g
order by s.stream_id
"""
_VERSIONS = """
select d.name, left(d.hash, 12) as version, d.state, a.name is not null as answers, d.stream_id,
       pg_relation_size(to_regclass(format('online.%I', d.table_name))) as online_bytes, d.created_at,
       case when w.whole_from > t.top then timestamptz 'epoch' + w.whole_from * interval '1 microsecond' end as whole_from
from stream.definition d left join stream.active a using (definition_id)
cross join lateral (select max(top) as top from stream.partition p where p.stream_id = d.stream_id) t
cross join lateral (
    select max((a ->> 'window_us')::bigint + coalesce((a ->> 'hop_us')::bigint, 0))
           + greatest(d.lacks_before, (select max(ends) from stream.accepted_loss l where l.stream_id = d.stream_id))
           as whole_from
    from jsonb_array_elements(d.document -> 'aggregates') as a
) w
order by d.name, d.definition_id
"""

_LOSSES = """
select stream_id, partition, first_offset as "from", next_offset as "to", accepted_at, accepted_by
from stream.accepted_loss order by stream_id, partition, first_offset
"""


def streams(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """One dict a stream: counts since its beginning, watermark, staleness (None: never fed), what is stored where."""
    return _rows(conn, _STREAMS)


def definitions(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """One dict a version of a definition, and whether it answers. ``state``: ready, building, or abandoned: nobody builds
    it any more."""
    rows = _rows(conn, _VERSIONS)
    for row in rows:
        if row["state"] == "building" and not is_being_built(conn, row["name"]):
            row["state"] = "abandoned"
    return rows


def losses(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """One dict a range of offsets that a topic deleted unread and that somebody gave up (`ct stream accept-loss`)."""
    return _rows(conn, _LOSSES)


def workers(conn: psycopg.Connection) -> list[str]:
    """Owners of partitions (host, process id, number) that gave a sign of life within 15 s; none where no stream is."""
    if conn.execute("select to_regclass('stream.partition')").fetchone() == (None,):
        return []
    query = """select distinct owner from stream.partition
               where owner is not null and updated_at > clock_timestamp() - interval '15 seconds' order by owner"""
    return [row[0] for row in conn.execute(query)]


def _rows(conn: psycopg.Connection, query: str) -> list[dict[str, Any]]:
    from psycopg.rows import dict_row

    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()

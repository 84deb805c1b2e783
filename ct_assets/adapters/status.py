"""What an installation holds: deliveries, published days, incidents, models, in numbers.

What goes here: read-only questions to the ledger that `ct status` and `ct doctor` share. What does not: printing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ct_assets.adapters import incidents

if TYPE_CHECKING:
    import psycopg

_DELIVERIES = """
select pipeline, count(*) as deliveries, count(*) filter (where state = 'pending') as pending,
       count(*) filter (where state = 'rejected') as rejected, count(*) filter (where state = 'held') as held,
       max(received_at) as last_delivery
from ledger.delivery where %(pipeline)s::text is null or pipeline = %(pipeline)s group by pipeline order by pipeline
"""
_PUBLICATIONS = """
select pipeline, dataset, count(distinct day) as days, min(day) as first_day, max(day) as last_day,
       sum((rows->>'good')::bigint)::bigint as rows, sum((rows->>'quarantined')::bigint)::bigint as quarantined,
       count(*) filter (where exists (
           select from ledger.publication o where o.dataset = p.dataset and o.day = p.day and o.part = p.part
           and o.revision < p.revision and o.state = 'published' and o.delivery_id <> p.delivery_id)) as corrected,
       max(published_at) as last_published
from ledger.publication p where state = 'published' and superseded_at is null
  and (%(pipeline)s::text is null or pipeline = %(pipeline)s) group by pipeline, dataset order by pipeline, dataset
"""
_HELD = """
select revision_id, dataset, day, revision, diff from ledger.publication h
where state = 'held' and (%(pipeline)s::text is null or pipeline = %(pipeline)s) and not exists (
    select from ledger.publication n where n.dataset = h.dataset and n.day = h.day and n.part = h.part
    and n.state = 'published' and n.superseded_at is null and n.revision > h.revision) order by revision_id
"""
_CHAMPIONS = "select model, version, generation, decided_at, reason from ledger.champion order by model"
_FORECASTS = """
select prediction, model, model_version, as_of, rows, created_at from ledger.forecast
where superseded_at is null order by prediction
"""


def summary(conn: psycopg.Connection, pipeline: str | None = None) -> dict[str, Any]:
    """Lists of plain rows under deliveries, published, held, incidents, champions, forecasts."""
    wanted = {"pipeline": pipeline}
    return {
        "deliveries": rows(conn, _DELIVERIES, wanted),
        "published": rows(conn, _PUBLICATIONS, wanted),
        "held": rows(conn, _HELD, wanted),
        "incidents": incidents.open_incidents(conn, pipeline),
        "champions": rows(conn, _CHAMPIONS, {}),
        "forecasts": rows(conn, _FORECASTS, {}),
    }


def rows(conn: psycopg.Connection, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The result of a query as dictionaries."""
    from psycopg.rows import dict_row

    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()

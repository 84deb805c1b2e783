"""How old data and models may be: Dagster's policies for the UI, and the check on DATA time that Dagster cannot make.

What goes here: freshness policies of a pipeline, and the alert about a supplier that went quiet. What does not: any
remedy. A stale root cannot be refreshed by materializing it: somebody must deliver. No empty partition is ever made.

A `FreshnessPolicy` is per asset, not per partition: backfilling an OLD day turns it green. The objective is on data
time, so :func:`quiet_supplier` asks the ledger for the newest published business day instead.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    import psycopg

    from ct_assets.platform.spec import PipelineSpec

STALE_SUPPLIER = "stale_supplier"


def policy(limit: dt.timedelta | None) -> dg.FreshnessPolicy | None:
    """Fail when the last materialization is older than ``limit``; warn at four fifths of it. None: no objective."""
    if limit is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=limit, warn_window=limit * 4 / 5)


def quiet_supplier(conn: psycopg.Connection, spec: PipelineSpec, dataset: str, now: dt.datetime) -> str | None:
    """What to say about a supplier whose newest published day is older than `freshness.data`; None: all is well.

    `freshness.on_breach: page` opens an incident (settled when data comes), `warn` only says so. Nothing published yet
    is no breach: the pipeline waits for its first delivery.
    """
    from ct_assets.adapters import incidents, ledger

    days, limit = ledger.published_days(conn, dataset), spec.freshness.data
    if not days or limit is None:
        return None
    age = now.date() - days[-1]
    if age <= limit:
        conn.execute(
            "update ledger.incident set state = 'closed', closed_at = clock_timestamp()"
            " where dataset = %s and rule = %s and state = 'open'",
            (dataset, STALE_SUPPLIER),
        )
        return None
    message = f"{spec.name}: the newest published day is {days[-1]}, {age.days} days old; at most {limit.days} are allowed. Ask the supplier; deliver with `ct deliver`."
    if spec.freshness.on_breach == "page":
        about = incidents.Incident(spec.name, dataset, None, STALE_SUPPLIER, message, contract=spec.name)
        incidents.report(conn, about)
    return message

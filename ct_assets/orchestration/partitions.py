"""What a day is: partitions, partition mappings and the backfill policy of every data asset, defined once.

What goes here: the daily partitions of a pipeline, the mapping of a feature's look-back, the days of a run.
What does not: which days hold data (the ledger knows; a day without delivery never turns green).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import dagster as dg

ONE_RUN = dg.BackfillPolicy.single_run()
COORDINATED = "ct/days"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def daily(start: dt.date, time_zone: str | None = None) -> dg.DailyPartitionsDefinition:
    """One partition a calendar day of the contract's time zone, from ``start`` up to and including today.

    A shop's file of today may arrive before midnight, hence ``end_offset=1``.
    """
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone=time_zone or "UTC", end_offset=1)


def hourly(start: dt.date) -> dg.HourlyPartitionsDefinition:
    """One partition a clock hour of UTC, from ``start``; an hour is there once it is over."""
    return dg.HourlyPartitionsDefinition(start_date=f"{start}-00:00", timezone="UTC")


def looking_back(days: int) -> dg.TimeWindowPartitionMapping:
    """Day ``d`` needs the days ``d - days`` to ``d`` upstream; days before the first partition are simply not there.

    Read backwards it is what makes a correction of day D stale: the days D to ``D + days`` downstream.
    """
    return dg.TimeWindowPartitionMapping(start_offset=-days, end_offset=0, allow_nonexistent_upstream_partitions=True)


def range_tags(days: Iterable[dt.date]) -> dict[str, str]:
    """The run tags that select the smallest range holding all of ``days`` (at least one)."""
    ordered = sorted(days)
    return {RANGE_START: ordered[0].isoformat(), RANGE_END: ordered[-1].isoformat()}


def coordinated(days: Iterable[dt.date]) -> dict[str, str]:
    """The run tag of a coordinated range: first and last day.

    Dagster's own range tags would plan one event per calendar day and asset before the run starts (7 ms each: ten
    seconds for a year of days and four tables); this tag alone plans one per asset. A run of an asset whose inputs are
    partitioned and not in the same run needs Dagster's tags besides.
    """
    ordered = sorted(days)
    return {COORDINATED: f"{ordered[0]}..{ordered[-1]}"}


def days_of_run(context: dg.AssetExecutionContext) -> list[dt.date]:
    """The days a run is about: its partition, its range of partitions, or its coordinated range."""
    span = context.run.tags.get(COORDINATED)
    if span is None:
        return days_of(context.partition_keys)
    first, last = (dt.date.fromisoformat(part) for part in span.split(".."))
    return [first + dt.timedelta(days=i) for i in range((last - first).days + 1)]


def days_of(keys: Sequence[str]) -> list[dt.date]:
    """Partition keys as days."""
    return [dt.date.fromisoformat(key) for key in keys]

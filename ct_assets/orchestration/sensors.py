"""What watches: the landing area of a pipeline, and the age of its data.

What goes here: sensors. What does not: completeness of files (`adapters.inbox`), conditions (`automation.py`).

F40: the landing sensor has no cursor that could be lost. Each tick asks the ledger what is pending; the run key is the
digest of those deliveries and how often they were tried, so a tick repeated, a daemon restarted or two daemons ask for
the same run once.
"""

# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from ct_assets.orchestration.names import PIPELINE_TAG, Names
from ct_assets.orchestration.partitions import coordinated, range_tags
from ct_assets.orchestration.resources import RESOURCE, Installation

if TYPE_CHECKING:
    import datetime as dt

    from ct_assets.adapters.datasets import Rollup
    from ct_assets.adapters.ledger import Delivery
    from ct_assets.orchestration.pipeline import Pipeline
    from ct_assets.platform.spec import PipelineSpec

LANDING_SECONDS, SUPPLIER_SECONDS = 15, 3600
AT_ONCE = 5  # tries of a delivery that follow one another; then one an hour


def run_key(deliveries: "Iterable[Delivery]", tries: Mapping[int, int], now: "dt.datetime") -> str:
    """One delivery: its digest (and day). Several: the digest of theirs, whatever their order.

    ``tries``: how often each was decided or failed before. One that was taken again, or whose run failed, is another
    request: at once for the first ``AT_ONCE`` tries, then once an hour, and so is one that still waits after an hour
    (its run was lost). Without this Dagster would skip it for ever as already requested.
    """
    keys = sorted(f"{d.sha256}:{d.day or ''}{_again(d, tries.get(d.delivery_id, 0), now)}" for d in deliveries)
    return keys[0] if len(keys) == 1 else hashlib.sha256("\n".join(keys).encode()).hexdigest()


def _again(delivery: "Delivery", tries: int, now: "dt.datetime") -> str:
    hours = max(0, int((now - delivery.received_at).total_seconds() // 3600))
    return f"#{min(tries, AT_ONCE)}.{hours}" if tries or hours else ""


def requests(names: Names, deliveries: "list[Delivery]", key: "Callable[[list[Delivery]], str]") -> list[dg.RunRequest]:
    """At most one run for everything pending, over the range of its days."""
    from ct_assets.orchestration.stages import business_day

    if not deliveries:
        return []
    days = {business_day(d) for d in deliveries}
    tags = {PIPELINE_TAG: names.pipeline}
    if len(days) == 1:
        return [dg.RunRequest(key(deliveries), partition_key=days.pop().isoformat(), tags=tags)]
    # both ranges: Dagster's, so that the UI shows which days; ours, so that only the days with news are told
    return [dg.RunRequest(key(deliveries), tags={**tags, **range_tags(days), **coordinated(days)})]


def rollup_requests(
    names: Names, days: "set[dt.date]", rollups: "Iterable[Rollup]", partitions: dg.PartitionsDefinition
) -> list[dg.RunRequest]:
    """One run over ``days``, whose rollups have other SQL now; the run key is that SQL's, so a failed one is not repeated."""
    known = {day for day in days if partitions.has_partition_key(day.isoformat())}
    if not known:
        return []
    sql = hashlib.sha256("".join(f"{r.name} {r.digest}" for r in rollups).encode()).hexdigest()
    tags = {PIPELINE_TAG: names.pipeline, **range_tags(known), **coordinated(known)}
    return [dg.RunRequest(f"rollups:{sql}", tags=tags)]


def landing_sensor(pipeline: "Pipeline", job: Any) -> dg.SensorDefinition:
    """Takes in complete files of the inbox and asks for one run over all that is pending; without any, over the days
    whose rollups were made by other SQL than now."""
    names, spec = pipeline.names, pipeline.spec

    @dg.sensor(
        name=f"{names.pipeline}_landing",
        job=job,
        minimum_interval_seconds=LANDING_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
        description="Complete files in the inbox, and deliveries that no run has brought through yet.",
    )
    def landing(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        installation: Installation = getattr(context.resources, RESOURCE)
        waiting, asked = look(installation, pipeline)
        if not asked and spec.rollups:
            from ct_assets.adapters.datasets import published_dataset
            from ct_assets.orchestration.stages import rollups_behind

            rollups = published_dataset(spec, installation.settings).rollups
            asked = rollup_requests(names, rollups_behind(installation, spec), rollups, pipeline.days)
        if asked:
            return dg.SensorResult(run_requests=asked)
        return dg.SkipReason("; ".join(waiting) or "nothing new has been delivered")

    return landing


def look(installation: Installation, pipeline: "Pipeline") -> tuple[list[str], list[dg.RunRequest]]:
    """Take in what is complete; why other files wait, and the run that everything pending needs."""
    from ct_assets.adapters import inbox, landing
    from ct_assets.orchestration.stages import reject_days_outside

    names, url = pipeline.names, installation.ledger_url  # migrated before the first file is taken in
    assert url
    found = inbox.scan(installation.settings, names.pipeline, clock=installation.clock)
    waiting = [f"{name}: {why}" for name, why in sorted({**found.waiting, **found.refused}.items())]
    with installation.ledger() as conn:
        pending = reject_days_outside(conn, pipeline, landing.pending(conn, names.pipeline))
        tries = landing.tries(conn, names.pipeline)
    return waiting, requests(names, pending, lambda chosen: run_key(chosen, tries, installation.clock.now()))


def supplier_sensor(names: Names, spec: "PipelineSpec") -> dg.SensorDefinition | None:
    """Alerts when the newest published day is older than `freshness.data`; never starts a run."""
    limit = spec.freshness.data
    if limit is None:
        return None

    @dg.sensor(
        name=f"{names.pipeline}_supplier",
        minimum_interval_seconds=SUPPLIER_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
        description=f"{'Opens an incident for' if spec.freshness.on_breach == 'page' else 'Warns'} {spec.owner.oncall} when the newest day is older than {limit.days} days.",
    )
    def supplier(context: dg.SensorEvaluationContext) -> Iterator[dg.SkipReason]:
        from ct_assets.orchestration.freshness import quiet_supplier

        installation: Installation = getattr(context.resources, RESOURCE)
        with installation.ledger() as conn:
            message = quiet_supplier(conn, spec, names.lines, installation.clock.now())
        if message and spec.freshness.on_breach == "page":
            context.log.error(f"{spec.owner.oncall}: {message}")
        elif message:
            context.log.warning(message)
        yield dg.SkipReason(message or "the data is as recent as agreed")

    return supplier

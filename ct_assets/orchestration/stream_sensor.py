"""What watches a stream: one sensor that observes the topic and asks for the snapshots of hours that are complete.

What goes here: the sensor and its cursor. What does not: which hours are due (``stream_hours``).

The cursor holds how far the stream was looked at and the hours that were not over then; it saves reading, nothing else: a
lost one, or one of another stream or version than answers now, means that all hours are compared with what Dagster knows (F40). The run key is the digest of hours, versions and the last switch,
so a tick that is repeated asks for the same run once, and a failing hour is asked once a version (`ct run` asks again).
"""

# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

import hashlib
import json
from typing import Any

import dagster as dg

from ct_assets.orchestration.events import VERSION_TAG
from ct_assets.orchestration.names import PIPELINE_TAG
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.stream_pipeline import StreamPipeline, hour_tags, range_tags

SECONDS = 30


def stream_sensor(pipeline: StreamPipeline, job: Any) -> dg.SensorDefinition:
    """Observes the topic when it moved, tells its checks when they change, asks for one run over all hours that are due."""

    @dg.sensor(
        name=f"{pipeline.spec.name}_stream",
        job=job,
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={RESOURCE},
        description="How far the topic is; snapshots of hours whose completeness has passed their end, or that were corrected.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from ct_assets.orchestration.stream_hours import NoStream

        installation = getattr(context.resources, RESOURCE)
        try:
            return look(installation, context.instance, pipeline, context.cursor)
        except NoStream as none:
            return dg.SkipReason(f"{none.message}: {none.hint}")

    return watch


def look(
    installation: Installation, instance: dg.DagsterInstance, pipeline: StreamPipeline, cursor: str | None
) -> dg.SensorResult:
    """One tick. Raises ``NoStream``."""
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream import versions
    from ct_assets.adapters.stream.snapshots import touched_hours
    from ct_assets.orchestration import stream_hours

    nothing = {"version": {}, "open": [], "checks": {}}
    before = json.loads(cursor) if cursor else nothing
    found = stream_hours.where_it_is(installation, pipeline)
    with installation.stream() as conn:
        answers = stream_hours.live_table(conn, pipeline).definition
        switched = versions.switched_at(conn, answers.name)
    of = [found.stream_id, answers.hash, switched]
    if before.get("of") != of:
        before = nothing | {"checks": before["checks"]}
    version = {str(partition): list(place) for partition, place in found.version.items()}
    events: list[Any] = []
    hours = set(before["open"])
    if version != before["version"]:
        digest, metadata = stream_hours.observed(pipeline, found)
        events.append(dg.AssetObservation(pipeline.events, metadata=metadata, tags={VERSION_TAG: digest}))
        after = {int(partition): (offset, replays) for partition, (offset, replays) in before["version"].items()}
        with installation.stream() as conn:
            table = stream_hours.live_table(conn, pipeline)
            hours |= touched_hours(conn, table, after, open_storage(installation.settings))
    due, still_open = stream_hours.due_hours(installation, instance, pipeline, hours)
    checks = dict(before["checks"])
    for result in stream_hours.stream_state(installation, pipeline):
        if checks.get(result.check_name) != result.passed:
            checks[str(result.check_name)] = result.passed
            events.append(_evaluation(pipeline, result))
    told = json.dumps({"of": of, "version": version, "open": sorted(still_open), "checks": checks})
    return dg.SensorResult(run_requests=requests(pipeline, due, switched), cursor=told, asset_events=events)


def requests(pipeline: StreamPipeline, due: dict[int, str], switched: str) -> list[dg.RunRequest]:
    """At most one run, over the range of the hours that are due. ``switched``: since when the version answers; after one
    went back to, the same hours and versions are another request."""
    if not due:
        return []
    key = hashlib.sha256(json.dumps([switched, sorted(due.items())]).encode()).hexdigest()
    tags = {PIPELINE_TAG: pipeline.spec.name, **range_tags(due), **hour_tags(due)}
    return [dg.RunRequest(key, tags=tags)]


def _evaluation(pipeline: StreamPipeline, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=pipeline.events,
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )

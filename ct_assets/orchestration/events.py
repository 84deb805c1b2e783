"""Telling Dagster what the ledger holds: one materialization per day that was really published, with that day's facts.

What goes here: the comparison of the ledger's versions with Dagster's events, and the events. What does not: the
facts themselves (`facts.py` reads them from the ledger).

A range of days holds days without delivery (no Saturdays, Christmas). Dagster's own way turns every partition of a
run's range green; here the body logs an event per delivered day and returns a result that carries no event of its own.

F02: a process killed between the database's commit and Dagster's event leaves a version that the event log does not
know. The next run of any range that covers the day sees the difference and emits the event; nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

# The marker by which Dagster itself keeps an output from logging a second event beside those logged by the body. It is
# not public: importing it makes an upgrade that drops it fail at load, and a test holds what it does.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as EVENTS_ALREADY_LOGGED

from ct_assets.orchestration.partitions import COORDINATED

VERSION_TAG = "dagster/data_version"


@dataclass(frozen=True)
class DayFact:
    """What the ledger holds for one day of one asset. ``version`` changes when, and only when, the content may have."""

    day: str
    version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def told_versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Day -> version of the newest materialization that Dagster knows, for every materialized partition."""
    found = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, [VERSION_TAG]
    )
    return {partition: tags.get(VERSION_TAG, "") for partition, tags in found.items()}


def untold(instance: dg.DagsterInstance, key: dg.AssetKey, facts: Iterable[DayFact]) -> list[DayFact]:
    """The facts that Dagster's event log does not show yet."""
    told = told_versions(instance, key)
    return [fact for fact in facts if told.get(fact.day) != fact.version]


def echo(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    facts: Sequence[DayFact],
    newest: Callable[[], Mapping[str, Any]] | None = None,
) -> Iterator[dg.MaterializeResult]:
    """Log one materialization per fact (only untold ones in a coordinated range), then let downstream steps of the run go on.

    ``newest`` gives more metadata (a plot over many days) for the newest day that is told; called only when there is one.
    Downstream steps go on even when no day was published: each asks the ledger itself what there is to do.
    """
    chosen = untold(context.instance, key, facts) if COORDINATED in context.run.tags else list(facts)
    if chosen and newest is not None:
        chosen[-1] = replace(chosen[-1], metadata={**chosen[-1].metadata, **newest()})
    log_materializations(context, key, chosen)
    yield dg.MaterializeResult(asset_key=key, metadata={EVENTS_ALREADY_LOGGED: True})


def log_materializations(context: dg.AssetExecutionContext, key: dg.AssetKey, facts: Sequence[DayFact]) -> None:
    """One event per fact, written in batches: one at a time they cost 20 ms each on the embedded server, batched 1 ms."""
    from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata, generate_event_batch_id

    step, batch = context.get_step_execution_context(), generate_event_batch_id()
    for index, fact in enumerate(facts):
        event = dg.AssetMaterialization(
            key, partition=fact.day, metadata=fact.metadata, tags={VERSION_TAG: fact.version}
        )
        DagsterEvent.asset_materialization(step, event, DagsterEventBatchMetadata(batch, index == len(facts) - 1))

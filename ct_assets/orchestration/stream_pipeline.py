"""A streaming pipeline as its assets see it: definition, hourly partitions, the hours of a run.

What goes here: what is derived once. What does not: assets, questions to the stream database (``stream_hours``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from ct_assets.orchestration.names import Names, names_of
from ct_assets.orchestration.partitions import COORDINATED, RANGE_END, RANGE_START, hourly
from ct_assets.orchestration.pipeline import Pipeline

if TYPE_CHECKING:
    from ct_assets.platform.spec import PipelineSpec
    from ct_assets.streaming.definition import Definition

HOUR_US = 3_600_000_000
_FORMAT = "%Y-%m-%d-%H:%M"  # Dagster's own for hourly partitions
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class StreamPipeline(Pipeline):
    """A pipeline whose data is a stream: ``definition`` says what is rolled up."""

    definition: Definition

    @cached_property
    def hours(self) -> dg.HourlyPartitionsDefinition:
        """Clock hours, UTC, from the start; an hour is there once it is over."""
        return hourly(self.spec.source.start)

    @property
    def events(self) -> dg.AssetKey:
        """The topic."""
        return self.names.key("raw", "events")

    @property
    def snapshot(self) -> dg.AssetKey:
        """The aggregates at the end of every hour."""
        return self.names.key("snapshot", self.definition.name)

    @property
    def feature(self) -> dg.AssetKey:
        """The live feature view."""
        return self.names.key("feature", self.definition.name)

    @property
    def model(self) -> str:
        """The model's name in the ledger."""
        return f"{self.names.domain}/{self.names.model}"

    @property
    def learnt_keys(self) -> list[dg.AssetKey]:
        """What a retraining builds, in order."""
        return [self.feature, *([self.names.dataset, self.names.model_key] if self.names.model else [])]


def resolve_stream(spec: PipelineSpec) -> StreamPipeline:
    """The spec with its definition, contract, names and partitions."""
    from ct_assets.streaming.definition import load_definition

    assert spec.source.stream is not None
    definition = load_definition(spec.source.stream)
    names: Names = replace(names_of(spec, definition.schema), features=(definition.name,))
    return StreamPipeline(spec, definition.schema, names, definition)


def hour_key(hour: int) -> str:
    """The partition of an hour (microseconds)."""
    return (_EPOCH + dt.timedelta(microseconds=hour)).strftime(_FORMAT)


def hour_of(key: str) -> int:
    """The hour (microseconds) of a partition."""
    return int(dt.datetime.strptime(key, _FORMAT).replace(tzinfo=dt.UTC).timestamp()) * 1_000_000


def hour_tags(hours: Iterable[int]) -> dict[str, str]:
    """The run tag of a coordinated range of hours (``partitions.coordinated`` says why)."""
    ordered = sorted(hours)
    return {COORDINATED: f"{hour_key(ordered[0])}..{hour_key(ordered[-1])}"}


def range_tags(hours: Iterable[int]) -> dict[str, str]:
    """Dagster's own tags of a range of hours, so that the UI shows which."""
    ordered = sorted(hours)
    return {RANGE_START: hour_key(ordered[0]), RANGE_END: hour_key(ordered[-1])}


def hours_of_run(context: dg.AssetExecutionContext) -> list[int]:
    """The hours that a run is about: its partition, its range of partitions, or its coordinated range."""
    span = context.run.tags.get(COORDINATED)
    if span is None:
        return [hour_of(key) for key in context.partition_keys]
    first, last = (hour_of(part) for part in span.split(".."))
    return list(range(first, last + HOUR_US, HOUR_US))

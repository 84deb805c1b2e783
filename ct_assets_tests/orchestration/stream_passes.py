"""One streaming installation under test: a planted stream, a real worker, the run loop and the sensor over it.

What goes here: the driver and what the specification says. What does not: assertions.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from ct_assets.adapters.clock import FixedClock
from ct_assets.adapters.datasets import pipeline_spec
from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.storage import open_storage
from ct_assets.adapters.stream.compaction import remove_before
from ct_assets.adapters.stream.online_read import read
from ct_assets.adapters.stream.state import find_stream
from ct_assets.adapters.stream.training_frames import removals
from ct_assets.adapters.stream.versions import find_table
from ct_assets.definitions import build_defs
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.runs import RunReport
from ct_assets.orchestration.stream_pipeline import StreamPipeline, resolve_stream
from ct_assets.orchestration.stream_runs import StreamLoop
from ct_assets.orchestration.stream_sensor import look
from ct_assets.settings import Settings
from ct_assets.streaming.oracle import Event
from ct_assets_tests.adapters.stream_worker.world import Truth, World, fill, sample, truth_of

HOURS = 4
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = START + dt.timedelta(hours=HOURS)
HOUR_US = 3_600_000_000
START_US = 1_767_225_600_000_000


def key(hour: int) -> str:
    """The partition of the n-th hour."""
    return (START + dt.timedelta(hours=hour)).strftime("%Y-%m-%d-%H:%M")


class StreamPasses:
    """A shop of four hours from 2026-01-01 00:00 UTC on a database and a Dagster instance of its own."""

    def __init__(self, settings: Settings, url: str, folder: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.installation = Installation(settings, FixedClock(END + dt.timedelta(minutes=1)))
        self.world = World(url, folder / "log", settings.home)
        self.arrivals = sample()
        self.extra = 0
        fill(self.world.folder, self.arrivals)

    @cached_property
    def truth(self) -> Truth:
        """What the specification says of the planted stream."""
        return truth_of(self.arrivals)

    @cached_property
    def pipeline(self) -> StreamPipeline:
        return resolve_stream(pipeline_spec("shop"))

    @cached_property
    def defs(self) -> dg.Definitions:
        return build_defs({RESOURCE: self.installation})

    def work(self, *more: str) -> None:
        """A worker until nothing is left to read."""
        done = self.world.run("--until-idle", *more)
        assert done.returncode == 0, done.stderr

    def retain(self, from_us: int) -> int:
        """Retention of events from a moment on; before which event time events are gone by then."""
        with connect(self.world.url, autocommit=True) as conn:
            table = find_table(conn, self.pipeline.definition.name)
            remove_before(conn, find_stream(conn, table.stream_id), from_us)
            removed, _ = removals(conn, table)
        assert removed is not None
        return removed

    def send(self, seconds: float, partition: int, append_seconds: float, *, again: bool = False) -> None:
        """One more purchase of user 1064 at ``seconds`` after the start; ``again``: under the id of the last one."""
        self.extra += not again
        at = START + dt.timedelta(seconds=seconds)
        event = {
            "event_id": f"x-{self.extra}", "user_id": 1064, "event_time": at.isoformat().replace("+00:00", "Z"),
            "event_type": "purchase", "amount": 5,
        }  # fmt: skip
        sink = LogSink(str(self.world.folder), 4)
        sink.send([json.dumps(event).encode()], partition=partition, append_time=START_US + round(append_seconds * 1e6))
        sink.close()

    def send_again(self, event: Event, append_seconds: float) -> None:
        """The message of a planted event once more."""
        payload = next(p for p in self.arrivals.payload if p and event.values["event_id"].encode() in p)
        sink = LogSink(str(self.world.folder), 4)
        sink.send([payload], partition=event.partition, append_time=START_US + round(append_seconds * 1e6))
        sink.close()

    def finish_the_last_hour(self) -> None:
        """An event after it in every partition: all that belongs to the four hours is in."""
        for partition in range(4):
            self.send(4 * 3600 + 15, partition, 4 * 3600 + 30)

    def run(self) -> RunReport:
        """What `ct run --pipeline shop` does."""
        report = RunReport("shop")
        StreamLoop(self.installation, self.pipeline, self.defs, self.instance, lambda _: None, report).through()
        return report

    def tick(self, cursor: str | None = None) -> dg.SensorResult:
        """One evaluation of the sensor."""
        return look(self.installation, self.instance, self.pipeline, cursor)

    def told(self) -> list[str]:
        """The hours of every snapshot's materialization, in order of the events."""
        records = self.instance.fetch_materializations(self.pipeline.snapshot, limit=1000, ascending=True).records
        return [str(record.partition_key) for record in records]

    def facts(self, hour: int) -> dict[str, Any]:
        """The metadata of an hour's newest snapshot."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(self.pipeline.snapshot, asset_partitions=[key(hour)]), limit=1
        ).records
        assert records[0].asset_materialization is not None
        found = records[0].asset_materialization.metadata
        return {
            n: [r.data for r in v.records] if isinstance(v, dg.TableMetadataValue) else v.value
            for n, v in found.items()
        }

    def snapshot(self, hour: int) -> dict[int, dict[str, Any]]:
        """The closing values in an hour's newest file, by user."""
        raw = open_storage(self.installation.settings).get(self.facts(hour)["file"])
        names = [a.name for a in self.pipeline.definition.aggregates]
        rows = pl.read_parquet(io.BytesIO(raw)).iter_rows(named=True)
        return {row["user_id"]: {name: row[name] for name in names} for row in rows}

    def online(self, user: int, at_us: int) -> dict[str, Any]:
        """What an online reader is told of a user at a moment."""
        with connect(self.world.url, autocommit=True) as conn:
            return read(conn, find_table(conn, self.pipeline.definition.name), [user], at_us).values[0]

    def accepted(self, hour: int) -> list[Event]:
        """The planted events of the n-th hour, by the specification."""
        low = START_US + hour * HOUR_US
        return [event for event in self.truth.accepted if low <= event.time < low + HOUR_US]

    def too_late(self, hour: int) -> list[Event]:
        """The planted events of the n-th hour that are dead letters because they came too late."""
        low = START_US + hour * HOUR_US
        return [event for event in self.truth.too_late if low <= event.time < low + HOUR_US]

    def late(self) -> Counter[int]:
        """Events an hour that came behind their partition's watermark, counted one by one."""
        behind, found = self.pipeline.definition.acceptance.out_of_orderness_us, Counter[int]()
        tops: dict[int, int] = {}
        append: dict[tuple[int, int], int] = {}
        offsets: Counter[int] = Counter()
        for partition, moment in zip(self.arrivals.partition, self.arrivals.append_time, strict=True):
            append[int(partition), offsets[int(partition)]] = int(moment)
            offsets[int(partition)] += 1
        for event in sorted(self.truth.accepted, key=lambda e: (e.partition, e.offset)):
            top = tops.get(event.partition, -(1 << 62))
            if event.time < top - behind:
                found[(event.time - START_US) // HOUR_US] += 1
            tops[event.partition] = max(top, min(event.time, append[event.partition, event.offset]))
        return found

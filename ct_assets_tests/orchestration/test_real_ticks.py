"""Tick tables of the definitions that Dagster loads: real files, real ledger, real runs; only the daemon's clock is ours.

`test_automation.py` tries the conditions on a small graph; this file tries that the sales pipeline wires them up.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ct_assets.adapters.clock import FixedClock
from ct_assets.features.spec import LOOKBACK_DAYS
from ct_assets.orchestration.partitions import range_tags
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.settings import Settings
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.passes import CLEAN, DAILY, FEATURES, QUARANTINE, Passes

TRAINING = tuple(dg.AssetKey([stage, "sales", name]) for stage, name in (("dataset", "demand_7d_training"), ("model", "demand_7d"), ("prediction", "demand_7d")))  # fmt: skip
RETRAIN = {key: {None} for key in TRAINING}
FIRST = dt.date(2010, 12, 1)


def open_days(count: int) -> list[dt.date]:
    """The first ``count`` days that are no Saturdays."""
    days = (FIRST + dt.timedelta(days=i) for i in range(2 * count))
    return [day for day in days if day.weekday() != 5][:count]


def stretch(first: dt.date, last: dt.date) -> set[str]:
    return {(first + dt.timedelta(days=i)).isoformat() for i in range((last - first).days + 1)}


class Daemon:
    """What the daemon does, one step at a time: the landing sensor, the conditions, the runs they ask for."""

    def __init__(self, passes: Passes, folder: Path) -> None:
        self.passes, self.folder = passes, folder
        self.cursor = None
        self.now = dt.datetime(2011, 12, 1, 12, tzinfo=dt.UTC)
        self.serial, self.delivered = 0, False

    def tick(self) -> dict[dg.AssetKey, set[str | None]]:
        """One evaluation of every condition; what it asks for."""
        self.now += dt.timedelta(minutes=1)
        graph = self.passes.defs
        result = dg.evaluate_automation_conditions(
            graph, self.passes.instance, cursor=self.cursor, evaluation_time=self.now
        )
        self.cursor = result.cursor
        found = {key: set(result.get_requested_partitions(key)) for key in (FEATURES, *TRAINING)}
        assert result.total_requested == sum(map(len, found.values())), "something else was asked for"
        return {key: days for key, days in found.items() if days}

    def deliver(self, *days: dt.date, good: int = 9) -> None:
        """Other bytes each time; the run that the landing sensor asks for."""
        self.serial += 1
        price = f"{self.serial}.50"
        self.passes.deliver(*(write_day(self.folder / str(self.serial), day, good, 0, price=price) for day in days))
        requests = self.sensor("sales_landing").run_requests
        assert requests is not None
        assert len(requests) == 1
        self.delivered = self.job("sales_data", requests[0].tags, requests[0].partition_key)

    def sensor(self, name: str, installation: Installation | None = None, cursor: str | None = None) -> Any:
        """One tick of a sensor as the daemon evaluates it."""
        repository = self.passes.defs.get_repository_def()
        context = dg.build_sensor_context(
            instance=self.passes.instance,
            repository_def=repository,
            cursor=cursor,
            resources={RESOURCE: installation or self.passes.installation},
        )
        return repository.get_sensor_def(name).evaluate_tick(context)

    def job(self, name: str, tags: dict[str, str], partition: str | None = None) -> bool:
        definition = self.passes.defs.resolve_job_def(name)
        return definition.execute_in_process(
            instance=self.passes.instance, tags=dict(tags), partition_key=partition, raise_on_error=False
        ).success

    def build(self, days: set[str | None]) -> None:
        assert self.job("sales_features", range_tags(dt.date.fromisoformat(str(day)) for day in days))

    def train(self) -> None:
        """The three unpartitioned assets, told only: what a fit takes is no matter of ticks."""
        for key in TRAINING:
            self.passes.instance.report_runless_asset_event(dg.AssetMaterialization(key))


@pytest.fixture
def daemon(passes: Passes, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The conditions ask the ledger of the environment, as in a code server."""
    assert settings.ledger_url is not None
    monkeypatch.setenv("CT_DATABASE_URL", settings.ledger_url)
    return Daemon(passes, tmp_path)


def brought_through(daemon: Daemon, days: list[dt.date]) -> None:
    """``days`` published, built and trained from."""
    daemon.tick()
    daemon.deliver(*days, good=9)
    assert daemon.delivered
    asked = daemon.tick()
    assert asked == {FEATURES: stretch(days[0], days[-1])}
    daemon.build(asked[FEATURES])
    assert daemon.tick() == RETRAIN
    daemon.train()
    assert daemon.tick() == {}


def test_correcting_day_d_60_rebuilds_exactly_the_dependent_days_and_retrains_once(daemon: Daemon):
    days = open_days(80)
    brought_through(daemon, days)
    told = len(daemon.passes.told(FEATURES))
    day = days[-60]
    daemon.deliver(day, good=8)
    dependent = [d for d in days if day <= d <= day + dt.timedelta(days=LOOKBACK_DAYS)]
    asked = daemon.tick()
    assert asked == {FEATURES: stretch(day, dependent[-1])}
    daemon.build(asked[FEATURES])
    assert daemon.passes.told(FEATURES)[told:] == [d.isoformat() for d in dependent]
    with daemon.passes.installation.ledger() as conn:
        rows = conn.execute("select day from ledger.feature_version group by day having count(*) = 2 order by day")
        assert [row[0] for row in rows.fetchall()] == dependent
    assert daemon.tick() == RETRAIN
    daemon.train()
    assert [daemon.tick() for _ in range(3)] == [{}] * 3
    saturdays = stretch(days[0], days[-1]) - {d.isoformat() for d in days}
    assert saturdays
    for key in (CLEAN, QUARANTINE, DAILY, FEATURES):
        assert not daemon.passes.green(key) & saturdays, (
            "a closed day was asked for with its neighbours and turned green"
        )


def test_a_burst_of_corrections_is_one_retraining(daemon: Daemon):
    days = open_days(20)
    brought_through(daemon, days)
    for day in (days[3], days[5], days[4]):
        daemon.deliver(day, good=8)
        asked = daemon.tick()
        assert asked == {FEATURES: stretch(day, days[-1])}, "a retraining in the middle of the burst"
    daemon.build(asked[FEATURES])
    assert daemon.tick() == {}, "the days before the last correction are still to be built"
    daemon.build(stretch(days[3], days[-1]))  # pyright: ignore[reportArgumentType]
    assert daemon.tick() == RETRAIN
    daemon.train()
    assert [daemon.tick() for _ in range(3)] == [{}] * 3


def test_a_table_changed_behind_the_ledger_stops_everything_downstream(daemon: Daemon):
    days = open_days(3)
    brought_through(daemon, days)
    with daemon.passes.installation.ledger() as conn:
        conn.execute("delete from store.sales_lines where _line = 2")
    daemon.deliver(open_days(4)[-1], good=9)
    assert not daemon.delivered
    assert not daemon.passes.check("table_equals_ledger").passed
    asked = [daemon.tick() for _ in range(3)]
    assert asked == [{}] * 3


def test_the_sensor_asks_for_one_run_over_the_dependent_days(daemon: Daemon):
    """Dagster's own sensor asks for a run per day, or for a backfill that ends as failed because of closed days."""
    days = open_days(12)
    daemon.deliver(*days, good=9)
    daemon.build(stretch(days[0], days[-1]))  # pyright: ignore[reportArgumentType]
    first = daemon.sensor("automation_merchandising")
    assert first.run_requests == []
    daemon.deliver(days[1], good=8)
    second = daemon.sensor("automation_merchandising", cursor=first.cursor)
    (request,) = second.run_requests
    assert request.asset_selection == [FEATURES]
    assert request.partition_key is None
    assert {name: value for name, value in request.tags.items() if "partition" in name} == {
        "dagster/asset_partition_range_start": days[1].isoformat(),
        "dagster/asset_partition_range_end": days[-1].isoformat(),
    }
    assert request.tags["team"] == "merchandising"
    told = len(daemon.passes.told(FEATURES))
    assert daemon.job("sales_features", dict(request.tags))
    assert daemon.passes.told(FEATURES)[told:] == [d.isoformat() for d in days[1:]]


def test_no_stampede_on_the_first_start_with_244_days_of_history(daemon: Daemon):
    """Budget: brought through by `ct run` before any daemon: nothing is asked for. Before a build: one range, once."""
    days = open_days(244)
    daemon.tick()
    daemon.deliver(*days, good=3)
    asked = daemon.tick()
    assert asked == {FEATURES: stretch(days[0], days[-1])}, "one unbroken range, hence one run"
    assert [daemon.tick() for _ in range(5)] == [{}] * 5, "a request is made once, whatever becomes of it"
    daemon.cursor = None  # another daemon, without the first one's memory
    assert [daemon.tick() for _ in range(3)] == [{}] * 3


def test_a_stale_supplier_alerts_and_makes_no_partition_and_no_request(daemon: Daemon):
    days = open_days(3)
    brought_through(daemon, days)
    green = {key: daemon.passes.green(key) for key in (CLEAN, QUARANTINE, DAILY, FEATURES)}
    late = dt.datetime.combine(days[-1] + dt.timedelta(days=30), dt.time(), dt.UTC)
    told = daemon.sensor("sales_supplier", Installation(daemon.passes.settings, FixedClock(late)))
    assert told.run_requests == []
    assert "30 days old" in str(told.skip_message)
    assert [daemon.tick() for _ in range(3)] == [{}] * 3
    assert {key: daemon.passes.green(key) for key in green} == green
    with daemon.passes.installation.ledger() as conn:
        assert conn.execute("select rule from ledger.incident where state = 'open'").fetchall() == [("stale_supplier",)]

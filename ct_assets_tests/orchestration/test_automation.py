"""Tick tables: which partitions each tick asks for, and never more than its budget of requests.

Why these matter: `eager()` looks right and rebuilds nothing when an old day is corrected; a level-triggered condition
looks right and asks again on every tick (elsewhere that made 368,000 failed runs in fourteen days).
"""

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any, cast

import dagster as dg
import pytest

from ct_assets.orchestration.automation import (
    Cadence,
    PublishedStretch,
    after_its_input,
    team_sensors,
    when_inputs_change_and_the_ledger_holds,
    when_inputs_settle,
)
from ct_assets.orchestration.partitions import ONE_RUN, daily, looking_back

LOOKBACK = 28
FIRST = dt.date(2011, 1, 3)
DAYS = daily(dt.date(2010, 12, 1), "Europe/London")
OPEN = [FIRST + dt.timedelta(days=i) for i in range(100) if (FIRST + dt.timedelta(days=i)).weekday() != 5]
UNPARTITIONED = ("dataset", "model", "prediction")
RETRAIN = {name: {None} for name in UNPARTITIONED}


def assets(published: Callable[[], Iterable[str]], **settle) -> list:
    """The shape of every pipeline, small: lines -> features (look-back) -> dataset -> model -> prediction."""

    @dg.asset(partitions_def=DAYS)
    def lines(): ...

    @dg.asset_check(asset=lines, blocking=True)
    def agrees(): ...

    @dg.asset(
        partitions_def=DAYS,
        deps=[dg.AssetDep("lines", partition_mapping=looking_back(LOOKBACK))],
        automation_condition=when_inputs_change_and_the_ledger_holds(cast(Any, published)),
        backfill_policy=ONE_RUN,
    )
    def features(): ...

    cadence = Cadence(**settle)

    @dg.asset(deps=[features, lines], automation_condition=when_inputs_settle(cadence, cast(Any, published)))
    def dataset(): ...

    @dg.asset(deps=[dataset], automation_condition=after_its_input())
    def model(): ...

    @dg.asset(deps=[model], automation_condition=after_its_input())
    def prediction(): ...

    return [lines, agrees, features, dataset, model, prediction]


class Ticks:
    """One installation over time: evaluate, materialize, evaluate."""

    def __init__(self, instance: dg.DagsterInstance, **settle) -> None:
        self.published: set[str] = set()
        self.instance = instance
        made = assets(lambda: self.published, **settle)
        self.defs = dg.Definitions(
            assets=[a for a in made if not isinstance(a, dg.AssetChecksDefinition)], asset_checks=[made[1]]
        )
        self.cursor = None
        self.now = dt.datetime(2011, 6, 1, 12, tzinfo=dt.UTC)

    def tick(self, minutes: float = 1) -> dict[str, set[str | None]]:
        self.now += dt.timedelta(minutes=minutes)
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, cursor=self.cursor, evaluation_time=self.now
        )
        self.cursor = result.cursor
        names = ("features", *UNPARTITIONED)
        found = {name: set(result.get_requested_partitions(dg.AssetKey(name))) for name in names}
        assert result.total_requested == sum(map(len, found.values()))
        return {name: days for name, days in found.items() if days}

    def done(self, name: str, days: Iterable[dt.date | str | None] = (None,)) -> None:
        for day in days:
            event = dg.AssetMaterialization(name, partition=None if day is None else str(day))
            self.instance.report_runless_asset_event(event)

    def publish(self, *days: dt.date, passed: bool | None = True) -> None:
        """A data run: the days, then the check of its contract (Dagster counts a check older than the days as not passed)."""
        self.published |= {day.isoformat() for day in days}
        self.done("lines", days)
        if passed is not None:
            self.check(passed)

    def check(self, passed: bool) -> None:
        """A finished run with one evaluation of the blocking check."""

        @dg.asset_check(asset="lines", name="agrees", blocking=True)
        def agrees() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=passed)

        dg.Definitions(asset_checks=[agrees]).resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance, raise_on_error=False
        )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def settled(instance) -> Ticks:
    """A pipeline whose 86 open days were brought through once."""
    ticks = Ticks(instance)
    assert ticks.tick() == {}
    ticks.publish(*OPEN)
    assert ticks.tick() == {
        "features": {str(OPEN[0] + dt.timedelta(days=i)) for i in range((OPEN[-1] - OPEN[0]).days + 1)}
    }
    ticks.done("features", OPEN)
    assert ticks.tick() == RETRAIN
    for name in UNPARTITIONED:
        ticks.done(name)
    assert ticks.tick() == {}
    return ticks


def built(day: dt.date) -> set[str]:
    """By hand: the open days from the corrected one to the end of the look-back."""
    return {d.isoformat() for d in OPEN if day <= d <= day + dt.timedelta(days=LOOKBACK)}


def dependents(day: dt.date) -> set[str]:
    """What is asked for: the same days and the Saturdays between them, so that it is one run."""
    last = dt.date.fromisoformat(max(built(day)))
    return {(day + dt.timedelta(days=i)).isoformat() for i in range((last - day).days + 1)}


def test_correcting_an_old_day_rebuilds_exactly_the_dependent_days_and_retrains_once(settled: Ticks):
    day = OPEN[-60]
    assert (OPEN[-1] - day).days > LOOKBACK
    settled.publish(day)
    assert settled.tick() == {"features": dependents(day)}
    settled.done("features", built(day))
    assert settled.tick() == RETRAIN
    for name in UNPARTITIONED:
        settled.done(name)
    assert [settled.tick() for _ in range(5)] == [{}] * 5


def test_eager_would_have_rebuilt_nothing(instance):
    """The reason for conditions of our own, kept as a test: when this fails, Dagster has changed."""

    @dg.asset(partitions_def=DAYS)
    def up(): ...

    @dg.asset(partitions_def=DAYS, deps=[up], automation_condition=dg.AutomationCondition.eager())
    def down(): ...

    for name in ("up", "down"):
        for day in OPEN:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=day.isoformat()))
    first = dg.evaluate_automation_conditions([up, down], instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("up", partition=OPEN[-60].isoformat()))
    assert dg.evaluate_automation_conditions([up, down], instance, cursor=first.cursor).total_requested == 0


def test_a_new_day_asks_for_that_day_alone(settled: Ticks):
    new = OPEN[-1] + dt.timedelta(days=1)
    settled.publish(new)
    assert settled.tick() == {"features": {new.isoformat()}}


def test_a_burst_of_corrections_is_one_retraining(settled: Ticks):
    asked: list[dict] = []
    for day in OPEN[-50:-40]:
        settled.publish(day)
        found = settled.tick()
        asked.append(found)
        assert set(found) <= {"features"}, "a retraining in the middle of the burst"
    wanted = set().union(*(dependents(day) for day in OPEN[-50:-40]))
    assert set().union(*(found.get("features", set()) for found in asked)) == wanted
    settled.done("features", set().union(*(built(day) for day in OPEN[-50:-40])))
    assert settled.tick() == RETRAIN
    for name in UNPARTITIONED:
        settled.done(name)
    assert [settled.tick() for _ in range(3)] == [{}] * 3


def test_a_change_between_a_request_and_the_next_tick_is_not_lost(settled: Ticks):
    """Dagster's `since_last_handled()` loses it: its reset wins whenever request and change fall between the same ticks."""
    first, second = OPEN[-50], OPEN[-49]
    settled.publish(first)
    assert settled.tick() == {"features": dependents(first)}
    settled.done("features", built(first))  # built before the second correction was published
    settled.publish(second)
    assert settled.tick() == {"features": dependents(second)}
    settled.done("features", built(second))
    assert settled.tick() == RETRAIN
    settled.done("dataset")  # trained from what was there; a third correction comes while the model is being fitted
    settled.publish(OPEN[-3])
    assert settled.tick() == {"features": dependents(OPEN[-3])}
    settled.done("features", built(OPEN[-3]))
    assert settled.tick()["dataset"] == {None}


def test_a_running_feature_build_holds_the_retraining(settled: Ticks):
    settled.publish(OPEN[-3])
    settled.tick()
    settled.done("features", built(OPEN[-3]))
    run = in_progress(settled, "features", OPEN[-20].isoformat())
    assert settled.tick() == {}
    settled.instance.report_run_canceled(run)
    assert settled.tick() == RETRAIN


def test_a_running_delivery_holds_the_retraining(settled: Ticks):
    settled.publish(OPEN[-3])
    settled.tick()
    settled.done("features", built(OPEN[-3]))
    run = in_progress(settled, "lines", OPEN[-1].isoformat())
    assert settled.tick() == {}
    settled.instance.report_run_canceled(run)
    settled.check(passed=True)  # the cancelled run had planned the check and left it without a result
    assert settled.tick() == RETRAIN


def test_features_and_training_are_never_asked_for_in_one_tick(settled: Ticks):
    """Seen live: the days are told before their run's check; the tick after the check asked for both at once."""
    settled.publish(OPEN[-3], passed=None)
    assert settled.tick() == {}
    settled.check(passed=True)
    assert settled.tick() == {"features": dependents(OPEN[-3])}
    assert [settled.tick() for _ in range(3)] == [{}] * 3  # requested, not yet built
    settled.done("features", built(OPEN[-3]))
    assert settled.tick() == RETRAIN


@pytest.mark.fault("F41")
def test_f41_a_partly_failed_rebuild_is_waited_for(settled: Ticks):
    day = OPEN[-3]
    settled.publish(day)
    assert settled.tick() == {"features": dependents(day)}
    settled.done("features", sorted(built(day))[1:])
    failed = in_progress(settled, "features", day.isoformat())
    settled.instance.report_run_failed(failed)
    assert settled.instance.get_run_by_id(failed.run_id).status is dg.DagsterRunStatus.FAILURE  # pyright: ignore[reportOptionalMemberAccess]
    assert [settled.tick() for _ in range(5)] == [{}] * 5
    settled.done("features", [day])
    assert settled.tick() == RETRAIN


def in_progress(ticks: Ticks, name: str, day: str) -> dg.DagsterRun:
    """A started run of one partition that has not ended."""
    job = ticks.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(name)})
    run = ticks.instance.create_run_for_job(
        job, asset_selection={dg.AssetKey(name)}, tags={"dagster/partition": day}, status=dg.DagsterRunStatus.STARTED
    )
    return run


def test_a_stretch_ends_with_its_last_published_day(settled: Ticks):
    """Days without delivery at the end (yet to come, or withdrawn between the event and the tick) are not asked for."""
    day = OPEN[-30]
    settled.publish(day)
    for withdrawn in sorted(built(day))[-2:]:
        settled.published.discard(withdrawn)
    held = sorted(built(day) & settled.published)
    assert settled.tick() == {"features": {d for d in dependents(day) if d <= held[-1]}}


def test_a_day_that_the_ledger_does_not_hold_is_never_asked_for_alone(settled: Ticks):
    settled.publish(OPEN[-1])
    settled.published.discard(OPEN[-1].isoformat())
    assert [settled.tick().get("features") for _ in range(3)] == [None] * 3


@pytest.mark.parametrize(
    ("candidates", "published", "kept"),
    [
        ("", "03", ""),
        ("03 04 05", "", ""),
        ("03 04 05 06", "04 06", "04 05 06"),  # trimmed at the front, filled between
        ("03 04 05 06", "03 04", "03 04"),  # trimmed at the end: days yet to come
        ("03 04 08 09 10", "03 10", "03 10"),  # two corrections far apart: nothing between them
        ("03 05", "03 04 05", "03 05"),  # only candidates, never a day that did not change
    ],
)
def test_the_days_asked_for_by_hand(candidates: str, published: str, kept: str):
    def days(text: str) -> set[str]:
        return {f"2011-01-{day}" for day in text.split()}

    condition = PublishedStretch(lambda: days(published))
    assert condition.kept(days(candidates), days(published)) == days(kept)


def test_a_failed_check_stops_downstream_until_it_passes(settled: Ticks):
    settled.publish(OPEN[-5], passed=False)
    assert [settled.tick() for _ in range(3)] == [{}] * 3
    settled.check(passed=True)
    assert settled.tick() == {"features": dependents(OPEN[-5])}


def test_a_check_that_never_ran_is_not_a_pass(instance):
    ticks = Ticks(instance)
    ticks.tick()
    ticks.publish(OPEN[0], passed=None)
    assert ticks.tick() == {}
    ticks.check(passed=True)
    assert ticks.tick() == {"features": {OPEN[0].isoformat()}}


def test_a_failing_asset_is_asked_once_per_change_not_once_per_tick(settled: Ticks):
    """No stampede: the request budget of 20 ticks after one correction is one request per dependent day."""
    settled.publish(OPEN[-10])
    asked = [settled.tick() for _ in range(20)]  # nothing ever succeeds
    assert asked[0] == {"features": dependents(OPEN[-10])}
    assert asked[1:] == [{}] * 19


def test_an_unreachable_ledger_loses_nothing(instance):
    ticks = Ticks(instance)
    ticks.tick()
    ticks.publish(OPEN[0])
    held, ticks.published = ticks.published, cast(Any, None)
    with pytest.raises(Exception, match="conditions for features"):
        ticks.tick()
    ticks.published = held
    assert ticks.tick() == {"features": {OPEN[0].isoformat()}}


@pytest.mark.parametrize("cron", ["0 5 * * *"])
def test_a_schedule_retrains_only_when_data_changed(instance, cron: str):
    ticks = Ticks(instance, new_data=False, cron=cron)
    ticks.publish(*OPEN[:40])
    ticks.tick()
    ticks.done("features", OPEN[:40])
    assert ticks.tick() == {}  # noon: the tick of 05:00 has not passed since
    assert ticks.tick(minutes=24 * 60) == RETRAIN
    for name in UNPARTITIONED:
        ticks.done(name)
    assert [ticks.tick(minutes=24 * 60) for _ in range(3)] == [{}] * 3  # nothing changed: no retraining


def test_every_team_has_a_sensor_of_its_own():
    specs = [
        dg.AssetSpec("a", owners=["team:growth"]),
        dg.AssetSpec("b", owners=["team:merchandising"]),
        dg.AssetSpec("c", owners=["team:growth"]),
    ]
    sensors = {s.name: s for s in team_sensors(specs)}
    assert set(sensors) == {"automation_growth", "automation_merchandising"}
    graph = dg.Definitions(assets=specs).resolve_asset_graph()
    assert sensors["automation_growth"].asset_selection.resolve(graph) == {dg.AssetKey("a"), dg.AssetKey("c")}
    assert sensors["automation_growth"].run_tags["team"] == "growth"

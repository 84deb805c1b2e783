"""Which days turn green. The tempting simplification (return a plain result for the range) paints Saturdays green."""

# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

import datetime as dt

import dagster as dg
import pytest

from ct_assets.orchestration.events import DayFact, echo, told_versions, untold
from ct_assets.orchestration.partitions import ONE_RUN, coordinated, daily, days_of_run, range_tags

DAYS = daily(dt.date(2011, 1, 1))
KEY, OTHER = dg.AssetKey(["clean", "t", "lines"]), dg.AssetKey(["quarantine", "t", "lines"])


class Ledger:
    """What a fake ledger holds: day -> version."""

    def __init__(self, **days: str) -> None:
        self.days = {name.replace("d", "2011-01-"): version for name, version in days.items()}

    def facts(self, days: list[dt.date]) -> list[DayFact]:
        wanted = {day.isoformat() for day in days}
        return [DayFact(d, v, {"rows": int(d[-2:])}) for d, v in sorted(self.days.items()) if d in wanted]


def job(ledger: Ledger, *, downstream: bool = False) -> dg.JobDefinition:
    @dg.multi_asset(
        specs=[dg.AssetSpec(key, partitions_def=DAYS, skippable=True) for key in (KEY, OTHER)],
        can_subset=True,
        backfill_policy=ONE_RUN,
    )
    def data(context: dg.AssetExecutionContext):
        for key in (KEY, OTHER):
            if key in context.selected_asset_keys:
                yield from echo(context, key, ledger.facts(days_of_run(context)))

    @dg.asset(key="after", partitions_def=DAYS, deps=[KEY], backfill_policy=ONE_RUN)
    def after(context: dg.AssetExecutionContext):
        assert days_of_run(context)
        yield from echo(context, context.asset_key, [])

    return dg.Definitions(
        assets=[data, after] if downstream else [data],
        jobs=[dg.define_asset_job("all", dg.AssetSelection.all())],
        executor=dg.in_process_executor,
    ).resolve_job_def("all")


@pytest.fixture
def instance():
    with dg.instance_for_test() as made:
        yield made


def events(instance: dg.DagsterInstance, key: dg.AssetKey = KEY) -> list[tuple[str | None, str | None, object]]:
    records = instance.fetch_materializations(key, limit=1000, ascending=True).records
    return [
        (
            r.partition_key,
            (r.asset_materialization.tags or {}).get("dagster/data_version"),
            r.asset_materialization.metadata["rows"].value,
        )
        for r in records
        if r.asset_materialization
    ]


@pytest.mark.parametrize("tags", [range_tags, coordinated], ids=["dagster's range", "coordinated range"])
def test_only_delivered_days_of_a_range_turn_green_each_with_its_own_facts(instance, tags):
    days = [dt.date(2011, 1, d) for d in (3, 10)]
    result = job(Ledger(d03="a", d05="b", d09="c", d20="z")).execute_in_process(instance=instance, tags=tags(days))
    assert result.success
    for key in (KEY, OTHER):
        assert events(instance, key) == [("2011-01-03", "a", 3), ("2011-01-05", "b", 5), ("2011-01-09", "c", 9)]
        assert instance.get_materialized_partitions(key) == {"2011-01-03", "2011-01-05", "2011-01-09"}


def test_downstream_steps_of_the_run_go_on_although_days_are_missing(instance):
    tags = range_tags([dt.date(2011, 1, 3), dt.date(2011, 1, 4)])
    result = job(Ledger(d03="a"), downstream=True).execute_in_process(instance=instance, tags=tags)
    assert [e.step_key for e in result.all_events if e.is_step_success] == ["data", "after"]
    assert not [e for e in result.all_events if e.is_step_skipped]


def test_a_day_without_delivery_never_turns_green(instance):
    result = job(Ledger(d03="a")).execute_in_process(instance=instance, partition_key="2011-01-04")
    assert result.success
    assert instance.get_materialized_partitions(KEY) == set()


def test_a_coordinated_range_tells_only_what_is_news(instance):
    days = coordinated([dt.date(2011, 1, 1), dt.date(2011, 1, 31)])
    ledger = Ledger(d03="a", d05="b")
    definition = job(ledger)
    definition.execute_in_process(instance=instance, tags=days)
    definition.execute_in_process(instance=instance, tags=days)
    ledger.days["2011-01-05"] = "b2"
    ledger.days["2011-01-06"] = "c"
    definition.execute_in_process(instance=instance, tags=days)
    assert [(day, version) for day, version, _ in events(instance)] == [
        ("2011-01-03", "a"), ("2011-01-05", "b"), ("2011-01-05", "b2"), ("2011-01-06", "c")
    ]  # fmt: skip
    assert told_versions(instance, KEY) == {"2011-01-03": "a", "2011-01-05": "b2", "2011-01-06": "c"}


def test_a_person_who_asks_for_a_day_sees_an_event_even_when_nothing_changed(instance):
    definition = job(Ledger(d03="a"))
    for _ in range(2):
        assert definition.execute_in_process(instance=instance, partition_key="2011-01-03").success
    assert events(instance) == [("2011-01-03", "a", 3)] * 2


def test_one_asset_of_the_step_can_be_selected(instance):
    definition = job(Ledger(d03="a"))
    definition.execute_in_process(instance=instance, partition_key="2011-01-03", asset_selection=[OTHER])
    assert events(instance, KEY) == []
    assert events(instance, OTHER) == [("2011-01-03", "a", 3)]


def test_a_coordinated_range_plans_one_event_per_asset_not_one_per_day(instance):
    """A year of days planned one by one costs ten seconds on the embedded server before the run even starts."""
    result = job(Ledger(d03="a")).execute_in_process(
        instance=instance, tags=coordinated([dt.date(2011, 1, 1), dt.date(2011, 12, 31)])
    )
    planned = instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    ).records
    assert len(planned) == 2


def test_untold_compares_versions_not_days(instance):
    job(Ledger(d03="a", d04="b")).execute_in_process(
        instance=instance, tags=range_tags([dt.date(2011, 1, 3), dt.date(2011, 1, 4)])
    )
    facts = [DayFact("2011-01-03", "a"), DayFact("2011-01-04", "b2"), DayFact("2011-01-05", "c")]
    assert [fact.day for fact in untold(instance, KEY, facts)] == ["2011-01-04", "2011-01-05"]

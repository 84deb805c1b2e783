"""What watches: one run for all that is pending, asked for once; a quiet supplier is an incident and never a run."""

import dataclasses
import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.adapters import landing
from ct_assets.adapters.clock import FixedClock
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.passes import CLEAN, Passes

DAY = dt.date(2011, 1, 7)


def sensor(passes: Passes, name: str) -> dg.SensorDefinition:
    return passes.defs.get_repository_def().get_sensor_def(name)


def tick(passes: Passes, name: str, installation: Installation | None = None) -> list[dg.RunRequest]:
    """One tick with a new cursor each time: nothing may depend on it."""
    repository = passes.defs.get_repository_def()
    context = dg.build_sensor_context(
        instance=passes.instance, repository_def=repository, resources={RESOURCE: installation or passes.installation}
    )
    return list(sensor(passes, name).evaluate_tick(context).run_requests or [])


def test_a_single_delivery_is_one_run_of_its_day_keyed_by_its_digest(passes: Passes, tmp_path: Path):
    (delivered,) = passes.deliver(write_day(tmp_path, DAY))
    (request,) = tick(passes, "sales_landing")
    assert request.partition_key == DAY.isoformat()
    assert request.run_key == f"{delivered.sha256}:{DAY}"


def test_a_backlog_is_one_run_over_its_range_not_a_stampede(passes: Passes, tmp_path: Path):
    days = [DAY + dt.timedelta(days=i) for i in (0, 2, 3, 40)]
    passes.deliver(*(write_day(tmp_path, day) for day in days))
    (request,) = tick(passes, "sales_landing")
    assert request.tags["dagster/asset_partition_range_start"] == days[0].isoformat()
    assert request.tags["dagster/asset_partition_range_end"] == days[-1].isoformat()
    result = passes.defs.resolve_job_def("sales_data").execute_in_process(
        instance=passes.instance, tags=dict(request.tags)
    )
    assert result.success
    assert passes.told(CLEAN) == [day.isoformat() for day in days]
    assert tick(passes, "sales_landing") == []


def test_a_delivery_that_is_taken_again_or_failed_is_another_request(passes: Passes, tmp_path: Path):
    """Dagster skips a run key for ever once it was used: the same key again would leave the delivery pending."""
    path = write_day(tmp_path, DAY)
    path.write_text(path.read_text().replace("Quantity", "Qty", 1))
    passes.deliver(path)
    (first,) = tick(passes, "sales_landing")
    assert passes.run().rejected
    with passes.installation.ledger() as conn:
        landing.take_again(conn, landing.rejected(conn, "sales"))
    (again,) = tick(passes, "sales_landing")
    assert again.run_key != first.run_key
    assert tick(passes, "sales_landing")[0].run_key == again.run_key, "asked for once"
    with passes.installation.ledger() as conn:
        plan = "update ledger.run_plan set attempts = %s, state = 'failed' where partition like '%% #1'"
        keys = []
        for attempts in (2, 3, 20, 21):
            conn.execute(plan, (attempts,))
            conn.commit()
            keys.append(tick(passes, "sales_landing")[0].run_key)
    assert keys[0] != keys[1], "a run that failed is asked for again"
    assert keys[2] == keys[3], "but not for ever at every tick"
    later = FixedClock(passes.installation.clock.now() + dt.timedelta(hours=2))
    (lost,) = tick(passes, "sales_landing", Installation(passes.settings, later))
    assert lost.run_key not in keys, "once an hour, also when the run was lost"


def test_a_day_without_a_partition_does_not_hold_the_others(passes: Passes, tmp_path: Path):
    passes.deliver(write_day(tmp_path, dt.date(1999, 1, 4)), write_day(tmp_path, DAY))
    (request,) = tick(passes, "sales_landing")
    assert request.partition_key == DAY.isoformat()
    with passes.installation.ledger() as conn:
        assert conn.execute("select day, rule from ledger.incident").fetchall() == [
            (dt.date(1999, 1, 4), "day_out_of_range")
        ]


def test_a_changed_rollup_is_one_run_over_the_published_days(passes: Passes, tmp_path: Path):
    passes.deliver(write_day(tmp_path, DAY), write_day(tmp_path, DAY + dt.timedelta(days=2)))
    passes.run()
    assert tick(passes, "sales_landing") == []
    (rollup,) = passes.pipeline.spec.rollups
    changed = tmp_path / rollup.name
    changed.write_text(f"{rollup.read_text()}\n-- other SQL")
    passes.follow(dataclasses.replace(passes.pipeline.spec, rollups=(changed,)))
    (request,) = tick(passes, "sales_landing")
    assert tick(passes, "sales_landing")[0].run_key == request.run_key, "asked for once"
    assert request.tags["ct/days"] == "2011-01-07..2011-01-09"
    job = passes.defs.resolve_job_def("sales_data")
    assert job.execute_in_process(instance=passes.instance, tags=dict(request.tags)).success
    assert tick(passes, "sales_landing") == []


def test_only_complete_files_of_the_inbox_are_taken(passes: Passes, tmp_path: Path):
    inbox = passes.settings.landing / "sales" / "inbox"
    clock = FixedClock(dt.datetime(2011, 1, 8, 12, tzinfo=dt.UTC))
    installation = Installation(passes.settings, clock)
    path = write_day(inbox, DAY)
    assert tick(passes, "sales_landing", installation) == [], "its size has not been steady yet"
    clock.sleep(passes.settings.quiet_seconds + 1)
    path.write_text(path.read_text() + "536999,20001,LATE,1,2011-01-07 10:00:00,1.00,,United Kingdom\n")
    assert tick(passes, "sales_landing", installation) == [], "it grew since the last look"
    clock.sleep(passes.settings.quiet_seconds + 1)
    assert [r.partition_key for r in tick(passes, "sales_landing", installation)] == [DAY.isoformat()]


@pytest.mark.fault("F24")
@pytest.mark.parametrize(("age", "open_incidents"), [(4, 0), (5, 1)])
def test_f24_a_quiet_supplier_is_one_incident_and_never_a_run(
    passes: Passes, tmp_path: Path, age: int, open_incidents: int
):
    passes.deliver(write_day(tmp_path, DAY))
    passes.run()
    green = passes.green(CLEAN)
    now = dt.datetime(2011, 1, 7, 23, tzinfo=dt.UTC) + dt.timedelta(days=age)
    for _ in range(3):
        assert tick(passes, "sales_supplier", Installation(passes.settings, FixedClock(now))) == []
    with passes.installation.ledger() as conn:
        rows = conn.execute("select rule, occurrences, message from ledger.incident where state = 'open'").fetchall()
    assert len(rows) == open_incidents
    if rows:
        assert rows[0][:2] == ("stale_supplier", 3)
        assert "2011-01-07" in rows[0][2]
    assert passes.green(CLEAN) == green, "an alert never makes a partition"


def test_the_incident_closes_when_data_comes(passes: Passes, tmp_path: Path):
    passes.deliver(write_day(tmp_path, DAY))
    passes.run()
    late = FixedClock(dt.datetime(2011, 1, 20, tzinfo=dt.UTC))
    tick(passes, "sales_supplier", Installation(passes.settings, late))
    passes.deliver(write_day(tmp_path, dt.date(2011, 1, 19)))
    passes.run()
    tick(passes, "sales_supplier", Installation(passes.settings, late))
    with passes.installation.ledger() as conn:
        states = conn.execute("select state from ledger.incident where rule = 'stale_supplier'").fetchall()
    assert states == [("closed",)]


def test_on_breach_warn_says_so_and_opens_no_incident(passes: Passes, tmp_path: Path):
    from ct_assets.adapters.datasets import pipeline_spec
    from ct_assets.orchestration.freshness import quiet_supplier

    passes.deliver(write_day(tmp_path, DAY))
    passes.run()
    paging = pipeline_spec("sales")
    warning = dataclasses.replace(paging, freshness=dataclasses.replace(paging.freshness, on_breach="warn"))
    late = dt.datetime(2011, 1, 20, tzinfo=dt.UTC)
    with passes.installation.ledger() as conn:
        said = quiet_supplier(conn, warning, "sales_lines", late)
        assert said is not None
        assert "13 days old" in said
        assert conn.execute("select count(*) from ledger.incident").fetchone() == (0,)
        assert quiet_supplier(conn, paging, "sales_lines", late) == said
        assert conn.execute("select count(*) from ledger.incident").fetchone() == (1,)

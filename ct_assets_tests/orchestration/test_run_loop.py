"""`ct run` without the command: which days turn green, what is rebuilt, what a rejected day does not stop."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest

from ct_assets.adapters import landing, ledger
from ct_assets.orchestration import stages
from ct_assets.orchestration.checks import data_age
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.orchestration.passes import CLEAN, DAILY, FEATURES, QUARANTINE, RAW, Passes

FRIDAY, SUNDAY, MONDAY, TUESDAY = (dt.date(2011, 1, day) for day in (7, 9, 10, 11))


def iso(*days: dt.date) -> list[str]:
    return [day.isoformat() for day in days]


def test_delivered_days_turn_green_and_the_day_between_does_not(passes: Passes, tmp_path: Path):
    passes.deliver(*(write_day(tmp_path, day, good=20 + day.day, bad=2) for day in (SUNDAY, FRIDAY, MONDAY)))
    report = passes.run()
    assert report.ok
    assert sorted(report.decided["published"]) == iso(FRIDAY, SUNDAY, MONDAY)
    for key in (RAW, CLEAN, QUARANTINE, DAILY, FEATURES):
        assert passes.told(key) == iso(FRIDAY, SUNDAY, MONDAY), key
    newest = passes.instance.fetch_materializations(CLEAN, limit=1).records[0].asset_materialization
    assert newest is not None
    facts = {name: value.value for name, value in newest.metadata.items()}
    assert (facts["dagster/partition_row_count"], facts["rows quarantined"], facts["revision"]) == (30, 2, 1)
    assert facts["file"] == "2011-01-10.csv"
    assert report.training == {"model": "demand_7d", "champion": None, "not trained": report.training["not trained"]}  # pyright: ignore[reportOptionalSubscript]


def test_nothing_new_is_said_and_starts_no_run(passes: Passes, tmp_path: Path):
    passes.deliver(write_day(tmp_path, FRIDAY))
    passes.run()
    again = passes.run()
    assert again.nothing_new
    assert again.runs == []
    assert passes.told(CLEAN) == iso(FRIDAY)


def test_a_rejected_day_does_not_stop_the_others(passes: Passes, tmp_path: Path):
    wrong = write_day(tmp_path, SUNDAY)
    wrong.write_text(wrong.read_text().replace("Quantity", "Qty", 1))
    passes.deliver(write_day(tmp_path, FRIDAY), wrong, write_day(tmp_path, MONDAY))
    report = passes.run()
    assert not report.ok
    assert [(r["file"], r["rule"]) for r in report.rejected] == [("2011-01-09.csv", "missing_column")]
    assert "Qty" in report.rejected[0]["message"]
    assert passes.green(RAW) == set(iso(FRIDAY, SUNDAY, MONDAY))
    for key in (CLEAN, QUARANTINE, DAILY, FEATURES):
        assert passes.green(key) == set(iso(FRIDAY, MONDAY)), "a rejected day has nothing downstream"
    assert not passes.check("deliveries_accepted").passed
    assert passes.check("table_equals_ledger").passed
    assert report.standing == []
    again = passes.run()
    assert (again.ok, again.nothing_new) == (True, True), "decided and recorded: this run rejected nothing"
    assert [(row["day"], row["rule"]) for row in again.standing] == [(SUNDAY, "missing_column")]
    assert again.standing[0]["delivery_id"] == report.rejected[0]["delivery_id"]
    mended = write_day(tmp_path / "mended", SUNDAY, suffix="-v2")
    passes.deliver(mended)
    last = passes.run()
    assert (last.ok, last.standing) == (True, [])
    assert passes.check("deliveries_accepted").passed
    assert passes.green(FEATURES) == set(iso(FRIDAY, SUNDAY, MONDAY))


def test_an_interrupt_that_dagster_dropped_stops_after_the_run_under_way(passes: Passes, tmp_path: Path):
    passes.deliver(write_day(tmp_path, FRIDAY))
    with pytest.raises(KeyboardInterrupt):
        passes.run(stopping=lambda: True)
    assert passes.green(CLEAN) == set(iso(FRIDAY)), "what was under way is whole"
    assert passes.green(FEATURES) == set()
    assert passes.run().ok
    assert passes.green(FEATURES) == set(iso(FRIDAY))


def test_a_mended_contract_takes_rejected_files_again_from_the_bytes_kept(passes: Passes, tmp_path: Path):
    wrong = write_day(tmp_path, SUNDAY)
    wrong.write_text(wrong.read_text().replace("Quantity", "Qty", 1))
    other = write_day(tmp_path / "other", MONDAY)
    other.write_text(other.read_text().replace("Quantity", "Qty", 1))
    passes.deliver(wrong, other)
    assert len(passes.run().rejected) == 2
    passes.deliver(write_day(tmp_path / "mended", MONDAY, suffix="-v2"))
    assert passes.run().ok
    with passes.installation.ledger() as conn:
        found = landing.rejected(conn, "sales")
        assert [(d.name, d.day) for d in found] == [(wrong.name, SUNDAY)], "a newer delivery has replaced the other"
        assert landing.take_again(conn, found) == 1
        assert landing.rejected(conn, "sales") == []
    wrong.unlink()
    spec = passes.pipeline.spec
    contract = tmp_path / "mended.odcs.yaml"
    plain = "        description: Units of this line; negative on cancellations."
    text = spec.source.contract.read_text()
    assert plain in text
    renamed = plain + "\n        customProperties:\n          - {property: renamedFrom, value: [Qty]}"
    contract.write_text(text.replace(plain, renamed, 1))
    mended = dataclasses.replace(spec, source=dataclasses.replace(spec.source, contract=contract))
    stages.bring_in(passes.installation, mended, [SUNDAY], lambda _: None)
    with passes.installation.ledger() as conn:
        assert ledger.published_days(conn, "sales_lines") == [SUNDAY, MONDAY]
        assert ledger.deliveries(conn, "sales", "rejected")[0].day == MONDAY, "what was replaced stays rejected"


@pytest.mark.parametrize(("age", "passed"), [(4, True), (5, False)])
def test_the_age_of_the_data_is_shown_where_dagsters_freshness_sees_none(
    passes: Passes, tmp_path: Path, age: int, passed: bool
):
    with passes.installation.ledger() as conn:
        nothing = data_age(conn, passes.pipeline.names, FRIDAY, dt.timedelta(days=4))
    assert (nothing.passed, nothing.description) == (True, "nothing is published yet")
    passes.deliver(write_day(tmp_path, FRIDAY))
    passes.run()
    assert not passes.check("data_is_fresh").passed, "the file is of 2011, and just materialized"
    with passes.installation.ledger() as conn:
        found = data_age(conn, passes.pipeline.names, FRIDAY + dt.timedelta(days=age), dt.timedelta(days=4))
    assert found.passed is passed
    assert (found.description or "").startswith(f"data through 2011-01-07, {age} days behind")


def test_a_correction_rebuilds_the_days_of_its_look_back_and_tells_no_other(passes: Passes, tmp_path: Path):
    old = FRIDAY - dt.timedelta(days=200)
    days = (old, FRIDAY, SUNDAY, MONDAY)
    passes.deliver(*(write_day(tmp_path, day) for day in days))
    passes.run()
    passes.deliver(write_day(tmp_path, SUNDAY, good=33, suffix="-corrected"))
    report = passes.run()
    assert report.features_rebuilt == {"product_daily": 2}
    assert passes.told(CLEAN)[len(days) :] == iso(SUNDAY)
    assert passes.told(DAILY)[len(days) :] == iso(SUNDAY)
    assert passes.told(FEATURES)[len(days) :] == iso(SUNDAY, MONDAY)
    newest = passes.instance.fetch_materializations(CLEAN, limit=1).records[0].asset_materialization
    assert newest is not None
    assert newest.metadata["revision"].value == 2
    assert "changed against the previous revision" in newest.metadata


def test_a_changed_rollup_is_built_for_the_old_days_and_everything_after_it_once(
    passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    passes.deliver(write_day(tmp_path, FRIDAY), write_day(tmp_path, SUNDAY))
    passes.run()
    (rollup,) = passes.pipeline.spec.rollups
    changed = tmp_path / rollup.name
    changed.write_text(rollup.read_text().replace("count(distinct invoice_no)", "10 * count(distinct invoice_no)"))
    assert changed.read_text() != rollup.read_text()
    passes.follow(dataclasses.replace(passes.pipeline.spec, rollups=(changed,)))
    report = passes.run()
    assert report.ok
    assert report.features_rebuilt == {"product_daily": 2}
    assert passes.told(DAILY) == iso(FRIDAY, SUNDAY) * 2
    assert passes.told(CLEAN) == iso(FRIDAY, SUNDAY), "the lines are what they were"
    with passes.installation.ledger() as conn:
        orders = conn.execute("select day, sum(orders)::int from clean.daily_product_sales group by 1 order by 1")
        assert orders.fetchall() == [(FRIDAY, 300), (SUNDAY, 300)]
    assert passes.run().nothing_new


def test_a_table_changed_behind_the_ledger_blocks_and_stops_what_follows(passes: Passes, tmp_path: Path):
    passes.deliver(write_day(tmp_path, FRIDAY))
    passes.run()
    with passes.installation.ledger() as conn:
        conn.execute("delete from store.sales_lines where _line = 2")
    passes.deliver(write_day(tmp_path, MONDAY))
    report = passes.run()
    evaluation = passes.check("table_equals_ledger")
    assert not evaluation.passed
    assert evaluation.blocking
    assert passes.green(FEATURES) == set(iso(FRIDAY)), "nothing is built from a table that lies"
    assert any("table_equals_ledger" in failure for failure in report.failures)


def test_a_day_without_a_partition_is_rejected_alone_and_can_be_taken_again(passes: Passes, tmp_path: Path):
    ancient, future = dt.date(1999, 1, 4), dt.date.today() + dt.timedelta(days=400)
    passes.deliver(*(write_day(tmp_path, day) for day in (ancient, FRIDAY, future)))
    report = passes.run()
    assert report.decided == {"rejected": iso(ancient, future), "published": iso(FRIDAY)}
    assert [row["rule"] for row in report.rejected] == ["day_out_of_range"] * 2
    assert "1999-01-04 is no day of pipeline sales, which has 2009-12-01 to today" in report.rejected[0]["message"]
    assert passes.run().nothing_new, "they block nothing, and are not tried for ever"
    spec = passes.pipeline.spec
    passes.follow(dataclasses.replace(spec, source=dataclasses.replace(spec.source, start=ancient)))
    with passes.installation.ledger() as conn:
        assert landing.take_again(conn, [d for d in landing.rejected(conn, "sales") if d.day == ancient]) == 1
    assert passes.run().decided == {"published": iso(ancient)}
    with passes.installation.ledger() as conn:
        left = conn.execute("select day from ledger.incident where rule = 'day_out_of_range' and state = 'open'")
        assert left.fetchall() == [(future,)]

"""Write, audit, publish against real PostgreSQL: what readers see, what the ledger says, what a later file changes."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ct_assets.adapters import incidents, landing, ledger, tables
from ct_assets.adapters.attempt import AuditFailed
from ct_assets.adapters.datasets import PublishedDataset, Rollup, code_version
from ct_assets.adapters.publish import Decision, OutOfDate, approve, publish_delivery, replay
from ct_assets.adapters.rollups import RollupFailed
from ct_assets.adapters.status import summary
from ct_assets.adapters.storage import open_storage
from ct_assets.errors import UsageError
from ct_assets.settings import Settings
from ct_assets_tests.adapters.sales_files import HEADER, line, write_day

DAY = dt.date(2011, 1, 4)


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        yield conn


def bring(settings: Settings, dataset: PublishedDataset, path: Path, **options: Any) -> Decision:
    """Deliver a file and publish it."""
    assert settings.ledger_url is not None
    delivered = landing.deliver(settings, dataset.pipeline, [path])[0]
    with psycopg.connect(settings.ledger_url) as conn:
        found = ledger.delivery(conn, delivered.delivery_id)
    assert found is not None
    return publish_delivery(settings, dataset, found, **options)


def _count(conn: psycopg.Connection, table: str) -> int:
    row = conn.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_day_is_published_with_its_rollup(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    lines = [
        f"536365,85123A,HEART,6,{DAY} 08:26:00,2.55,17850.0,United Kingdom",
        f"536366,85123a, HEART ,4,{DAY} 09:00:00,2.50,,France",
        f"536366,85123A,HEART,1,{DAY} 09:00:00,0.0001,,France",
        f"C536367,85123A,HEART,-3,{DAY} 10:00:00,2.55,17850.0,United Kingdom",
        f"536368,POST,POSTAGE,1,{DAY} 11:00:00,18.00,12583.0,France",
        f"536369,22222,,-5,{DAY} 12:00:00,0,,United Kingdom",
        *(line(DAY, i) for i in range(20)),
    ]
    path = tmp_path / f"{DAY}.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    decision = bring(settings, sales, path)
    assert (decision.state, decision.fresh) == ("published", True)
    assert decision.verdict["rows"] == {"read": 26, "good": 25, "quarantined": 1, "duplicates": 0}
    found = conn.execute(
        "select day, units, revenue, orders, units_returned from clean.daily_product_sales where stock_code = '85123A'"
    ).fetchall()
    assert found == [(DAY, 11, Decimal("25.3001"), 2, 3)]
    assert conn.execute("select count(*) from clean.daily_product_sales where stock_code = 'POST'").fetchone() == (0,)
    assert conn.execute(
        "select stock_code, is_product, customer_id, _line from clean.sales_lines where invoice_no = '536368'"
    ).fetchall() == [("POST", False, "12583", 6)]
    raw = f"536369,22222,,-5,{DAY} 12:00:00,0,,United Kingdom"
    assert conn.execute("select day, _line, _raw, file from quarantine.sales_lines").fetchall() == [
        (DAY, 7, raw, path.name)
    ]
    reasons = conn.execute("select _reasons from quarantine.sales_lines").fetchone()
    assert reasons is not None
    assert "negative_quantity_without_cancellation" in reasons[0]


@pytest.mark.slow
def test_real_days_equal_the_oracle(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, real_days: list[Path], shared_data: Path
) -> None:
    """Every tenth real day, in plain Python's csv and decimal (shared/checks/sales_oracle.py), no code of ours."""
    import sys

    sys.path.insert(0, str(shared_data.parent / "checks"))
    try:
        import sales_oracle  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    chosen = real_days[::10]
    want: dict[tuple[str, str], tuple] = {}
    good = bad = 0
    for path in chosen:
        bring(settings, sales, path)
        judged = sales_oracle.judge(path)
        good, bad = good + judged["good"], bad + judged["quarantined"]
        for code, d in judged["daily"].items():
            want[(path.stem[:10], code)] = (d["units"], d["revenue"], len(d["orders"]), d["units_returned"])
    rows = conn.execute("select day, stock_code, units, revenue, orders, units_returned from clean.daily_product_sales")
    assert {(str(day), code): tuple(rest) for day, code, *rest in rows} == want
    assert (_count(conn, "clean.sales_lines"), _count(conn, "quarantine.sales_lines")) == (good, bad)


@pytest.mark.fault("F06")
def test_f06_the_same_bytes_under_any_name_change_nothing(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    first = bring(settings, sales, write_day(tmp_path / "a", DAY))
    other_name = write_day(tmp_path / "b", DAY, suffix="_again")
    second = bring(settings, sales, other_name)
    assert (first.fresh, second.fresh) == (True, False)
    assert first.publication == second.publication
    assert _count(conn, "ledger.publication") == 1
    assert conn.execute("select name from ledger.delivery_alias").fetchall() == [(other_name.name,)]


@pytest.mark.fault("F07")
def test_f07_other_bytes_for_a_day_are_a_new_revision(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    bring(settings, sales, write_day(tmp_path / "a", DAY, good=30))
    before = {row[0] for row in conn.execute("select invoice_no from clean.sales_lines")}
    second = bring(settings, sales, write_day(tmp_path / "b", DAY, good=33, price="2.50"))
    after = {row[0] for row in conn.execute("select invoice_no from clean.sales_lines")}
    assert (len(before), len(after)) == (30, 33)
    publication = second.publication
    assert publication is not None
    assert publication.revision == 2
    assert publication.diff == {"previous_revision": 1, "added": 3, "removed": 0, "changed": 0, "rows_before": 30}
    old, new = ledger.history(conn, "sales_lines", DAY)
    assert old.superseded_at is not None
    assert new.superseded_at is None
    assert _count(conn, "store.sales_lines") == 63  # the old revision stays readable as known then


def test_a_changed_price_counts_as_removed_and_added_without_a_key(
    settings: Settings, sales: PublishedDataset, tmp_path: Path
) -> None:
    bring(settings, sales, write_day(tmp_path / "a", DAY, good=10, bad=0))
    second = bring(settings, sales, write_day(tmp_path / "b", DAY, good=10, bad=0, price="2.60"))
    assert second.publication is not None
    assert second.publication.diff == {
        "previous_revision": 1,
        "added": 10,
        "removed": 10,
        "changed": 0,
        "rows_before": 10,
    }


def test_with_a_key_it_counts_as_changed(settings: Settings, sales: PublishedDataset, tmp_path: Path) -> None:
    keyed = dataclasses.replace(sales, schema=dataclasses.replace(sales.schema, primary_key=("InvoiceNo", "StockCode")))
    bring(settings, keyed, write_day(tmp_path / "a", DAY, good=10, bad=0))
    second = bring(settings, keyed, write_day(tmp_path / "b", DAY, good=11, bad=0, price="2.60"))
    assert second.publication is not None
    assert second.publication.diff == {
        "previous_revision": 1,
        "added": 1,
        "removed": 0,
        "changed": 10,
        "rows_before": 10,
    }


@pytest.mark.fault("F07")
def test_f07_a_late_correction_may_wait_for_approval(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    careful = dataclasses.replace(sales, late_correction="approve")
    assert bring(settings, careful, write_day(tmp_path / "a", DAY, good=30)).state == "published"
    held = bring(settings, careful, write_day(tmp_path / "b", DAY, good=33))
    assert held.state == "held"
    assert held.publication is not None
    assert _count(conn, "clean.sales_lines") == 30
    assert [row["revision_id"] for row in summary(conn)["held"]] == [held.publication.revision_id]
    for _ in range(2):  # idempotent
        done = approve(settings, "sales", held.publication.revision_id, "lead")
        assert (done.state, done.revision) == ("published", 2)
    assert _count(conn, "clean.sales_lines") == 33
    assert done.known_at == done.published_at > held.publication.published_at
    with pytest.raises(UsageError, match="is waiting for approval"):
        approve(settings, "sales", 10**9, "lead")


def test_only_a_held_revision_of_the_pipeline_is_approved(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """Another pipeline's, one that never waited, and one that readers have something newer than are refused."""
    careful = dataclasses.replace(sales, late_correction="approve")
    first = bring(settings, careful, write_day(tmp_path / "a", DAY, good=30))
    bring(settings, careful, write_day(tmp_path / "bad", DAY, good=10, bad=5))
    older = bring(settings, careful, write_day(tmp_path / "b", DAY, good=33))
    newer = bring(settings, careful, write_day(tmp_path / "c", DAY, good=36))
    held = [decision.publication.revision_id for decision in (first, older, newer) if decision.publication]
    with pytest.raises(UsageError, match=f"no revision {held[2]} of pipeline cafe .* it is of pipeline sales"):
        approve(settings, "cafe", held[2], "lead")
    with pytest.raises(UsageError, match=r"revision 1 of sales_lines 2011-01-04 .* published without waiting\n"):
        approve(settings, "sales", held[0], "lead")
    assert [row["revision_id"] for row in summary(conn)["held"]] == held[1:]
    assert len(incidents.open_incidents(conn)) == 1
    approve(settings, "sales", held[2], "lead")
    assert incidents.open_incidents(conn) == [], "a good delivery of the day is published"
    assert summary(conn)["held"] == [], "what is older than the current revision waits for nothing"
    with pytest.raises(OutOfDate, match="revision 2 of sales_lines 2011-01-04 is older than revision 3"):
        approve(settings, "sales", held[1], "lead")
    with pytest.raises(UsageError, match="published without waiting, and replaced"):
        approve(settings, "sales", held[0], "lead")
    assert _count(conn, "clean.sales_lines") == 36


def test_first_revisions_count_as_known_at_the_end_of_their_day(
    settings: Settings, sales: PublishedDataset, tmp_path: Path
) -> None:
    """London's day, in summer an hour before UTC's; never later than published; later revisions when published."""
    summer = dt.date(2011, 7, 5)
    first = bring(settings, sales, write_day(tmp_path / "a", summer)).publication
    second = bring(settings, sales, write_day(tmp_path / "b", summer, good=31)).publication
    future = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)
    early = bring(settings, sales, write_day(tmp_path / "c", future)).publication
    assert first is not None
    assert second is not None
    assert early is not None
    assert first.known_at == dt.datetime(2011, 7, 5, 23, tzinfo=dt.UTC)
    assert second.known_at == second.published_at
    assert early.known_at == early.published_at


def test_a_rejected_delivery_leaves_a_verdict_and_an_incident(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    bad = write_day(tmp_path / "a", DAY, good=10, bad=5)
    rejected = bring(settings, sales, bad)
    assert rejected.state == "rejected"
    assert rejected.verdict["rejected"]["rule"] == "max_bad_fraction" or rejected.verdict["rejected"]["rule"]
    assert (
        _count(conn, "store.sales_lines"),
        _count(conn, "ledger.quarantined"),
        _count(conn, "ledger.publication"),
    ) == (0, 0, 0)
    bring(settings, sales, bad)  # delivered again: looked at again, the same incident
    found = incidents.open_incidents(conn, "sales")
    assert [(row["day"], row["occurrences"]) for row in found] == [(DAY, 2)]
    bring(settings, sales, write_day(tmp_path / "b", DAY, good=10, bad=0))
    assert incidents.open_incidents(conn) == []


@pytest.mark.parametrize("state", ["pending", "published"])
def test_damaged_bytes_are_an_error_and_no_rejection(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path, state: str
) -> None:
    """The damage is in the header, which alone would reject the file before its end is read."""
    path = write_day(tmp_path, DAY)
    delivered = landing.deliver(settings, "sales", [path])[0]
    found = ledger.delivery(conn, delivered.delivery_id)
    assert found is not None
    if state == "published":
        publish_delivery(settings, sales, found)
    storage = open_storage(settings)
    storage.put(found.key, path.read_bytes().replace(b"Quantity", b"Quantitx"))
    mended = dataclasses.replace(sales, code_version="test-2")
    with pytest.raises(AuditFailed, match=f"have sha256 [0-9a-f]{{64}}, delivered {found.sha256}.*\n.*repairs it"):
        publish_delivery(settings, mended, found, again=True)
    assert incidents.open_incidents(conn) == []
    assert conn.execute("select state from ledger.delivery").fetchone() == (state,)
    assert landing.deliver(settings, "sales", [path])[0].repaired
    assert publish_delivery(settings, mended, found, again=True).state == "published"
    assert _count(conn, "clean.sales_lines") == 30


def test_a_day_without_its_date_is_rejected(settings: Settings, sales: PublishedDataset, tmp_path: Path) -> None:
    path = write_day(tmp_path, DAY)
    rejected = bring(settings, sales, path.rename(tmp_path / "sales.csv"))
    assert rejected.verdict["rejected"]["rule"] == "no_delivery_day"


def test_undated_files_add_up_under_their_names(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    rules = tuple(rule for rule in sales.schema.rules if "wrong_day" not in rule.name)
    undated = dataclasses.replace(
        sales, schema=dataclasses.replace(sales.schema, delivery_day=None, rules=rules), rollups=()
    )
    for name, good in (("north.csv", 5), ("south.csv", 7), ("north.csv", 6)):
        write_day(tmp_path, DAY, good=good, bad=0).rename(tmp_path / name)
        assert bring(settings, undated, tmp_path / name).state == "published"
    assert _count(conn, "clean.sales_lines") == 13
    parts = conn.execute("select part, revision from ledger.publication order by revision_id").fetchall()
    assert parts == [("north.csv", 1), ("south.csv", 1), ("north.csv", 2)]


def test_a_contract_may_gain_an_optional_column(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    bring(settings, sales, write_day(tmp_path, DAY))
    conn.execute("create view public.users_own as select invoice_no, _line from clean.sales_lines")
    tables.ensure_tables(conn, _with_column(sales, name="Channel", physical_name="channel", required=False))
    assert conn.execute("select count(channel), count(*) from clean.sales_lines").fetchone() == (0, 30)
    assert _count(conn, "public.users_own") == 30


def _with_column(dataset: PublishedDataset, **changes: Any) -> PublishedDataset:
    columns = dataset.schema.columns
    added = dataclasses.replace(columns[0], **changes)
    kept = tuple(column for column in columns if column.name != added.name)
    return dataclasses.replace(dataset, schema=dataclasses.replace(dataset.schema, columns=(*kept, added)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "Channel", "physical_name": "channel", "required": True}, "channel is new and required"),
        (
            {"name": "Quantity", "physical_name": "quantity", "type": "string"},
            "bigint in the table and text in the contract: `ct db reshape --pipeline sales`",
        ),
        (
            {"name": "UnitPrice", "physical_name": "unit_price", "type": "decimal", "precision": 18, "scale": 6},
            "and numeric(18,6) in the contract",
        ),
        (
            {"name": "Country", "physical_name": "land", "required": False},
            "country is in the table and no longer in the contract: keep it there, not required and with mayBeAbsent",
        ),
    ],
)
def test_any_other_change_of_shape_is_refused(
    settings: Settings,
    sales: PublishedDataset,
    conn: psycopg.Connection,
    tmp_path: Path,
    change: dict[str, Any],
    says: str,
) -> None:
    bring(settings, sales, write_day(tmp_path, DAY))
    before = conn.execute(
        "select table_name, column_name, data_type from information_schema.columns order by 1, 2"
    ).fetchall()
    with pytest.raises(tables.TableConflict) as refused:
        tables.ensure_tables(conn, _with_column(sales, **change))
    assert says in str(refused.value)
    assert (
        conn.execute(
            "select table_name, column_name, data_type from information_schema.columns order by 1, 2"
        ).fetchall()
        == before
    )


def test_replay_after_a_fix_writes_a_revision_and_only_one(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    bring(settings, sales, write_day(tmp_path, DAY, good=30, bad=2))
    assert replay(settings, sales, DAY)[0].fresh is False
    rules = tuple(rule for rule in sales.schema.rules if rule.name != "zero_quantity")
    mended = dataclasses.replace(sales, schema=dataclasses.replace(sales.schema, rules=rules, digest="f" * 64))
    assert [decision.fresh for decision in replay(settings, mended, DAY)] == [True]
    assert (_count(conn, "clean.sales_lines"), _count(conn, "quarantine.sales_lines")) == (32, 0)
    assert [decision.fresh for decision in replay(settings, mended, DAY)] == [False]
    assert [publication.revision for publication in ledger.history(conn, "sales_lines", DAY)] == [1, 2]
    with pytest.raises(UsageError, match="nothing was delivered"):
        replay(settings, sales, DAY + dt.timedelta(days=1))


def test_a_replay_that_changes_nothing_publishes_nothing(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """Other code, the same rows: no revision, so nothing downstream is stale; the judgement is noted once."""
    first = bring(settings, sales, write_day(tmp_path, DAY, good=30, bad=2))
    before = conn.execute("select * from ledger.publication").fetchall()
    newer = dataclasses.replace(sales, code_version="test-2")
    (done,) = replay(settings, newer, DAY)
    assert (done.state, done.fresh, done.unchanged, done.publication) == ("published", False, True, first.publication)
    assert conn.execute("select * from ledger.publication").fetchall() == before
    assert (_count(conn, "store.sales_lines"), _count(conn, "ledger.quarantined")) == (30, 2)
    found = ledger.delivery(conn, first.delivery.delivery_id)
    assert found is not None
    assert (found.contract_digest, found.code_version) == (sales.schema.digest, "test-2")
    assert found.verdict == first.verdict
    (second,) = replay(settings, newer, DAY)
    assert (second.fresh, second.unchanged) == (False, False), "judged by this contract and code already"
    assert replay(settings, sales, DAY)[0].unchanged, "and again by the first"


@pytest.mark.parametrize(
    ("rollup", "bad_is"),
    [
        ("select :day as day, :revision_id::bigint as of", "zero_quantity"),
        ("select :day as day, null::json as j, count(*) from store.sales_lines where _revision_id = :revision_id", "z"),
    ],
)
def test_a_replay_that_changes_a_rollup_or_a_reason_is_a_revision(
    settings: Settings, sales: PublishedDataset, tmp_path: Path, rollup: str, bad_is: str
) -> None:
    dataset = dataclasses.replace(sales, rollups=(Rollup("per_day", rollup),))
    bring(settings, dataset, write_day(tmp_path, DAY, good=30, bad=2))
    rules = tuple(dataclasses.replace(r, name=r.name.replace("zero_quantity", bad_is)) for r in sales.schema.rules)
    schema = dataclasses.replace(sales.schema, rules=rules, digest="f" * 64)
    (done,) = replay(settings, dataclasses.replace(dataset, schema=schema), DAY)
    assert done.publication is not None
    assert (done.fresh, done.publication.revision) == (True, 2)
    assert summary_of(settings)["corrected"] == 0, "a replay corrects nothing that the supplier said"


def summary_of(settings: Settings) -> dict[str, Any]:
    assert settings.ledger_url is not None
    with psycopg.connect(settings.ledger_url) as conn:
        return summary(conn)["published"][0]


def test_an_incident_of_a_replay_ends_with_the_contract_that_made_it(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The stricter contract refuses the published day; under the old one the day is right, the late file still is not."""
    bring(settings, sales, write_day(tmp_path / "a", DAY, good=30, bad=1))
    late = write_day(tmp_path / "b", DAY)
    late.write_text(late.read_text().replace("Quantity", "Qty"))
    bring(settings, sales, late)
    assert [row["rule"] for row in incidents.open_incidents(conn)] == ["missing_column"]
    strict = dataclasses.replace(sales, schema=dataclasses.replace(sales.schema, max_bad_fraction=0.0, digest="f" * 64))
    assert replay(settings, strict, DAY)[0].state == "rejected"
    assert {row["rule"] for row in incidents.open_incidents(conn)} == {"max_bad_fraction", "missing_column"}
    (back,) = replay(settings, sales, DAY)
    assert (back.fresh, back.unchanged) == (False, False)
    assert [row["rule"] for row in incidents.open_incidents(conn)] == ["missing_column"]
    assert replay(settings, strict, DAY)[0].state == "rejected"
    assert replay(settings, dataclasses.replace(sales, code_version="test-2"), DAY)[0].unchanged
    assert [row["rule"] for row in incidents.open_incidents(conn)] == ["missing_column"]
    bring(settings, sales, write_day(tmp_path / "c", DAY, good=31))
    assert (incidents.open_incidents(conn), summary_of(settings)["corrected"]) == ([], 1)


def test_replay_of_a_rejected_day(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    assert bring(settings, sales, write_day(tmp_path, DAY, good=10, bad=5)).state == "rejected"
    mended = dataclasses.replace(sales, schema=dataclasses.replace(sales.schema, max_bad_fraction=0.5, digest="f" * 64))
    assert [decision.state for decision in replay(settings, mended, DAY)] == ["published"]
    assert (_count(conn, "clean.sales_lines"), _count(conn, "quarantine.sales_lines")) == (10, 5)


@pytest.mark.fault("F27")
@pytest.mark.parametrize(
    "sql",
    [
        "with gone as (delete from store.sales_lines returning *) select :day as day, count(*) from gone",
        "select :day as day; drop table store.sales_lines",
        "delete from store.sales_lines returning *",
    ],
)
def test_f27_a_rollup_cannot_write(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path, sql: str
) -> None:
    bring(settings, sales, write_day(tmp_path / "a", DAY))
    hostile = dataclasses.replace(sales, rollups=(Rollup("hostile", sql),))
    with pytest.raises((psycopg.Error, RollupFailed)):
        bring(settings, hostile, write_day(tmp_path / "b", DAY, good=31))
    assert _count(conn, "clean.sales_lines") == 30


@pytest.mark.fault("F27")
@pytest.mark.parametrize("name", ['x"; drop schema ledger cascade; --', "Sales", "1x", "", "a" * 64, "a.b"])
def test_f27_a_tables_name_is_an_identifier(sales: PublishedDataset, name: str) -> None:
    hostile = dataclasses.replace(sales, schema=dataclasses.replace(sales.schema, name=name, physical_name=name))
    with pytest.raises(UsageError, match="cannot name a table"):
        _ = hostile.name


@pytest.mark.fault("F27")
def test_f27_a_columns_name_is_only_ever_a_name(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection
) -> None:
    nasty = 'x"; drop schema ledger cascade; --'
    tables.ensure_tables(conn, _with_column(sales, name=nasty, physical_name=nasty, required=False))
    columns = {
        row[0]
        for row in conn.execute("select column_name from information_schema.columns where table_schema = 'clean'")
    }
    assert nasty in columns
    assert _count(conn, "ledger.delivery") == 0


def test_the_code_version_is_that_of_the_code() -> None:
    assert code_version() == code_version()
    assert len(code_version().split("+")[1]) == 12

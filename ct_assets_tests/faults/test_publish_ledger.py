"""What the ledger holds when clocks, plans, contracts and messages go wrong: F28, F38, F40, F41, F42."""

from __future__ import annotations

import ast
import datetime as dt
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

import ct_assets.adapters
from ct_assets.adapters import incidents, landing, ledger
from ct_assets.adapters.clock import FixedClock
from ct_assets.adapters.datasets import PublishedDataset, published_dataset
from ct_assets.adapters.doctor import examine
from ct_assets.adapters.postgres.connect import DatabaseUnreachable, connect
from ct_assets.adapters.publish import publish_delivery
from ct_assets.settings import Settings, load
from ct_assets_tests.adapters.sales_files import HEADER, line, write_day
from ct_assets_tests.faults.test_publish_crashes import deliver

DAY = dt.date(2011, 1, 4)
CANARY = "CANARY-4711-PERSON"


def _everything_said(conn: psycopg.Connection) -> str:
    """All that the ledger says about deliveries (quarantined rows are data, kept on purpose)."""
    said = ""
    for table in ("delivery", "publication", "incident", "delivery_alias"):
        said += str(conn.execute(f"select array_agg(t::text) from ledger.{table} t".encode()).fetchone())
    return said


@pytest.mark.fault("F28")
@pytest.mark.parametrize("broken", ["a row", "the budget", "a date", "the header"])
def test_f28_personal_data_stays_out_of_messages_and_logs(
    settings: Settings,
    sales: PublishedDataset,
    conn: psycopg.Connection,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    broken: str,
) -> None:
    """The canary stands in the personal column of rows that break rules; it is in the file, and in no message."""
    good = [line(DAY, i, customer=CANARY) for i in range(30)]
    bad = {
        "a row": [line(DAY, 99, quantity=0, customer=CANARY)],
        "the budget": [line(DAY, 90 + i, quantity=0, customer=CANARY) for i in range(20)],
        "a date": [line(DAY, 99, customer=CANARY).replace(f"{DAY} 09", "yesterday 09")],
        "the header": [HEADER],
    }[broken]
    path = tmp_path / f"{DAY}.csv"
    path.write_text("\n".join([HEADER, *good, *bad]) + "\n")
    with caplog.at_level(logging.DEBUG):
        decision = publish_delivery(settings, sales, deliver(settings, path))
    assert CANARY in path.read_text()
    assert decision.state == ("rejected" if broken in ("the budget", "the header") else "published")
    shown = capfd.readouterr()
    said = _everything_said(conn) + caplog.text + shown.out + shown.err + str(decision.verdict)
    assert str(DAY) in said
    assert CANARY not in said


@pytest.mark.fault("F28")
def test_f28_a_database_error_quotes_no_row(own_server: Settings, tmp_path: Path) -> None:
    """The server itself would print the broken row; its log must not."""
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.postgres.server import Server

    with connect(prepared_url(own_server), autocommit=True) as conn:
        conn.execute("create table t (customer text check (length(customer) < 3))")
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            conn.execute("insert into t values (%s)", (CANARY,))
        with pytest.raises(psycopg.errors.CheckViolation), conn.cursor().copy("copy t from stdin") as out:
            out.write(f"{CANARY}\n")
    assert CANARY in str(refused.value.diag.message_detail)  # what the client is told, and must not log
    log = Server(own_server.home).log.read_text()
    assert "violates check constraint" in log
    assert CANARY not in log


@pytest.mark.fault("F28")
def test_f28_a_password_is_not_in_the_error() -> None:
    with pytest.raises(DatabaseUnreachable) as refused:
        connect("postgresql://ct:hunter2@127.0.0.1:1/ct")
    assert "127.0.0.1" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.fault("F38")
def test_f38_nothing_but_the_clock_port_asks_the_machine_for_the_time() -> None:
    """Ledger times are the database's: no module of the adapters may call now(), today() or time.time()."""
    folder = Path(ct_assets.adapters.__file__).parent
    calls = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                attribute = node.func.attr
                if (
                    attribute in ("utcnow", "today")
                    or (owner, attribute) == ("time", "time")
                    or (attribute == "now" and owner != "clock")
                ):
                    calls.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    # the one in clock.py, and those that ask the port
    assert [call for call in calls if not call.startswith("clock.py") and "clock.now" not in call] == []
    assert any(call.startswith("clock.py") for call in calls)


@pytest.mark.fault("F38")
def test_f38_ledger_times_lie_between_two_looks_at_the_databases_clock(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    before = conn.execute("select clock_timestamp()").fetchone()
    decision = publish_delivery(settings, sales, deliver(settings, write_day(tmp_path, DAY)))
    after = conn.execute("select clock_timestamp()").fetchone()
    assert before is not None
    assert after is not None
    assert decision.publication is not None
    assert before[0] < decision.publication.published_at < after[0]


@pytest.mark.fault("F38")
def test_f38_doctor_tells_a_wrong_clock(settings: Settings) -> None:
    ahead = FixedClock(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    found = {finding.check: finding for finding in examine(settings, ahead)}
    assert found["clock"].state == "warn"
    assert "+3600" in found["clock"].message or "+3599" in found["clock"].message


@pytest.mark.fault("F40")
def test_f40_a_scan_of_the_ledger_gives_the_same_set(
    settings: Settings, sales: PublishedDataset, tmp_path: Path
) -> None:
    """Whoever lost a cursor, ticked twice or died asks again and gets exactly what is not decided, in order."""
    paths = [write_day(tmp_path, DAY + dt.timedelta(days=i)) for i in (2, 0, 1)]
    deliveries = [deliver(settings, path) for path in paths]
    assert settings.ledger_url is not None
    with connect(settings.ledger_url, autocommit=True) as conn:
        first, second = landing.pending(conn, "sales"), landing.pending(conn, "sales")
        assert first == second == deliveries
        publish_delivery(settings, sales, deliveries[1])
        landing.deliver(settings, "sales", paths)  # the same files once more
        assert landing.pending(conn, "sales") == [deliveries[0], deliveries[2]]
        assert len({d.sha256 for d in first}) == 3  # what a run_key is made of


@pytest.mark.fault("F41")
def test_f41_only_what_failed_is_resumed(conn: psycopg.Connection) -> None:
    steps = [("features", f"2011-01-0{i}") for i in range(1, 6)] + [("model", "")]
    assert ledger.plan(conn, "plan-1", "sales", steps) == 6
    for _, day in steps[:3]:
        ledger.settle(conn, "plan-1", "features", day)
    ledger.settle(conn, "plan-1", "features", "2011-01-04", failure="out of memory")
    assert (
        ledger.plan(conn, "plan-1", "sales", steps) == 0
    )  # planned again after a crash: nothing is forgotten or repeated
    assert ledger.open_steps(conn, "plan-1") == [
        ("features", "2011-01-04", "failed"),
        ("features", "2011-01-05", "planned"),
        ("model", "", "planned"),
    ]
    ledger.settle(conn, "plan-1", "features", "2011-01-04")
    row = conn.execute("select state, attempts, message from ledger.run_plan where partition = '2011-01-04'").fetchone()
    assert row == ("done", 2, None)
    assert ledger.open_steps(conn, "plan-2") == []


@pytest.mark.fault("F42")
def test_f42_a_contract_changed_mid_run_waits_for_the_next_run(
    settings: Settings, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The files change between two blocks; this run goes on under what it pinned, the next one sees the new contract."""
    from ct_assets.platform.spec import load_pipelines

    source = Path(ct_assets.__file__).parent / "defs"
    shutil.copytree(source, tmp_path / "defs")
    spec = load_pipelines(tmp_path / "defs")["sales"]
    pinned = published_dataset(spec, settings)
    fired = []

    def change(point: str) -> None:
        if point == "first_rows":
            fired.append(point)
            contract = spec.source.contract
            contract.write_text(contract.read_text().replace("version: 1.0.0", "version: 2.0.0"))
            spec.rollups[0].write_text("this is no SQL")

    first = publish_delivery(settings, pinned, deliver(settings, write_day(tmp_path / "a", DAY)), crash=change)
    assert fired
    assert first.publication is not None
    assert (first.publication.contract_version, first.publication.contract_digest) == ("1.0.0", pinned.schema.digest)
    renewed = replace(published_dataset(spec, settings), rollups=pinned.rollups)
    assert renewed.schema.digest != pinned.schema.digest
    second = publish_delivery(settings, renewed, deliver(settings, write_day(tmp_path / "b", DAY, good=31)))
    assert second.publication is not None
    assert second.publication.contract_version == "2.0.0"
    assert conn.execute("select array_agg(contract_version order by revision) from ledger.publication").fetchone() == (
        ["1.0.0", "2.0.0"],
    )


def test_an_installation_that_is_well(settings: Settings) -> None:
    found = {finding.check: finding.state for finding in examine(settings)}
    assert {check: state for check, state in found.items() if check not in ("disk", "leftovers")} == dict.fromkeys(
        (
            "python", "home", "storage", "server", "schema", "clock", "pending", "raw", "incidents", "dagster", "daemon",
            "kafka", "registry", "online",
        ),
        "ok",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "remedy"),
    [
        (["dead_letter_rate"], ["ct dead-letter replay"]),
        (["topic_recreated"], ["what a worker said when it stopped"]),
        (["late_rows", "dead_letter_rate"], ["ct dead-letter replay", "deliver a mended file"]),
        (["late_rows"], ["deliver a mended file"]),
    ],
)
def test_doctor_names_the_cure_of_each_kind_of_incident(
    settings: Settings, conn: psycopg.Connection, rules: list[str], remedy: list[str]
) -> None:
    for rule in rules:
        incidents.report(conn, incidents.Incident("shop", "shop_events", None, rule, "told", "digest"))
    conn.commit()
    (found,) = [finding for finding in examine(settings) if finding.check == "incidents"]
    cures = ("ct dead-letter replay", "what a worker said when it stopped", "deliver a mended file")
    assert [cure for cure in cures if cure in str(found.remedy)] == remedy


def test_an_incident_of_a_stream_is_closed_by_it_and_by_what_its_definition_is_read_from_now(
    conn: psycopg.Connection,
) -> None:
    def opened(pipeline: str, stream: str | None) -> int:
        return incidents.report(
            conn, incidents.Incident(pipeline, "shop_events", None, "log_truncated", "told", "digest", stream=stream)
        )

    def closed_by(stream: str, pipeline: str) -> set[int]:
        before = {row["incident_id"] for row in incidents.open_incidents(conn)}
        incidents.settle(conn, "shop_events", ["log_truncated"], stream, pipeline)
        return before - {row["incident_id"] for row in incidents.open_incidents(conn)}

    mine, other, nameless = opened("a", "log://x 1"), opened("b", "log://y 1"), opened("c", None)
    assert len({mine, other, nameless}) == 3
    assert closed_by("log://z 1", "z") == {nameless}, "opened before incidents named their stream"
    assert closed_by("log://x 1", "other name") == {mine}
    assert closed_by("log://moved 2", "b") == {other}, "its definition goes on elsewhere"


def test_doctor_survives_what_it_finds(tmp_path: Path) -> None:
    sick = load(
        {
            "CT_HOME": str(tmp_path),
            "CT_DATABASE_URL": "postgresql://ct:hunter2@127.0.0.1:1/ct",
            "CT_STORAGE_URL": "file:///proc/nowhere",
        }
    )
    found = {finding.check: finding for finding in examine(sick)}
    assert {found[check].state for check in ("storage", "server")} == {"fail"}
    assert {found[check].message for check in ("schema", "clock", "dagster")} == {"not known: see server"}
    assert found["python"].state == "ok"
    assert "hunter2" not in str(found)

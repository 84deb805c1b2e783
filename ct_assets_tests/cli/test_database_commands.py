"""`ct url`, `ct stop`, `ct psql`, `ct db`, `ct deliver`, `ct status`, `ct quarantine`, `ct doctor` as a person types them."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.datasets import pipeline_dataset
from ct_assets.adapters.landing import pending
from ct_assets.adapters.postgres.server import Server
from ct_assets.adapters.publish import publish_delivery
from ct_assets.settings import Settings, load
from ct_assets_tests.adapters.sales_files import write_day
from ct_assets_tests.adapters.test_publish import bring

DAY = dt.date(2011, 1, 4)


def ct(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CT_")}
    command = [sys.executable, "-c", "from ct_assets.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean | environ, check=False, timeout=120)


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    """An installation on the session's server."""
    assert settings.ledger_url is not None
    return {"CT_HOME": str(settings.home), "CT_DATABASE_URL": settings.ledger_url, "CT_CODE_VERSION": "test-1"}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An installation with an embedded server of its own."""
    home = tmp_path / "embedded"
    yield {"CT_HOME": str(home)}
    server = Server(home)
    base = server.base
    server.stop()
    shutil.rmtree(base, ignore_errors=True)


def test_url_starts_psql_reads_stop_ends(embedded: dict[str, str]) -> None:
    """The whole life of an embedded installation; the URL is the last line of stdout and migrated."""
    said = ct(embedded, "url")
    assert said.returncode == 0, said.stderr
    url = said.stdout.splitlines()[-1]
    with psycopg.connect(url) as conn:
        assert conn.execute("select count(*) from ledger.delivery").fetchone() == (0,)
    assert ct(embedded, "url").stdout == said.stdout
    assert ct(embedded, "url", "--part", "dagster").stdout.splitlines()[-1] == url.replace("/ct?", "/dagster?")
    assert ct(embedded, "psql", "--", "-tA", "-c", "select 6 * 7").stdout.strip() == "42"
    assert ct(embedded, "psql", "--", "-c", "select 1/0", "-v", "ON_ERROR_STOP=1").returncode == 1
    assert ct(embedded, "db", "status").returncode == 0
    assert ct(embedded, "stop").returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    again = ct(embedded, "stop")
    assert again.returncode == 0
    assert "was not running" in again.stderr


def test_stop_names_the_workers_that_will_start_it_again(embedded: dict[str, str]) -> None:
    """Two workers hold partitions, a third gave its own back, a fourth has been silent for long."""
    with psycopg.connect(ct(embedded, "url").stdout.splitlines()[-1]) as conn:
        conn.execute(
            """insert into stream.stream (name, acceptance_digest, acceptance, contract_digest, source_kind, cluster_id,
                                          topic, topic_id) values ('s', 'a', '{}', 'c', 'log', 'l', 't', 'i')"""
        )
        conn.execute(
            """insert into stream.partition (stream_id, partition, owner, updated_at)
               select (select max(stream_id) from stream.stream), n, owner, clock_timestamp() - silent
               from (values (0, 'here:11:0', interval '1 s'), (1, 'here:12:0', interval '1 s'),
                            (2, null, interval '1 s'), (3, 'here:13:0', interval '1 h')) as p (n, owner, silent)"""
        )
    said = ct(embedded, "stop")
    assert said.returncode == 0
    assert said.stderr.startswith("stopped, but 2 stream workers run (here:11:0, here:12:0) and start it again")
    assert "13" not in said.stderr
    assert ct(embedded, "url").returncode == 0
    with psycopg.connect(ct(embedded, "url").stdout.splitlines()[-1]) as conn:
        conn.execute("update stream.partition set owner = null")
    assert ct(embedded, "stop").stderr == "stopped\n"


def test_db_migrate_and_status(environ: dict[str, str], pg_url: str) -> None:
    assert json.loads(ct(environ, "db", "migrate", "--json").stdout)["changed"] is False
    with psycopg.connect(pg_url, autocommit=True) as conn:
        conn.execute("update public.ct_schema_version set version_num = '0000'")
    behind = ct(environ, "db", "status")
    assert behind.returncode == 1
    assert "ct db migrate" in behind.stderr
    with psycopg.connect(pg_url, autocommit=True) as conn:
        conn.execute("update public.ct_schema_version set version_num = '9999'")
    newer = ct(environ, "db", "migrate")
    assert newer.returncode == 1
    assert "this code knows up to" in newer.stderr
    assert "Traceback" not in newer.stderr


def test_deliver_prints_a_line_a_file(environ: dict[str, str], tmp_path: Path) -> None:
    path = write_day(tmp_path, DAY)
    said = ct(environ, "deliver", "--pipeline", "sales", "--json", str(path), str(path))
    assert said.returncode == 0, said.stderr
    first, second = (json.loads(line) for line in said.stdout.splitlines())
    assert (first["new"], second["new"], first["day"], first["file"]) == (True, False, str(DAY), path.name)
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--pipeline", "sale", "x.csv"], 2, "did you mean 'sales'?"),
        (["--pipeline", "sales"], 2, "no file was named"),
        (["--pipeline", "sales", "absent.csv"], 1, "cannot read absent.csv"),
        (["x.csv"], 2, "--pipeline"),
        (["--pipeline", "sales", "--approve", "99", "lead"], 2, "no revision 99 of pipeline sales is waiting"),
    ],
)
def test_deliver_says_what_is_wrong(environ: dict[str, str], arguments: list[str], code: int, says: str) -> None:
    said = ct(environ, "deliver", *arguments)
    assert said.returncode == code
    assert says in said.stderr
    assert "Traceback" not in said.stderr
    assert said.stdout == ""


def test_deliver_takes_the_inbox(environ: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    inbox = settings.landing / "sales" / "inbox"
    path = write_day(inbox, DAY)
    path.with_name(f"{path.name}.done").touch()
    said = ct(environ, "deliver", "--pipeline", "sales", "--inbox", "--json")
    assert [json.loads(line)["file"] for line in said.stdout.splitlines()] == [path.name]
    (inbox / "2011-01-05.csv").symlink_to(path)
    refused = ct(environ, "deliver", "--pipeline", "sales", "--inbox")
    assert refused.returncode == 1
    assert "symbolic link" in refused.stderr


def test_an_approval_publishes(environ: dict[str, str], settings: Settings, tmp_path: Path, pg_url: str) -> None:
    import dataclasses

    careful = dataclasses.replace(pipeline_dataset("sales", settings), late_correction="approve")
    bring(settings, careful, write_day(tmp_path / "a", DAY))
    held = bring(settings, careful, write_day(tmp_path / "b", DAY, good=33))
    assert held.publication is not None
    assert "Waiting for approval" in ct(environ, "status").stdout
    said = ct(environ, "deliver", "--pipeline", "sales", "--approve", str(held.publication.revision_id), "lead")
    assert said.returncode == 0, said.stderr
    with psycopg.connect(pg_url) as conn:
        assert conn.execute("select approved_by from ledger.publication where revision = 2").fetchone() == ("lead",)


def test_a_wrong_correction_is_taken_back(
    environ: dict[str, str], settings: Settings, tmp_path: Path, pg_url: str
) -> None:
    """The original once more is a no-op that says what readers see; --restore publishes it as revision 3."""
    dataset = pipeline_dataset("sales", settings)
    original = write_day(tmp_path / "a", DAY)
    first = bring(settings, dataset, original)
    bring(settings, dataset, write_day(tmp_path / "b", DAY, good=33, suffix="-wrong"))
    number = str(first.delivery.delivery_id)
    again = ct(environ, "deliver", "--pipeline", "sales", str(original))
    assert "known already: published" in again.stdout
    assert f"revision 1; readers see revision 2, from {DAY}-wrong.csv" in again.stderr
    assert f"ct deliver --pipeline sales --restore {number} --yes" in again.stderr
    command = ("deliver", "--pipeline", "sales", "--restore")
    plan = json.loads(ct(environ, *command, number, "--json").stdout)
    assert plan == {
        "delivery_id": first.delivery.delivery_id, "file": original.name, "day": str(DAY), "was_revision": 1,
        "replaces_revision": 2, "replaces_file": f"{DAY}-wrong.csv", "done": False,
    }  # fmt: skip
    with psycopg.connect(pg_url, autocommit=True) as conn:
        assert pending(conn, "sales") == [], "a plan changes nothing"
        assert ct(environ, *command, number, "--yes").returncode == 0
        waiting = ct(environ, *command, number, "--yes")
        assert (waiting.returncode, "is not decided yet" in waiting.stderr) == (2, True)
        (delivery,) = pending(conn, "sales")
        done = publish_delivery(settings, dataset, delivery).publication
        assert done is not None
        assert (done.revision, done.delivery_id, done.known_at == done.published_at) == (3, int(number), True)
        assert done.diff == {"previous_revision": 2, "added": 0, "removed": 3, "changed": 0, "rows_before": 33}
        assert conn.execute("select count(*), min(_revision) from clean.sales_lines").fetchone() == (30, 3)
    for wrong, says in ((number, "is what readers see: nothing to put back"), ("99", "no delivery 99 of pipeline")):
        said = ct(environ, *command, wrong, "--yes")
        assert (said.returncode, says in said.stderr) == (2, True), said.stderr


def test_status_and_quarantine(environ: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    assert "nothing is delivered yet" in ct(environ, "status").stdout
    dataset = pipeline_dataset("sales", settings)
    bring(settings, dataset, write_day(tmp_path, DAY, good=30, bad=2))
    found = json.loads(ct(environ, "status", "--json").stdout)
    assert (
        found["deliveries"][0]["deliveries"],
        found["published"][0]["rows"],
        found["published"][0]["quarantined"],
    ) == (1, 30, 2)
    listed = json.loads(ct(environ, "quarantine", "list", "--pipeline", "sales", "--json").stdout)
    assert (listed["day"], listed["rows"], listed["reasons"]["zero_quantity"]) == (str(DAY), 2, 2)
    every = ct(environ, "quarantine", "list", "--json")
    assert [json.loads(line) for line in every.stdout.splitlines()] == [listed]
    assert listed["pipeline"] == "sales"
    assert ct(environ, "quarantine", "list").stdout.split()[:2] == ["pipeline", "day"]
    shown = [
        json.loads(line)
        for line in ct(environ, "quarantine", "show", "--pipeline", "sales", "--json").stdout.splitlines()
    ]
    assert [(row["line"], row["reasons"]) for row in shown] == [(32, ["zero_quantity"]), (33, ["zero_quantity"])]
    exported = ct(environ, "quarantine", "export", "--pipeline", "sales", "--day", str(DAY)).stdout
    assert len(list(csv.reader(io.StringIO(exported)))) == 3
    wrong = ct(environ, "quarantine", "show", "--pipeline", "sales", "--rule", "zero_quantty")
    assert wrong.returncode == 2
    assert "did you mean 'zero_quantity'?" in wrong.stderr
    none = ct(environ, "quarantine", "show", "--pipeline", "sales", "--rule", "negative_price")
    assert (none.returncode, none.stdout) == (0, "")
    assert "no quarantined row that broke negative_price" in none.stderr
    out = tmp_path / "out.csv"
    assert "2 rows" in ct(environ, "quarantine", "export", "--pipeline", "sales", "--out", str(out)).stderr
    assert out.read_text(encoding="utf-8").count("\n") == 3


def test_quarantine_list_is_of_every_daily_pipeline_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from ct_assets.adapters import datasets
    from ct_assets.cli.quarantine import _pipelines

    specs = datasets.load_specs()
    cafe = dataclasses.replace(specs["sales"], name="cafe")
    monkeypatch.setattr(datasets, "load_specs", lambda broken=None: {**specs, "cafe": cafe})
    assert _pipelines(None) == ["cafe", "sales"]
    assert _pipelines("sales") == ["sales"]


def test_replay_is_idempotent(environ: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    """Other code than that which published is tried once, and changes nothing here; then there is nothing to do."""
    bring(settings, pipeline_dataset("sales", settings), write_day(tmp_path, DAY))
    newer = environ | {"CT_CODE_VERSION": "test-2"}
    arguments = ("quarantine", "replay", "--pipeline", "sales", "--day", str(DAY), "--json")
    first, second = (json.loads(ct(newer, *arguments).stdout) for _ in range(2))
    kept = ("changed", "judged_again", "revision")
    assert [[said[name] for name in kept] for said in (first, second)] == [[False, True, 1], [False, False, 1]]
    assert ct(newer, "quarantine", "replay", "--pipeline", "sales").returncode == 2
    unknown = ct(newer, "quarantine", "replay", "--pipeline", "sales", "--day", "2011-02-01")
    assert unknown.returncode == 2
    assert f"delivered days: {DAY} to {DAY}, nearest {DAY}" in unknown.stderr
    bad = write_day(tmp_path, dt.date(2011, 1, 5))
    bad.write_text(bad.read_text().replace("Quantity", "Qty"))
    bring(settings, pipeline_dataset("sales", settings), bad)
    refused = ct(newer, "quarantine", "replay", "--pipeline", "sales", "--day", "2011-01-05")
    assert refused.returncode == 1
    assert refused.stdout.startswith("2011-01-05  rejected, nothing was written (missing_column): line 1: no column")
    assert "revision" not in refused.stdout


def test_reshape_plans_and_then_does_it(
    environ: dict[str, str], settings: Settings, tmp_path: Path, pg_url: str
) -> None:
    bring(settings, pipeline_dataset("sales", settings), write_day(tmp_path, DAY))
    with psycopg.connect(pg_url, autocommit=True) as conn:
        conn.execute("drop view clean.sales_lines")
        conn.execute("alter table store.sales_lines alter column quantity type numeric(12,2)")
    command = ("db", "reshape", "--pipeline", "sales", "--json")
    planned, done = ct(environ, *command), ct(environ, *command, "--yes")
    assert (planned.returncode, done.returncode) == (0, 0), done.stderr
    change = {"table": "sales_lines", "column": "quantity", "from": "numeric(12,2)", "to": "bigint", "problem": None}
    assert [json.loads(said.stdout) for said in (planned, done)] == [{**change, "done": on} for on in (False, True)]
    again = ct(environ, *command, "--yes")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to do" in again.stderr
    with psycopg.connect(pg_url) as conn:
        assert conn.execute("select sum(quantity) from clean.sales_lines").fetchone() == (60,)


def test_doctor(environ: dict[str, str], tmp_path: Path) -> None:
    well = [json.loads(line) for line in ct(environ, "doctor", "--json").stdout.splitlines()]
    assert {finding["check"] for finding in well} >= {
        "python",
        "disk",
        "storage",
        "server",
        "schema",
        "clock",
        "pending",
    }
    assert {finding["check"]: finding["state"] for finding in well}["schema"] == "ok"
    sick = ct({"CT_HOME": str(tmp_path), "CT_DATABASE_URL": "postgresql://ct:hunter2@127.0.0.1:1/ct"}, "doctor")
    assert sick.returncode == 1
    assert "fail  server" in sick.stdout
    assert "hunter2" not in sick.stdout + sick.stderr


def test_doctor_starts_nothing(tmp_path: Path) -> None:
    said = ct({"CT_HOME": str(tmp_path / "fresh")}, "doctor")
    assert "not running" in said.stdout
    assert Server(tmp_path / "fresh").running() is None


def test_light_commands_import_nothing_heavy() -> None:
    code = "import sys; import ct_assets.cli.delivery, ct_assets.cli.database, ct_assets.cli.status, ct_assets.cli.quarantine, ct_assets.cli.doctor; print([m for m in ('psycopg', 'polars', 'pyarrow', 'dagster', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_settings_of_the_shell_do_not_reach_tests() -> None:
    assert load().profile == "embedded"

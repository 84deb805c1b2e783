"""``ct contract infer | show | test``: the first things a newcomer tries on their own file."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ct_assets.contracts.odcs import load_contract
from ct_assets_tests.cli.test_verdict_command import CONTRACT, ct
from ct_assets_tests.ingest.judging import judge

OWN = """order_id,Kunde E-Mail,amount,when,day,qty,paid,zip,note,empty
A1,ann@x.com,10.50,2024-01-31T10:00:00,31.01.2024,1,true,01234,hello ,
A2,bob@x.com,7.25,2024-02-01T11:30:00,01.02.2024,2,FALSE,99999,,
A3,cyd@x.com,0.00,2024-02-29T12:00:00,29.02.2024,3,true,00001,"a, b",
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my orders.csv"
    path.write_text(OWN)
    return path


def test_infer_proposes_types_with_evidence_and_accepts_its_own_file(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.odcs.yaml"
    assert ct("contract", "infer", own, "--out", out).exit_code == 0
    schema = load_contract(out).schema()
    assert {c.name: (c.postgres_type, c.required) for c in schema.columns} == {
        "order_id": ("text", True),
        "Kunde E-Mail": ("text", True),
        "amount": ("numeric(18,2)", True),
        "when": ("timestamp", True),
        "day": ("date", True),
        "qty": ("bigint", True),
        "paid": ("boolean", True),
        "zip": ("text", True),
        "note": ("text", False),
        "empty": ("text", False),
    }
    assert [c.name for c in schema.columns if c.pii] == ["Kunde E-Mail"]
    assert schema.column("Kunde E-Mail").physical_name == "kunde_e_mail"
    assert schema.column("note").transforms == ("trim",)
    assert {"amount.minimum", "qty.minimum", "Kunde E-Mail.format"} <= {r.name for r in schema.rules}
    text = out.read_text()
    assert "all 3 values have the form dd.MM.yyyy" in text
    assert "from 0 to 10.5" in text
    assert "ann@x.com" not in text, "no personal value goes to git"
    assert ct("verdict", "--contract", out, own).exit_code == 0


def test_infer_prints_to_stdout_and_does_not_overwrite_unasked(own: Path, tmp_path: Path) -> None:
    run = ct("contract", "infer", own)
    assert run.stdout.startswith("# Proposed from my orders.csv: 3 rows read")
    out = tmp_path / "there.yaml"
    out.write_text("mine")
    assert ct("contract", "infer", own, "--out", out).exit_code == 2
    assert out.read_text() == "mine"
    assert ct("contract", "infer", own, "--out", out, "--yes").exit_code == 0


def test_ambiguous_dates_are_a_question_to_the_user(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("d,n\n01/02/2024,1\n03/04/2024,2\n")
    assert "these values also fit MM/dd/yyyy" in ct("contract", "infer", path).stdout


def test_another_delimiter_is_asked_for_not_sniffed(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a;b\n1;2\n")
    run = ct("contract", "infer", path)
    assert run.exit_code == 2
    assert "--delimiter ';'" in run.stderr
    out = tmp_path / "c.yaml"
    assert ct("contract", "infer", path, "--delimiter", ";", "--out", out).exit_code == 0
    assert ct("verdict", "--contract", out, path).exit_code == 0


@pytest.mark.parametrize("data", ["", "a,a\n1,2\n", "a,\n1,2\n", "a,b\n", "a\x00b\n1\n", 'a,"b\n'])
def test_files_that_cannot_be_read_are_explained(data: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(data)
    run = ct("contract", "infer", path)
    assert run.exit_code == 2
    assert run.stderr.startswith("error: ")


CELL = st.sampled_from(
    [
        "",
        "1",
        "-2",
        "007",
        "1.5",
        "1e3",
        "x",
        " y ",
        "true",
        "2024-01-31",
        "31/01/2024",
        "2024-01-31 10:00:00",
        "a@b.co",
        "17850.0",
        "NaN",
        "é",
        "=1+1",
        "# no",
        "- {a: b}",
        "'",
        "99999999999999999999",
    ]
)
NAMES = st.sampled_from(["id", "customer_id", "name: x", "- a", "#", "a b", "Phone", "no", "null", "true", "1", "é"])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=2, max_size=4, unique=True), data=st.data())
def test_whatever_is_inferred_loads_and_accepts_every_row_of_its_file(
    names: list[str], data: st.DataObject, tmp_path: Path
) -> None:
    from io import BytesIO

    from ct_assets.contracts.model import Dialect
    from ct_assets.ingest.infer import contract_text
    from ct_assets.ingest.profile import profile

    columns = [
        data.draw(st.lists(st.sampled_from(data.draw(st.lists(CELL, min_size=1, max_size=3))), min_size=5, max_size=5))
        for _ in names
    ]
    text = ",".join(names) + "\n" + "".join(",".join(row) + "\n" for row in zip(*columns, strict=True))
    if text.split("\n", 1)[0] in text.split("\n")[1:]:
        return
    found, verdict = profile(BytesIO(text.encode()), "x.csv", Dialect())
    path = tmp_path / "c.yaml"
    path.write_text(contract_text(found, verdict, Dialect()), encoding="utf-8")
    judged = judge(text, load_contract(path).schema())
    assert judged.verdict.decision == "accepted", (judged.verdict, path.read_text())
    assert judged.verdict.good == verdict.read


def test_infer_on_a_real_day(real_days: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "c.yaml"
    assert ct("contract", "infer", real_days[20], "--out", out).exit_code == 0
    types = {c.name: c.postgres_type for c in load_contract(out).schema().columns}
    assert types == {
        "InvoiceNo": "text", "StockCode": "text", "Description": "text", "Quantity": "bigint",
        "InvoiceDate": "timestamp", "UnitPrice": "numeric(18,2)", "CustomerID": "text", "Country": "text",
    }  # fmt: skip
    assert ct("verdict", "--contract", out, "--out", tmp_path, real_days[20]).exit_code == 0
    good = pl.read_parquet(tmp_path / f"{real_days[20].name}.good.parquet")
    assert not good["CustomerID"].str.ends_with(".0").any()


def test_show_prints_coverage_and_rules() -> None:
    run = ct("contract", "show", CONTRACT)
    assert run.exit_code == 0
    assert "clauses enforced; documentation-only: none" in run.stdout
    assert "zero_quantity" in run.stdout
    answer = json.loads(ct("contract", "show", "--json", CONTRACT).stdout)
    assert answer["coverage"]["enforced"] == answer["coverage"]["clauses"]
    assert {
        "rule": "at_least_one_row",
        "kind": "rowCount mustBeGreaterThan 0",
        "columns": "",
        "severity": "error",
    }.items() <= answer["rules"][-1].items()


def test_test_runs_the_must_reject_examples(tmp_path: Path) -> None:
    run = ct("contract", "test", CONTRACT)
    assert run.exit_code == 0
    assert "ok   must break zero_quantity" in run.stdout
    broken = tmp_path / "c.yaml"
    broken.write_text(Path(CONTRACT).read_text().replace("WHERE Quantity = 0", "WHERE Quantity = 99"))
    run = ct("contract", "test", "--json", broken)
    assert run.exit_code == 1
    assert [v["rule"] for v in map(json.loads, run.stdout.splitlines()) if not v["holds"]] == ["zero_quantity"]


def test_an_unknown_subcommand_has_a_did_you_mean() -> None:
    run = ct("contract", "infr", "x.csv")
    assert run.exit_code == 2
    assert "did you mean 'infer'?" in run.stderr

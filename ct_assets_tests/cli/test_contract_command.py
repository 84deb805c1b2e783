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
        "1 234.5",
        "12 €",
        "31.12.2025",
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
    from ct_assets.ingest.examples import try_examples
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
    assert all(result.holds for result in try_examples(load_contract(path).schema())), path.read_text()


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


GERMAN = """Rechnungsnr;Kunde;Datum;Zeitpunkt;Betrag;Menge;Stückpreis;Rabatt;Alt
R-1;Müller;31.12.2025;31.12.2025 10:15;1.234,56;1.500;12,50 €;1,250;31.12.25
R-2;Straße & Söhne;01.01.2026;01.01.2026 00:00;99,00;2.000;7,00 €;2,125;01.01.26
R-3;Özil;15.01.2026;15.01.2026 23:59;-12.345.678,90;10;1.200,00 €;0,125;15.01.26
"""


def test_a_german_file_is_read_as_its_country_prints(tmp_path: Path) -> None:
    path = tmp_path / "2026-01-31 Umsätze.csv"
    path.write_bytes(GERMAN.encode("cp1252"))
    out = tmp_path / "c.yaml"
    assert "--delimiter ';'" in ct("contract", "infer", path).stderr
    assert "--encoding cp1252" in ct("contract", "infer", path, "--delimiter", ";").stderr
    run = ct("contract", "infer", path, "--delimiter", ";", "--encoding", "cp1252", "--out", out)
    assert run.exit_code == 0, run.stderr
    schema = load_contract(out).schema()
    assert {c.name: (c.physical_name, c.postgres_type) for c in schema.columns} == {
        "Rechnungsnr": ("rechnungsnr", "text"),
        "Kunde": ("kunde", "text"),
        "Datum": ("datum", "date"),
        "Zeitpunkt": ("zeitpunkt", "timestamp"),
        "Betrag": ("betrag", "numeric(18,2)"),
        "Menge": ("menge", "bigint"),
        "Stückpreis": ("stueckpreis", "numeric(18,2)"),
        "Rabatt": ("rabatt", "numeric(18,3)"),
        "Alt": ("alt", "text"),
    }
    assert schema.physical_name == "umsaetze"
    text = out.read_text()
    assert "from 2025-12-31 to 2026-01-15" in text
    assert "2 values with the thousands mark '.'" in text
    assert "proves it" in text
    assert "two-digit year" in text
    assert ct("verdict", "--contract", out, "--out", tmp_path / "o", path).exit_code == 0
    good = pl.read_parquet(tmp_path / "o" / f"{path.name}.good.parquet")
    assert good["Betrag"].cast(pl.String).to_list() == ["1234.56", "99.00", "-12345678.90"]
    assert good["Menge"].to_list() == [1500, 2000, 10]
    assert good["Stückpreis"].cast(pl.String).to_list() == ["12.50", "7.00", "1200.00"]
    assert good["Rabatt"].cast(pl.String).to_list() == ["1.250", "2.125", "0.125"]
    assert str(good["Datum"][0]) == "2025-12-31"
    assert ct("contract", "test", out).exit_code == 0


@pytest.mark.parametrize(
    ("rows", "types"),
    [
        ("1,234;1\n5,678;2\n", ["text", "bigint"]),  # thousands or decimals: a question, never a guess
        ("1.234;1\n5.678;2\n", ["numeric(18,3)", "bigint"]),  # the default of the format
        ("1,234;0,5\n5,678;2\n", ["numeric(18,3)", "numeric(18,2)"]),  # the other column proves the comma
        ("1.234;0,5\n5.678;2\n", ["bigint", "numeric(18,2)"]),
        ("1 234,5;1\n5 678,25;2\n", ["numeric(18,2)", "bigint"]),
        ("1'234.5;1\n5'678.25;2\n", ["numeric(18,2)", "bigint"]),
        ("1\u202f234,5;1\n12,25;2\n", ["numeric(18,2)", "bigint"]),
        ("1.23.45;1\n", ["text", "bigint"]),
        ("0012,5;1\n", ["text", "bigint"]),
    ],
)
def test_thousands_and_decimals_are_told_apart_or_asked(rows: str, types: list[str], tmp_path: Path) -> None:
    path, out = tmp_path / "x.csv", tmp_path / "c.yaml"
    path.write_text("a;b\n" + rows, encoding="utf-8")
    assert ct("contract", "infer", path, "--delimiter", ";", "--out", out).exit_code == 0
    assert [c.postgres_type for c in load_contract(out).schema().columns] == types
    assert ("thousands from decimals" in out.read_text()) == (rows[:5] in ("1,234", "1.234") and "0,5" not in rows)
    assert ct("verdict", "--contract", out, path).exit_code == 0
    assert ct("contract", "test", out).exit_code == 0


def test_a_fresh_proposal_passes_its_own_test_also_with_a_day_declared(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.yaml"
    day = tmp_path / "2024-05-01 orders.csv"
    day.write_text(own.read_text())
    for file in (own, day):
        assert ct("contract", "infer", file, "--out", out, "--yes").exit_code == 0
        assert ct("contract", "test", out).exit_code == 0
    text = out.read_text()
    marked = text.replace("# ? the file's name begins with a day; if each file is one day: ", "")
    assert marked != text
    out.write_text(marked)
    assert load_contract(out).schema().delivery_day == "fileName"
    assert ct("contract", "test", out).exit_code == 0


def test_a_required_column_without_an_example_is_named(tmp_path: Path) -> None:
    out = tmp_path / "c.yaml"
    out.write_text(
        "apiVersion: v3.1.0\nkind: DataContract\nid: x\nversion: 1.0.0\nschema:\n  - name: My Orders\n    properties:\n"
        "      - {name: id, logicalType: integer, required: true}\n"
    )
    run = ct("contract", "test", out)
    assert run.exit_code == 1
    assert "give `examples:` to the required column id" in run.stdout
    assert "c.yaml:6: name 'My Orders' cannot name a table" in run.stderr


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"PK\x03\x04rest", "Excel"), (b"\x7fELF\x02\x01\x00", "control character"), (b"\x1f\x8b\x08\x00", "gunzip")],
)
def test_a_binary_file_is_named_and_not_printed(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(data + b"\xff\xfe,\x01\n")
    run = ct("contract", "infer", path)
    assert run.exit_code == 2
    assert said in run.stderr
    assert run.stderr.isprintable() or run.stderr.replace("\n", "").isprintable()


def test_a_folder_is_called_a_folder(own: Path) -> None:
    run = ct("contract", "infer", own.parent)
    assert run.exit_code == 2
    assert "is a folder" in run.stderr
    assert "my orders.csv" in run.stderr
    assert "is a folder" in ct("contract", "show", own.parent).stderr


def test_a_column_called_count_and_one_of_blanks(tmp_path: Path) -> None:
    path, out = tmp_path / "x.csv", tmp_path / "c.yaml"
    path.write_text("count,b\n1, x\n2,  \n")
    assert ct("contract", "infer", path, "--out", out).exit_code == 0
    assert [c.required for c in load_contract(out).schema().columns] == [True, False]
    assert ct("verdict", "--contract", out, path).exit_code == 0

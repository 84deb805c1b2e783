"""``ct verdict`` as scripts call it: lines, exit codes, Parquet, errors."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from ct_assets.cli.main import main
from ct_assets_tests.conftest import ROOT
from ct_assets_tests.ingest.judging import SALES, sales_file, sales_line

CONTRACT = str(ROOT / SALES)


def ct(*args: object) -> Result:
    import click

    @click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def through(rest: tuple[str, ...]) -> None:
        main(list(rest))

    return CliRunner().invoke(through, [str(a) for a in args])


@pytest.fixture
def day(tmp_path: Path) -> Path:
    path = tmp_path / "2010-12-01.csv"
    path.write_text(
        sales_file(
            *[sales_line(InvoiceNo=str(i)) for i in range(20)], sales_line(Quantity="0"), sales_line(InvoiceNo="3")
        )
    )
    return path


def test_the_json_line_is_exactly_the_published_form(day: Path) -> None:
    run = ct("verdict", "--json", "--contract", CONTRACT, day)
    assert run.exit_code == 0
    assert [json.loads(line) for line in run.stdout.splitlines()] == [
        {
            "file": str(day),
            "sha256": hashlib.sha256(day.read_bytes()).hexdigest(),
            "decision": "accepted_with_quarantine",
            "rows": {"read": 22, "good": 20, "quarantined": 1, "duplicates": 1},
            "reasons": {"zero_quantity": 1},
            "rejected": None,
        }
    ]


def test_a_rejected_file_is_exit_1_and_the_others_are_still_judged(day: Path, tmp_path: Path) -> None:
    empty = tmp_path / "2010-12-02.csv"
    empty.write_text("")
    run = ct("verdict", "--json", "--contract", CONTRACT, empty, day)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.exit_code == 1
    assert [line["decision"] for line in lines] == ["rejected", "accepted_with_quarantine"]
    assert lines[0]["rejected"]["rule"] == "empty_file"
    assert set(lines[0]["rejected"]) == {"rule", "line", "message"}


def test_text_names_decision_counts_and_reasons(day: Path) -> None:
    run = ct("verdict", "--contract", CONTRACT, day)
    assert "accepted_with_quarantine" in run.stdout
    assert "22 read, 20 good, 1 quarantined, 1 duplicates" in run.stdout
    assert "zero_quantity: 1" in run.stdout


def test_out_writes_good_and_quarantined_rows(day: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for _ in range(2):  # overwritten if there
        assert ct("verdict", "--contract", CONTRACT, "--out", out, day).exit_code == 0
    good, bad = (
        pl.read_parquet(out / "2010-12-01.csv.good.parquet"),
        pl.read_parquet(out / "2010-12-01.csv.quarantine.parquet"),
    )
    assert good.columns == [
        "InvoiceNo",
        "StockCode",
        "Description",
        "Quantity",
        "InvoiceDate",
        "UnitPrice",
        "CustomerID",
        "Country",
        "is_product",
        "_line",
    ]
    assert good.height == 20
    assert good.schema["UnitPrice"] == pl.Decimal(18, 4)
    assert good.schema["InvoiceDate"] == pl.Datetime("us", "UTC")
    assert bad.rows() == [(22, sales_line(Quantity="0"), ["zero_quantity"])]
    assert sorted(p.name for p in out.iterdir()) == ["2010-12-01.csv.good.parquet", "2010-12-01.csv.quarantine.parquet"]


def test_out_has_all_columns_also_with_no_good_row(tmp_path: Path) -> None:
    contract = tmp_path / "c.yaml"
    contract.write_text(
        "apiVersion: v3.1.0\nkind: DataContract\nid: t\nversion: 1.0.0\nstatus: active\nschema:\n  - name: t\n    properties:\n      - {name: a, logicalType: integer}\n      - {name: b}\n"
    )
    data = tmp_path / "x.csv"
    data.write_text("a,b\nx,1\n")
    assert ct("verdict", "--contract", contract, "--out", tmp_path / "o", data).exit_code == 0
    assert pl.read_parquet(tmp_path / "o" / "x.csv.good.parquet").schema == {
        "a": pl.Int64,
        "b": pl.String,
        "_line": pl.Int64,
    }
    assert pl.read_parquet(tmp_path / "o" / "x.csv.quarantine.parquet").height == 1


def test_a_file_now_rejected_leaves_no_older_output(day: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ct("verdict", "--contract", CONTRACT, "--out", out, day)
    day.write_text("nothing,of,it\n1,2,3\n")
    assert ct("verdict", "--contract", CONTRACT, "--out", out, day).exit_code == 1
    assert list(out.iterdir()) == []


def test_two_inputs_of_one_base_name_are_wrong_usage(day: Path, tmp_path: Path) -> None:
    other = tmp_path / "b" / day.name
    other.parent.mkdir()
    other.write_bytes(day.read_bytes())
    run = ct("verdict", "--contract", CONTRACT, "--out", tmp_path / "out", day, other)
    assert run.exit_code == 2
    assert day.name in run.stderr
    assert ct("verdict", "--contract", CONTRACT, day, other).exit_code == 0, "without --out nothing clashes"


@pytest.mark.parametrize(
    "args",
    [
        ["--contract", "no.yaml", "x.csv"],
        ["--contract", CONTRACT, "no.csv"],
        ["--contract", CONTRACT, "--schema", "sales_line", "{day}"],
        ["--contract", CONTRACT],
        ["--contrct", CONTRACT, "{day}"],
    ],
)
def test_wrong_usage_is_exit_2(args: list[str], day: Path) -> None:
    run = ct("verdict", *[a.replace("{day}", str(day)) for a in args])
    assert run.exit_code == 2
    assert run.stdout == ""
    assert run.stderr


def test_a_broken_contract_is_exit_1_with_file_and_line(day: Path, tmp_path: Path) -> None:
    contract = tmp_path / "c.yaml"
    contract.write_text(
        "apiVersion: v3.1.0\nkind: DataContract\nschema:\n  - name: t\n    properties:\n      - {name: a, logicalType: strin}\n"
    )
    run = ct("verdict", "--contract", contract, day)
    assert run.exit_code == 1
    assert f"{contract}:6:" in run.stderr
    assert "did you mean 'string'?" in run.stderr


def test_warnings_go_to_stderr(tmp_path: Path) -> None:
    path = tmp_path / "2010-12-01.csv"
    path.write_text(sales_file(sales_line()).rstrip("\n"))
    run = ct("verdict", "--json", "--contract", CONTRACT, path)
    assert len(run.stdout.splitlines()) == 1
    assert "no line end" in run.stderr


def test_it_starts_without_the_heavy_packages(day: Path) -> None:
    code = "import sys; from ct_assets.cli.main import main\ntry: main(['verdict', '--json', '--contract', sys.argv[1], sys.argv[2]])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('dagster', 'pandas', 'feast', 'sklearn', 'mlflow', 'psycopg') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code, CONTRACT, str(day)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"

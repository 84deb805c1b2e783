"""`ct sample sales`: what it writes, what it prints, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ct_assets.cli.sample import sample
from ct_assets.errors import UsageError


def test_it_writes_the_days_and_prints_their_totals_as_one_json_line(tmp_path: Path) -> None:
    out = tmp_path / "new" / "sample"
    result = CliRunner().invoke(
        sample, ["sales", "--days", "10", "--seed", "4", "--products", "12", "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    truth = json.loads((out / "truth.json").read_text(encoding="utf-8"))
    assert json.loads(result.stdout) == {"out": str(out), "files": 9, **truth["totals"]}
    # 2011-03-01 is a Tuesday: ten days hold one Saturday
    assert sorted(path.name for path in out.glob("*.csv")) == [
        f"2011-03-{day:02}.csv" for day in (1, 2, 3, 4, 6, 7, 8, 9, 10)
    ]
    assert (
        (out / "2011-03-01.csv")
        .read_text(encoding="utf-8")
        .startswith("InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n")
    )


def test_it_says_when_files_of_another_sample_lie_beside(tmp_path: Path) -> None:
    (tmp_path / "2010-12-01.csv").write_text("another sample")
    result = CliRunner().invoke(sample, ["sales", "--days", "3", "--products", "5", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "2010-12-01.csv" in result.stderr
    assert (tmp_path / "2010-12-01.csv").read_text() == "another sample"


@pytest.mark.parametrize(("option", "value"), [("days", "0"), ("products", "0"), ("seed", "-1")])
def test_an_impossible_option_is_wrong_usage_and_is_named(tmp_path: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(sample, ["sales", f"--{option}", value, "--out", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2
    assert f"{option}={value}" in result.exception.message
    assert list(tmp_path.iterdir()) == []

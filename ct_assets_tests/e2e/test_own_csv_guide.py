"""docs/guides/own-csv.md, command by command as a reader types them, in a copy of the project; then what must have come of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/guides/own-csv.md"


def commands() -> list[str]:
    """The guide's shell blocks, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with a `ct` of its own, so that the guide's new pipeline is nobody else's."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("pyproject.toml", "workspace.yaml"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "ct_assets", copy / "ct_assets", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / ".venv/bin").mkdir(parents=True)
    ct = copy / ".venv/bin/ct"
    ct.write_text(
        f"#!/bin/sh\nPYTHONPATH={copy} exec {sys.executable} -c 'from ct_assets.cli.main import main; main()' \"$@\"\n"
    )
    ct.chmod(0o755)
    return copy


@pytest.mark.slow
def test_the_guide_brings_an_own_csv_to_postgresql(project: Path, tmp_path: Path, pg_url: str) -> None:
    blocks = commands()
    assert len(blocks) == 10
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(blocks)],
        cwd=project,
        env={**os.environ, "CT_HOME": str(tmp_path / "home"), "CT_DATABASE_URL": pg_url},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    with psycopg.connect(pg_url) as conn:
        clean = conn.execute(
            "select order_id, ordered_at at time zone 'UTC', item, qty, price_eur::text, customer_email, note, _day::text"
            " from clean.cafe_orders order by order_id"
        ).fetchall()
        quarantine = conn.execute(
            "select day::text, _line, _reasons, _raw from quarantine.cafe_orders order by _line"
        ).fetchall()
        sales = conn.execute("select count(distinct day), sum(units)::bigint from clean.cafe_daily_sales").fetchone()
        features = conn.execute(
            "select count(distinct day), min(stock_code), max(stock_code) from feature.cafe_sales_product_daily"
        ).fetchone()
        models = conn.execute("select model, cutoff::text, recipe ->> 'trainer' from ledger.model_version").fetchall()
    lines = [line for path in (project / "cafe/sales").glob("*.csv") for line in path.read_text().splitlines()[1:]]
    assert sales == (56, sum(int(line.split(",")[3]) for line in lines))
    assert features == (56, "item 01", "item 24")
    assert models == [("cafe_7d", "2024-04-28", "ct_assets.training.demand:recipe")]
    assert len(clean) == 12
    first, croissant, team = clean[0], clean[1], clean[4]
    assert (first[0], str(first[1]), *first[2:]) == (
        "A-1001", "2024-05-01 06:12:44", "Flat white", 2, "3.80", "ada@example.org", None, "2024-05-01",
    )  # fmt: skip
    assert croissant[2:] == ("Croissant, butter", 1, "2.40", None, "to go", "2024-05-01")
    assert team[6] == 'for the "team"'
    assert [(day, line, reasons) for day, line, reasons, _ in quarantine] == [
        ("2024-05-02", 3, ["qty.type"]),
        ("2024-05-02", 4, ["price_eur.type"]),
    ]
    assert quarantine[0][3] == "A-1008,2024-05-02 08:07:45,Espresso,two,2.20,,"
    assert re.search(r"2024-05-01\s*\|\s*Flat white\s*\|\s*3\s*\|\s*11\.40", done.stdout)
    assert sorted(path.name for path in (project / "cafe/judged").iterdir()) == [
        f"2024-05-0{day}.csv.{kind}.parquet" for day in (1, 2) for kind in ("good", "quarantine")
    ]

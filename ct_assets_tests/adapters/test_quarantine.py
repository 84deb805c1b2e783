"""Quarantined rows: counted, shown, and exported so that a spreadsheet cannot run them."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_assets.adapters.datasets import PublishedDataset
from ct_assets.adapters.quarantine import COLUMNS, QuarantinedRow, export, harmless, rows, summary
from ct_assets.settings import Settings
from ct_assets_tests.adapters.sales_files import HEADER, line, write_day
from ct_assets_tests.adapters.test_publish import bring

DAY = dt.date(2011, 1, 4)
FORMULAS = ['=HYPERLINK("http://x","y")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1+1"]


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        yield conn


def test_list_and_show_follow_the_current_revision(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    bring(settings, sales, write_day(tmp_path / "a", DAY, good=30, bad=3))
    bring(settings, sales, write_day(tmp_path / "b", DAY + dt.timedelta(days=1), good=30, bad=1))
    bring(settings, sales, write_day(tmp_path / "c", DAY, good=30, bad=2))
    found = summary(conn, "sales_lines")
    assert [(row["day"], row["revision"], row["rows"], row["reasons"]["zero_quantity"]) for row in found] == [
        (DAY, 2, 2, 2),
        (DAY + dt.timedelta(days=1), 1, 1, 1),
    ]
    assert [(r.day, r.line) for r in rows(conn, "sales_lines", day=DAY)] == [(DAY, 32), (DAY, 33)]
    assert len(list(rows(conn, "sales_lines", limit=1))) == 1
    assert list(rows(conn, "sales_lines", rule="wrong_day")) == []


@pytest.mark.fault("F26")
def test_f26_formulas_are_stored_as_they_are_and_exported_harmless(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The raw record begins with the formula, which a spreadsheet would run on opening the export."""
    path = tmp_path / f"{DAY}.csv"
    hostile = f"=cmd|' /C calc'!A0,20001,X,0,{DAY} 09:00:00,1.00,,United Kingdom"
    path.write_text("\n".join([HEADER, *(line(DAY, i) for i in range(20)), hostile]) + "\n")
    bring(settings, sales, path)
    stored = conn.execute("select _raw from quarantine.sales_lines").fetchone()
    assert stored == (hostile,)
    out = io.StringIO()
    assert export(rows(conn, "sales_lines"), out) == 1
    header, exported = csv.reader(io.StringIO(out.getvalue()))
    assert tuple(header) == COLUMNS
    assert exported[-1] == f"'{hostile}"


@pytest.mark.fault("F26")
@given(st.sampled_from(FORMULAS) | st.text(max_size=30))
def test_f26_no_exported_cell_can_be_run(cell: str) -> None:
    out = io.StringIO()
    row = QuarantinedRow(DAY, cell, "0" * 64, 2, [cell], cell)
    export(iter([row]), out)
    for shown in harmless(cell), *(value for value in list(csv.reader(io.StringIO(out.getvalue(), newline="")))[1]):
        assert not shown.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert harmless(cell) in (cell, f"'{cell}")


@pytest.mark.fault("F11")
def test_f11_a_nul_is_shown_not_lost(
    settings: Settings, sales: PublishedDataset, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """PostgreSQL's text holds no NUL: its picture stands in the table, the byte itself in the delivery."""
    path = tmp_path / f"{DAY}.csv"
    lines = [HEADER, *(line(DAY, i) for i in range(20)), line(DAY, 99).replace("THING", "TH\0ING")]
    path.write_text("\n".join(lines) + "\n")
    decision = bring(settings, sales, path)
    assert decision.verdict["rows"]["quarantined"] == 1
    found = conn.execute("select _raw from quarantine.sales_lines").fetchone()
    assert found == (lines[-1].replace("\0", "\u2400"),)

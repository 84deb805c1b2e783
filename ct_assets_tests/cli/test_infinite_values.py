"""Sums beyond a double, as people and scripts read them: JSON that any reader takes, no traceback, no warning.

What goes here: the commands. What does not: the values themselves (``adapters.stream.test_extreme_doubles``).
"""

from __future__ import annotations

import json
import math
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import online, state
from ct_assets.cli.features import features
from ct_assets.cli.stream_compute import compute
from ct_assets.cli.stream_deploy import deploy
from ct_assets.json_values import json_text
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.worlds import START, Given, M, Writer

LARGEST = 1.7976931348623157e308
AGGREGATES = "".join(
    f"  - {{name: {f}_x, function: {f}, column: ratio, window: 5m}}\n" for f in ("sum", "avg", "var", "std", "max")
)
INFINITE = {"sum_x": "Infinity", "avg_x": "Infinity", "var_x": "Infinity", "std_x": "Infinity", "max_x": LARGEST}


def strictly(line: str) -> Any:
    """As a reader that knows only the standard's words."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(line, parse_constant=refuse)


@pytest.fixture
def folder(pg_url: str, tmp_path: Path, ct_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two users lately, one of whom sends the largest double twice."""
    monkeypatch.setenv("CT_DATABASE_URL", pg_url)
    definition = worlds.definition(tmp_path / "old", AGGREGATES)
    worlds.definition(tmp_path / "new", AGGREGATES + "  - {name: n, function: count, window: 5m}\n")
    now = round(time.time() * 1e6) - START
    with connect(pg_url, autocommit=True) as conn:
        stream = state.open_stream(conn, "visits", definition.acceptance, worlds.identity())
        writer = Writer(conn, stream, [online.ensure(conn, stream, definition)])
        sent = [(1, 1.5), (2, LARGEST), (1, 2.5), (2, LARGEST)]
        writer.commit(worlds.accepted([Given(who, now - M + i, ratio=x) for i, (who, x) in enumerate(sent)]))
    return tmp_path


def lines(command: Any, *arguments: str) -> list[Any]:
    found = CliRunner().invoke(command, [*arguments, "--json"])
    assert found.exit_code == 0, (found.output, found.exception)
    return [strictly(line) for line in found.stdout.splitlines()]


def test_values_beyond_a_double_are_texts_in_json_and_nobody_else_loses_his(folder: Path) -> None:
    asked = ("get", "--view", "visits", "--entity", "who=1", "--entity", "who=2")
    for more in ((), ("--at", f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}")):
        fine, large = lines(features, *asked, *more)
        assert (fine["sum_x"], fine["avg_x"], fine["var_x"]) == (4.0, 2.0, 0.5)
        assert {name: large[name] for name in INFINITE} == INFINITE


def test_the_check_and_a_deployment_compare_them(folder: Path) -> None:
    (report,) = lines(features, "check", "--view", "visits")
    assert (report["reads"], report["values"], report["mismatches"]) == (2, 10, 0)
    (done,) = lines(deploy, "--definition", str(folder / "new/visits.yaml"))
    assert (done["switched"], done["different"]) == (True, 0)
    (large,) = lines(features, "get", "--view", "visits", "--entity", "who=2")
    assert large["sum_x"] == "Infinity"


def test_files_are_computed_without_a_warning(tmp_path: Path) -> None:
    """Warnings are errors here; a person would see them with paths of the source."""
    worlds.definition(tmp_path, AGGREGATES)
    events = [
        {"id": f"e{i}", "who": 1, "at_time": f"2026-01-01T00:00:0{i}Z", "ratio": x}
        for i, x in enumerate([LARGEST, LARGEST])
    ]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (tmp_path / "q.csv").write_text("who,at\n1,2026-01-01T00:01:00Z\n")
    arguments = ["--definition", tmp_path / "visits.yaml", "--events", tmp_path / "e.jsonl"]
    arguments += ["--queries", tmp_path / "q.csv", "--out", tmp_path / "v.parquet"]
    lines(compute, *map(str, arguments))
    (row,) = pl.read_parquet(tmp_path / "v.parquet").to_dicts()
    assert [row[f"{f}_x"] for f in ("sum", "avg", "var", "std", "max")] == [math.inf] * 4 + [LARGEST]


def test_every_number_without_a_word_in_json_is_a_text() -> None:
    value = {"a": [math.inf, (-math.inf, math.nan)], "b": 1.5, "c": None, "d": {"e": math.inf}, "f": True}
    expected = {"a": ["Infinity", ["-Infinity", "NaN"]], "b": 1.5, "c": None, "d": {"e": "Infinity"}, "f": True}
    assert strictly(json_text(value)) == expected


def test_decimals_have_no_exponent() -> None:
    values = [Decimal("3E-30"), Decimal("1E+3"), Decimal("-0.50"), Decimal("0E-2"), Decimal("NaN")]
    assert json.loads(json_text(values)) == ["0." + "0" * 29 + "3", "1000", "-0.50", "0.00", "NaN"]

"""A byte-order mark and blank lines, to every command that reads JSON lines: no content, and said.

What goes here: that the commands agree. What does not: what else they do with a file.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from ct_assets.adapters.events.log import LogSource
from ct_assets.cli.main import main
from ct_assets_tests.adapters.events.reading import payloads
from ct_assets_tests.adapters.stream import worlds

EVENTS = [f'{{"id": "e{i}", "who": {i % 2}, "at_time": "2026-01-01T00:00:0{i}Z"}}'.encode() for i in range(4)]
CUT = b'{"id": "cut'
SPACED = b" " + EVENTS[2]
MARKED = b"\xef\xbb\xbf" + b"\n".join([EVENTS[0], b"", EVENTS[1], b" \t ", SPACED, CUT, b"\r", EVENTS[3]]) + b"\n\n"
SAID = ["the byte-order mark at the beginning is no content", "4 blank lines are skipped"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    said = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, said.out, said.err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "marked.jsonl"
    path.write_bytes(MARKED)
    return path


@pytest.mark.parametrize("batch", [(), ("--batch-size", "1")])
def test_compute_reads_the_others_under_their_own_numbers(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: tuple[str, ...]
) -> None:
    worlds.definition(tmp_path, "  - {name: n, function: count, window: 5m}\n")
    (tmp_path / "q.csv").write_text("who,at\n0,2026-01-01T00:01:00Z\n1,2026-01-01T00:01:00Z\n")
    arguments = ["--definition", tmp_path / "visits.yaml", "--events", file, "--queries", tmp_path / "q.csv"]
    code, out, err = run(
        capsys, "stream", "compute", *map(str, arguments), "--out", str(tmp_path / "v.parquet"), "--json", *batch
    )
    assert code == 0
    told = json.loads(out)
    assert (told["read"], told["accepted"], told["dead_letters"]) == (5, 4, {"poison": 1})
    assert pl.read_parquet(tmp_path / "v.parquet")["n"].to_list() == [2, 2]
    (letter,) = map(json.loads, (tmp_path / "v.dead-letters.jsonl").read_text().splitlines())
    assert (letter["line"], letter["raw"]) == (6, CUT.decode())
    assert err.splitlines() == [f"{file}: {what}" for what in SAID]


@pytest.mark.parametrize("more", [(), ("--key", "who"), ("--rate", "10000")])
def test_produce_sends_the_others(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, "events", "produce", str(file), "--to", f"log://{tmp_path}/log", "--json", *more)
    assert (code, json.loads(out)["events"]) == (0, 5)
    source = LogSource(tmp_path / "log")
    source.assign({0: 0})
    assert payloads(source.poll(100, 0)) == [EVENTS[0], EVENTS[1], SPACED, CUT, EVENTS[3]]
    source.close()
    assert err.splitlines()[:2] == [f"{file}: {what}" for what in SAID]


def test_produce_names_the_line_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "e.jsonl"
    file.write_bytes(b'\n{"at": "2026-01-01T00:00:00Z"}\n\n{"at": 7}\n')
    code, _, err = run(
        capsys, "events", "produce", str(file), "--to", f"log://{tmp_path}/l", "--append-time-column", "at"
    )
    assert code == 2
    assert "line 4: at is 7" in err


@pytest.mark.parametrize("name", ["marked.jsonl", "marked.txt"])
def test_infer_proposes_from_the_others(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = file.rename(tmp_path / name)
    code, out, err = run(capsys, "contract", "infer", str(path))
    assert code == 0
    assert "4 events read, 1 of the lines are no JSON object." in out
    assert err.splitlines() == [f"{path}: warning: {what}" for what in SAID]


def test_a_file_without_them_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "e.jsonl"
    file.write_bytes(b"\n".join(EVENTS))
    code, out, err = run(capsys, "events", "produce", str(file), "--to", f"log://{tmp_path}/log", "--json")
    assert (code, json.loads(out)["events"]) == (0, 4)
    assert "line" not in err
    assert "mark" not in err

"""`ct stream compute`: files in, files out, errors that name the line."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from ct_assets.cli.main import ct
from ct_assets.errors import CtError, UsageError
from ct_assets_tests.conformance.stream_engines import Case, event, iso, us


def run(case: Case, events: bytes, queries: str, *more: str) -> Result:
    (case.folder / "e.jsonl").write_bytes(events)
    (case.folder / "q.csv").write_text(queries)
    names = [
        "--definition",
        str(case.path),
        "--events",
        str(case.folder / "e.jsonl"),
        "--queries",
        str(case.folder / "q.csv"),
    ]
    return CliRunner().invoke(
        ct, ["stream", "compute", *names, "--out", str(case.folder / "o.parquet"), *more], catch_exceptions=False
    )


def test_rows_stay_in_order_and_other_columns_are_kept(tmp_path: Path) -> None:
    case = Case(tmp_path)
    lines = b"\n".join((m.payload or b"") for m in [event("01:00", 2), event("01:01", 1)])  # the last line is not ended
    asked = [(2, "02:00", "x"), (1, "00:30", "y"), (1, "02:00", "z"), (7, "02:00", "")]
    done = run(case, lines, "note,user_id,at\n" + "".join(f"{n},{u},{iso(us(t))}\n" for u, t, n in asked))
    assert done.exit_code == 0
    found = pl.read_parquet(tmp_path / "o.parquet")
    assert found.columns == ["note", "user_id", "at", "n"]
    assert found["n"].to_list() == [1, 0, 1, 0]
    assert found["note"].to_list() == ["x", "y", "z", ""]
    assert (tmp_path / "o.dead-letters.jsonl").read_text() == ""
    assert not list(tmp_path.glob("*.part"))


def test_dead_letters_are_written_with_line_reason_and_raw(tmp_path: Path) -> None:
    raws = [b"\xff\xfe", b'{"event_id": "cut', event("01:00").payload or b"", b"[]"]
    done = run(
        Case(tmp_path), b"\n".join(raws) + b"\n", "user_id,at\n", "--dead-letters", str(tmp_path / "d.jsonl"), "--json"
    )
    letters: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [(x["line"], x["reason"]) for x in letters] == [(1, "poison"), (2, "poison"), (4, "poison")]
    assert letters[0]["raw_base64"] is True
    assert base64.b64decode(letters[0]["raw"]) == raws[0]
    assert letters[1]["raw"] == raws[1].decode()
    told = json.loads(done.stdout)
    assert (told["read"], told["accepted"], told["duplicates"], told["dead_letters"], told["queries"]) == (
        4,
        1,
        0,
        {"poison": 3},
        0,
    )


def test_a_file_of_which_nothing_counts_is_an_exit_1(tmp_path: Path) -> None:
    done = run(Case(tmp_path), b"{}\nno\n", "user_id,at\n1,2026-01-01T00:00:00Z\n")
    assert done.exit_code == 1
    assert "no event of 2 was accepted" in done.stderr
    assert "1 null_key, 1 poison" in done.stdout
    assert len((tmp_path / "o.dead-letters.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["o.csv", "o.JSON", "o.jsonl", "o.tsv", "o.xlsx"])
def test_parquet_is_not_written_under_the_name_of_something_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--out .*{name} would be Parquet\n.*o.parquet"):
        run(Case(tmp_path), b"", "user_id,at\n", "--out", str(tmp_path / name))
    assert not (tmp_path / name).exists()


def test_no_events_at_all(tmp_path: Path) -> None:
    assert run(Case(tmp_path), b"", "user_id,at\n1,2026-01-01T00:00:00Z\n").exit_code == 0
    assert pl.read_parquet(tmp_path / "o.parquet")["n"].to_list() == [0]


@pytest.mark.parametrize(
    ("queries", "told"),
    [
        ("user,at\n", "no column 'user_id'"),
        ("user_id,at,n\n", "q.csv:1: the column 'n' is named as an aggregate is"),
        ("user_id,at\n1,2026-01-01T00:00:00Z\n1,2026-01-01T00:00:00\n", "q.csv:3: at: "),
        ("user_id,at\nx,2026-01-01T00:00:00Z\n", "q.csv:2: user_id is 'x'"),
    ],
)
def test_errors_name_the_line(queries: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(CtError) as caught:
        run(Case(tmp_path), b"", queries)
    assert told in str(caught.value)
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({"--out": "e.jsonl"}, "--out e.jsonl is --events as well"),
        ({"--out": "q.csv"}, "--out q.csv is --queries as well"),
        ({"--out": "cases.yaml"}, "--out cases.yaml is --definition as well"),
        ({"--out": "cases.odcs.yaml"}, "--out cases.odcs.yaml is the contract as well"),
        ({"--out": "sub/../e.jsonl"}, "is --events as well"),
        ({"--out": "link.jsonl"}, "--out link.jsonl is --events as well"),
        ({"--out": "o.parquet", "--dead-letters": "e.jsonl"}, "--dead-letters e.jsonl is --events as well"),
        ({"--out": "o.parquet", "--dead-letters": "o.parquet"}, "--dead-letters o.parquet is --out as well"),
        ({"--out": "e.parquet"}, "--dead-letters e.dead-letters.jsonl is --queries as well"),
    ],
)
def test_an_output_is_never_an_input(
    outputs: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Case(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("e.jsonl").write_bytes((event("01:00").payload or b"") + b"\n")
    Path("link.jsonl").symlink_to("e.jsonl")
    queries = "e.dead-letters.jsonl" if outputs["--out"] == "e.parquet" else "q.csv"
    Path(queries).write_text("user_id,at\n")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    words = ["--definition", "cases.yaml", "--events", "e.jsonl", "--queries", queries]
    words += [word for option in outputs.items() for word in option]
    done = CliRunner().invoke(ct, ["stream", "compute", *words])
    assert isinstance(done.exception, CtError)
    assert (done.exception.exit_code, told in str(done.exception)) == (2, True), done.exception
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ct_assets.cli import stream_compute

    monkeypatch.setattr(stream_compute, "CHUNK_BYTES", 100)
    sent = [event(us("00:00") + n, 1) for n in range(300)]
    done = run(
        Case(tmp_path), b"".join((m.payload or b"") + b"\n" for m in sent), f"user_id,at\n1,{iso(us('01:00'))}\n"
    )
    assert done.exit_code == 0
    assert pl.read_parquet(tmp_path / "o.parquet")["n"].to_list() == [300]

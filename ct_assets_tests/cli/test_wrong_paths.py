"""Paths that cannot be read or written: an error line with the path, what was expected and what to do, and exit 2.

What goes here: every command that makes a folder or a file where it is told to. What does not: formats of the files.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.cli.main import main
from ct_assets_tests.adapters.stream import worlds

FOLDER, WRITTEN = "a folder, or a place to make one", "a path in a folder that can be written to"
COMPUTE = "stream compute --definition D/visits.yaml --events D/e.jsonl --queries D/q.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file called FILE, and what the commands read."""
    worlds.definition(tmp_path, "  - {name: n, function: count, window: 5m}\n")
    (tmp_path / "FILE").touch()
    (tmp_path / "e.jsonl").write_text('{"id": "a", "who": 1, "at_time": "2026-01-01T00:00:00Z"}\n')
    (tmp_path / "q.csv").write_text("who,at\n1,2026-01-01T00:01:00Z\n")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What stderr says of wrong usage."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    return said.err


# below /proc nobody can make anything, root neither
@pytest.mark.parametrize(
    ("command", "option", "path", "expected"),
    [
        ("events produce D/e.jsonl --to log://PATH", "log://", "D/FILE", FOLDER),
        ("events produce D/e.jsonl --to log://PATH", "log://", "D/FILE/in", FOLDER),
        ("events produce D/e.jsonl --to log://PATH", "log://", "/proc/no/log", FOLDER),
        ("sample events --users 5 --hours 0.1 --to log://PATH", "log://", "D/FILE", FOLDER),
        ("sample events --users 5 --hours 0.1 --out PATH", "--out", "D/FILE/in", FOLDER),
        ("sample sales --days 3 --out PATH", "--out", "/proc/no/days", FOLDER),
        (f"{COMPUTE} --out PATH", "--out", "D/FILE/v.parquet", WRITTEN),
        (f"{COMPUTE} --out PATH --dead-letters D/d.jsonl", "--out", "/proc/no/v.parquet", WRITTEN),
        (f"{COMPUTE} --out D/v.parquet --dead-letters PATH", "--dead-letters", "D/FILE/d.jsonl", WRITTEN),
        ("contract infer D/e.jsonl --out PATH", "--out", "D/FILE/c.yaml", WRITTEN),
        ("contract infer D/e.jsonl --out PATH", "--out", "/proc/no/c.yaml", WRITTEN),
        ("verdict --contract D/c.odcs.yaml D/q.csv --out PATH", "--out", "D/FILE/judged", FOLDER),
    ],
)
def test_a_path_that_cannot_be_written_is_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, option: str, path: str, expected: str
) -> None:
    place = path.replace("D/", f"{folder}/")
    given = [word.replace("D/", f"{folder}/").replace("PATH", place) for word in command.split(" ")]
    first, second = refused(capsys, *given).splitlines()[-2:]
    assert first.startswith(f"error: {option} {place}"), first
    assert first.endswith(f"; expected {expected}")
    assert second == "  give another path, or make this one such"
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_source_that_is_a_file_is_wrong_usage(
    folder: Path,
    pg_url: str,
    ct_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setenv("CT_DATABASE_URL", pg_url)
    more = ["--until-idle"] if command == "run" else []
    source = f"log://{folder / 'FILE'}"
    said = refused(capsys, "stream", command, "--definition", str(folder / "visits.yaml"), "--source", source, *more)
    assert f"error: log:// {folder / 'FILE'}: not a directory" in said
    assert "expected the folder of a log" in said

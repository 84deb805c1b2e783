"""`ct events produce` as a person types it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ct_assets.adapters.events.log import LogSource, create_log
from ct_assets.cli.main import main
from ct_assets_tests.adapters.events.reading import payloads

LINES = [
    b'{"user_id": 1, "n": 1, "at": "2026-01-01T00:00:00.000001+00:00"}',
    b"this is no JSON",
    b'{"user_id": "caf\xc3\xa9", "n": 2, "at": "2026-01-01T01:00:00+01:00"}',
    b'{"user_id": 1, "n": 3, "at": "2026-01-01T00:00:01+00:00"}',
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as end:
        main(["events", "produce", *arguments])
    said = capsys.readouterr()
    code = end.value.code
    assert isinstance(code, int)
    return code, said.out, said.err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([*LINES[:2], b"", *LINES[2:]]) + b"\r\n")
    return path


def test_every_line_arrives_byte_for_byte_in_order(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, str(file), "--to", f"log://{tmp_path}/log", "--json")
    assert code == 0
    assert json.loads(out) == {"file": str(file), "to": f"log://{tmp_path}/log", "events": 4, "partitions": 1}
    source = LogSource(tmp_path / "log")
    source.assign({0: 0})
    assert payloads(source.poll(100, 0)) == LINES  # the blank line is none
    source.close()


def test_a_key_keeps_its_events_together(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, str(file), "--to", f"log://{tmp_path}/log", "--partitions", "8", "--key", "user_id")[0] == 0
    source = LogSource(tmp_path / "log")
    source.assign(dict.fromkeys(range(8), 0))
    messages = source.poll(100, 0)
    source.close()
    home = {value: int(p) for value, p in zip(payloads(messages), messages.partition, strict=True)}
    assert set(home) == {*LINES}
    assert home[LINES[0]] == home[LINES[3]]


def test_a_column_may_say_when_it_arrived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "good.jsonl"
    path.write_bytes(b"\n".join([LINES[0], *LINES[2:]]) + b"\n")
    assert run(capsys, str(path), "--to", f"log://{tmp_path}/log", "--append-time-column", "at")[0] == 0
    source = LogSource(tmp_path / "log")
    source.assign({0: 0})
    assert source.poll(9, 0).append_time.tolist() == [1767225600_000001, 1767225600_000000, 1767225601_000000]
    source.close()


def test_rate_spreads_the_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "many.jsonl"
    path.write_bytes(b"{}\n" * 60)
    began = time.monotonic()
    assert run(capsys, str(path), "--to", f"log://{tmp_path}/log", "--rate", "200")[0] == 0
    assert time.monotonic() - began >= 0.3  # a lower bound: 60 events at 200 a second cannot be faster
    source = LogSource(tmp_path / "log")
    source.assign({0: 0})
    times = source.poll(100, 0).append_time
    source.close()
    assert len(times) == 60
    assert len(set(times.tolist())) == 6  # ten at a time


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "kafak://h:1/t"], "did you mean 'kafka'"),
        (["--to", "kafka://h/t"], "incomplete address"),
        (["--to", "kafka://me:secret@h:1/t"], "CT_KAFKA_SASL_PASSWORD"),
        (["--to", "kafka://h:1/t", "--append-time-column", "at"], "log:// alone"),
        (["--to", "log://LOG", "--append-time-column", "at"], "line 2: at is None"),
        (["--to", "log://LOG", "--key", "user"], "['at', 'n', 'user_id']"),
        (["--to", "log://LOG", "--partitions", "5"], "has 2 partitions, not 5"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_to_do(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    create_log(tmp_path / "log", 2)
    typed = [a.replace("LOG", str(tmp_path / "log")) for a in arguments]
    code, out, err = run(capsys, str(file), *typed)
    assert (code, out) == (2, "")
    assert says in err
    assert "secret" not in err

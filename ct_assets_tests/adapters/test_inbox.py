"""What lies in an inbox is taken in when it is complete, and only then (F05), by this machine's own clock (F38)."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ct_assets.adapters.clock import FixedClock
from ct_assets.adapters.inbox import inbox_folder, scan
from ct_assets.settings import Settings

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def inbox(settings: Settings) -> Path:
    return inbox_folder(settings, "sales")


def _names(found) -> list[str]:
    return [delivered.name for delivered in found.taken]


@pytest.mark.fault("F05")
def test_f05_a_growing_file_waits_until_it_is_steady(settings: Settings, inbox: Path, clock: FixedClock) -> None:
    path = inbox / "2011-01-04.csv"
    for part in ("a", "b", "c"):
        with path.open("a") as writer:
            writer.write(part)
        found = scan(settings, "sales", clock=clock)
        assert _names(found) == []
        assert "steady" in found.waiting["2011-01-04.csv"]
        clock.sleep(settings.quiet_seconds - 0.1)
    clock.sleep(0.2)
    assert _names(scan(settings, "sales", clock=clock)) == ["2011-01-04.csv"]
    assert _names(scan(settings, "sales", clock=clock)) == []
    assert path.read_text() == "abc"


@pytest.mark.fault("F38")
@pytest.mark.parametrize("age", [-86_400, 86_400 * 400])
def test_f38_times_of_another_clock_do_not_make_a_file_look_complete(
    settings: Settings, inbox: Path, clock: FixedClock, age: int
) -> None:
    """A copy that keeps old times, or a file server ahead of us: only what we saw ourselves counts."""
    path = inbox / "2011-01-04.csv"
    path.write_text("half")
    stamp = NOW.timestamp() - age
    os.utime(path, (stamp, stamp))
    assert _names(scan(settings, "sales", clock=clock)) == []
    with path.open("a") as writer:
        writer.write(" and more")
    os.utime(path, (stamp, stamp))
    clock.sleep(settings.quiet_seconds + 1)
    assert _names(scan(settings, "sales", clock=clock)) == []
    clock.sleep(settings.quiet_seconds + 1)
    assert _names(scan(settings, "sales", clock=clock)) == ["2011-01-04.csv"]


@pytest.mark.fault("F38")
def test_f38_a_clock_that_steps_back_starts_the_wait_again(settings: Settings, inbox: Path, clock: FixedClock) -> None:
    (inbox / "2011-01-04.csv").write_text("x")
    scan(settings, "sales", clock=clock)
    clock.sleep(-3600)
    assert _names(scan(settings, "sales", clock=clock)) == []
    clock.sleep(settings.quiet_seconds)
    assert _names(scan(settings, "sales", clock=clock)) == ["2011-01-04.csv"]


def _manifest(path: Path, **says: object) -> None:
    path.with_name(path.name + ".manifest.json").write_text(json.dumps(says))


@pytest.mark.fault("F05")
@pytest.mark.parametrize(
    ("says", "complete"),
    [
        ({"rows": 2}, True),
        ({"rows": 3}, False),
        ({"size": 30}, True),
        ({"size": 31}, False),
        ({"sha256": hashlib.sha256(b'a,b\n1,"x\ny"\n2,"he said ""no"""').hexdigest()}, True),
        ({"sha256": "0" * 64}, False),
        ({"rows": 2, "size": 1}, False),
        ({}, False),
        ({"row": 2}, False),
    ],
)
def test_f05_short_of_its_manifest(
    settings: Settings, inbox: Path, clock: FixedClock, says: dict[str, object], complete: bool
) -> None:
    """The file has two records (one with a line break inside quotes) and no final newline."""
    path = inbox / "2011-01-04.csv"
    path.write_bytes(b'a,b\n1,"x\ny"\n2,"he said ""no"""')
    _manifest(path, **says)
    found = scan(settings, "sales", clock=clock)
    assert _names(found) == (["2011-01-04.csv"] if complete else [])
    clock.sleep(10 * settings.quiet_seconds)
    assert _names(scan(settings, "sales", clock=clock)) == []
    assert ("2011-01-04.csv" in found.waiting) != complete


def test_a_manifest_still_being_written(settings: Settings, inbox: Path, clock: FixedClock) -> None:
    path = inbox / "2011-01-04.csv"
    path.write_text("x")
    path.with_name(path.name + ".manifest.json").write_text('{"rows": ')
    assert "not (yet) a JSON object" in scan(settings, "sales", clock=clock).waiting["2011-01-04.csv"]


def test_a_marker_needs_no_wait(settings: Settings, inbox: Path, clock: FixedClock) -> None:
    (inbox / "2011-01-04.csv").write_text("x")
    (inbox / "2011-01-04.csv.done").touch()
    assert _names(scan(settings, "sales", clock=clock)) == ["2011-01-04.csv"]


def test_waiting_once(settings: Settings, inbox: Path, clock: FixedClock) -> None:
    (inbox / "2011-01-04.csv").write_text("x")
    assert _names(scan(settings, "sales", clock=clock, wait=True)) == ["2011-01-04.csv"]
    assert clock.at == NOW + dt.timedelta(seconds=settings.quiet_seconds)


@pytest.mark.fault("F25")
def test_f25_only_files_of_the_inbox_itself(settings: Settings, inbox: Path, clock: FixedClock, tmp_path: Path) -> None:
    outside = tmp_path / "secret.csv"
    outside.write_text("secret")
    (inbox / "2011-01-05.csv").symlink_to(outside)
    (inbox / "2011-01-06").mkdir()
    for name in (".hidden.csv", "2011-01-07.csv.part", "2011-01-08.csv.tmp"):
        (inbox / name).write_text("x")
    quick = replace(settings, quiet_seconds=0.0)
    found = scan(quick, "sales", clock=clock)
    assert _names(found) == []
    assert found.waiting == {}
    assert found.refused == {
        "2011-01-05.csv": "a symbolic link: only files that lie in the inbox itself are read",
        "2011-01-06": "not a regular file",
    }


@pytest.mark.fault("F40")
def test_f40_a_lost_memory_takes_nothing_twice(settings: Settings, inbox: Path, clock: FixedClock) -> None:
    """The ledger, not the memory of earlier looks, decides what is new."""
    (inbox / "2011-01-04.csv").write_text("x")
    quick = replace(settings, quiet_seconds=0.0)
    first = scan(quick, "sales", clock=clock)
    memory = inbox.parent / ".seen.json"
    assert memory.exists()
    memory.unlink()
    second = scan(quick, "sales", clock=clock)
    memory.write_text("{ torn")
    third = scan(quick, "sales", clock=clock)
    assert [[d.new for d in found.taken] for found in (first, second, third)] == [[True], [False], [False]]

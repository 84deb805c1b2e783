"""Taking files in: copied whole, in order, once, by digest; nothing that is no plain file."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from pathlib import Path

import pytest

from ct_assets.adapters import landing, ledger
from ct_assets.adapters.doctor import examine
from ct_assets.adapters.landing import NotDelivered, business_day, deliver
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.storage import open_storage
from ct_assets.settings import Settings


def _write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def _pending(settings: Settings) -> list[tuple[str, str]]:
    assert settings.ledger_url is not None
    with connect(settings.ledger_url) as conn:
        return [(d.name, d.sha256) for d in landing.pending(conn, "sales")]


def test_order_is_the_order_given_and_the_source_stays(settings: Settings, tmp_path: Path) -> None:
    files = [_write(tmp_path, f"2011-01-0{i}.csv", f"day {i}") for i in (3, 1, 2)]
    got = deliver(settings, "sales", files)
    assert [d.name for d in got] == ["2011-01-03.csv", "2011-01-01.csv", "2011-01-02.csv"]
    assert [name for name, _ in _pending(settings)] == [d.name for d in got]
    storage = open_storage(settings)
    for path, delivered in zip(files, got, strict=True):
        assert path.exists()
        assert storage.get(ledger.raw_key(delivered.sha256)) == path.read_bytes()
        assert delivered.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert delivered.day == dt.date.fromisoformat(path.stem)


def test_a_path_may_come_twice(settings: Settings, tmp_path: Path) -> None:
    path = _write(tmp_path, "2011-01-04.csv", "x")
    first, second = deliver(settings, "sales", [path, path])
    assert (first.new, second.new) == (True, False)
    assert first.delivery_id == second.delivery_id
    assert len(_pending(settings)) == 1


def test_the_same_path_with_other_bytes_is_another_delivery(settings: Settings, tmp_path: Path) -> None:
    path = _write(tmp_path, "2011-01-04.csv", "x")
    deliver(settings, "sales", [path])
    path.write_text("y")
    assert deliver(settings, "sales", [path])[0].new
    assert len(_pending(settings)) == 2


def test_the_same_bytes_for_another_day_or_pipeline_are_another_delivery(settings: Settings, tmp_path: Path) -> None:
    one, two = _write(tmp_path, "2011-01-04.csv", "x"), _write(tmp_path, "2011-01-05.csv", "x")
    assert [d.new for d in deliver(settings, "sales", [one, two])] == [True, True]
    assert deliver(settings, "other", [one])[0].new


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("2011-01-04.csv", dt.date(2011, 1, 4)),
        ("2011-01-04_corrected.csv", dt.date(2011, 1, 4)),
        ("2011-01-041.csv", None),
        ("2011-02-30.csv", None),
        ("sales-2011-01-04.csv", None),
        ("20110104.csv", None),
    ],
)
def test_business_day(name: str, day: dt.date | None) -> None:
    assert business_day(name) == day


@pytest.mark.fault("F25")
def test_f25_symlinks_folders_pipes_and_odd_names_are_refused(settings: Settings, tmp_path: Path) -> None:
    real = _write(tmp_path, "2011-01-04.csv", "x")
    link = tmp_path / "2011-01-05.csv"
    link.symlink_to(real)
    pipe = tmp_path / "2011-01-06.csv"
    os.mkfifo(pipe)
    for path, says in (
        (link, "is a symbolic link"),
        (tmp_path, "is not a regular file"),
        (pipe, "is not a regular file"),
        (tmp_path / "absent.csv", "cannot read"),
        (_write(tmp_path, "a\nb.csv", "x"), "is not a name for a delivery"),
        (_write(tmp_path, ".hidden", "x"), "is not a name for a delivery"),
        (_write(tmp_path, os.fsdecode(b"\xff.csv"), "x"), "is not a name for a delivery"),
        (tmp_path / "..", "is not a name for a delivery"),
    ):
        with pytest.raises(NotDelivered, match=says):
            deliver(settings, "sales", [path])
    assert _pending(settings) == []
    assert list(open_storage(settings).list()) == []


def test_those_before_a_wrong_path_are_delivered(settings: Settings, tmp_path: Path) -> None:
    good = _write(tmp_path, "2011-01-04.csv", "x")
    with pytest.raises(NotDelivered):
        deliver(settings, "sales", [good, tmp_path / "absent.csv", _write(tmp_path, "2011-01-05.csv", "y")])
    assert [name for name, _ in _pending(settings)] == ["2011-01-04.csv"]


@pytest.mark.fault("F05")
def test_f05_a_file_that_grows_while_it_is_copied_is_not_delivered(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, "2011-01-04.csv", "half")
    store = open_storage(settings)
    fired = []

    class Growing(type(store)):  # pyright: ignore[reportGeneralTypeIssues]
        def put(self, key, data) -> None:
            with path.open("a") as writer:
                writer.write(" and the rest")
            fired.append(key)
            super().put(key, data)

    monkeypatch.setattr(landing, "open_storage", lambda _: Growing(store.root))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(NotDelivered, match="changed while it was being copied"):
        deliver(settings, "sales", [path])
    assert len(fired) == 1
    assert _pending(settings) == []
    monkeypatch.undo()
    assert deliver(settings, "sales", [path])[0].new


@pytest.mark.parametrize("damage", [b"y", None])
def test_bytes_delivered_again_repair_what_is_stored(settings: Settings, tmp_path: Path, damage: bytes | None) -> None:
    path = _write(tmp_path, "2011-01-04.csv", "x")
    first = deliver(settings, "sales", [path])[0]
    storage, key = open_storage(settings), ledger.raw_key(first.sha256)
    storage.put(key, damage) if damage else storage.delete(key)
    again, third = deliver(settings, "sales", [path, path])
    assert storage.get(key) == b"x"
    assert [(d.new, d.repaired) for d in (first, again, third)] == [(True, False), (False, True), (False, False)]


def test_a_sample_of_what_is_stored_is_read_again(settings: Settings, tmp_path: Path) -> None:
    files = [_write(tmp_path, f"2011-01-0{i}.csv", f"day {i}") for i in range(1, 6)]
    got = deliver(settings, "sales", files)
    storage = open_storage(settings)
    assert settings.ledger_url is not None
    with connect(settings.ledger_url) as conn:
        assert landing.damaged(conn, storage, objects=10, total_bytes=100) == (5, [])
        storage.put(ledger.raw_key(got[1].sha256), b"day 9")
        storage.delete(ledger.raw_key(got[3].sha256))
        wrong = [("sales", "2011-01-02.csv"), ("sales", "2011-01-04.csv")]
        assert landing.damaged(conn, storage, objects=10, total_bytes=100) == (5, wrong)
        assert landing.damaged(conn, storage, objects=2, total_bytes=100)[0] == 2
        assert landing.damaged(conn, storage, objects=10, total_bytes=12)[0] == 2, "each file has 5 bytes"
    finding = next(f for f in examine(settings) if f.check == "raw")
    assert (finding.state, finding.message) == (
        "fail",
        "2 of 5 stored deliveries are damaged or gone: sales 2011-01-02.csv, sales 2011-01-04.csv",
    )
    deliver(settings, "sales", files)
    assert next(f.state for f in examine(settings) if f.check == "raw") == "ok"

"""Damaged and foreign database folders are refused in words, and nothing in them is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets.adapters.postgres.server import Server
from ct_assets.adapters.postgres.soundness import CONTROL_BYTES, MAJOR, UnsoundFolder, sound_data, usable_home


def folder(tmp_path: Path, version: str | None = MAJOR, control: int | None = CONTROL_BYTES) -> Path:
    data = tmp_path / "data"
    (data / "global").mkdir(parents=True)
    if version is not None:
        (data / "PG_VERSION").write_text(f"{version}\n")
    if control is not None:
        (data / "global" / "pg_control").write_bytes(bytes(control))
    return data


def test_absent_empty_and_whole_folders_are_sound(tmp_path: Path):
    sound_data(tmp_path / "absent")
    sound_data(tmp_path)
    data = folder(tmp_path)
    sound_data(data)
    assert (data / "PG_VERSION").read_text() == "18\n"


@pytest.mark.parametrize(
    ("version", "control", "said"),
    [
        (None, CONTROL_BYTES, "is damaged: it has no file PG_VERSION; nothing was changed"),
        ("17", CONTROL_BYTES, "was made by PostgreSQL 17, this installation brings 18"),
        ("", CONTROL_BYTES, "was made by PostgreSQL (empty PG_VERSION), this installation brings 18"),
        (MAJOR, 100, "has a global/pg_control of 100 bytes, expected 8192"),
        (MAJOR, None, "has a global/pg_control of 0 bytes, expected 8192"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, version: str | None, control: int | None, said: str):
    data = folder(tmp_path, version, control)
    before = sorted(path.relative_to(data) for path in data.rglob("*"))
    with pytest.raises(UnsoundFolder) as refused:
        sound_data(data)
    assert said in refused.value.message
    assert refused.value.hint
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == before


def test_a_server_refuses_a_damaged_folder_before_it_starts_anything(tmp_path: Path):
    base = tmp_path / "postgres"
    base.mkdir()
    folder(base, version=None)
    (tmp_path / "postgres.location").write_text(f"{base}\n")
    with pytest.raises(UnsoundFolder, match="has no file PG_VERSION"):
        Server(tmp_path).ensure()
    assert not (base / "server.log").exists()
    assert list(base.glob("data.new-*")) == []


def test_a_home_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsoundFolder, match="is no folder") as refused:
        usable_home(tmp_path / "file" / "home")
    assert str(tmp_path / "file") in refused.value.message
    assert usable_home(tmp_path / "new" / "home") == tmp_path / "new" / "home"

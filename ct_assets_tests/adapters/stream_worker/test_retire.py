"""Retiring versions: not one that a champion reads, also one whose build was ended; what status and reads say meanwhile.

Why the lock of a build is held by the test: whoever builds holds it, and it goes with the process.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters import champion
from ct_assets.adapters.artefacts import Artefact
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import deployment, state, versions
from ct_assets.adapters.stream.registration import open_versions
from ct_assets.streaming.definition import load_definition
from ct_assets_tests.adapters.stream_worker.test_after_retention import counted, defined, read
from ct_assets_tests.adapters.stream_worker.test_lost_unread import send
from ct_assets_tests.adapters.stream_worker.test_moved_topic import ct
from ct_assets_tests.adapters.stream_worker.world import World


@pytest.fixture
def shop(world: World, tmp_path: Path) -> tuple[World, list[tuple[int, int]]]:
    """``visits`` over a window of one hour answers; its events."""
    world.definition = defined(tmp_path, "visits", "1h")
    sent = send(world, "a")
    assert world.run("--until-idle").returncode == 0
    return world, [*sent[0], *sent[1]]


def promoted(world: World, run_id: str, hash_: str) -> int:
    """A version of a model that was trained with that version of the definition leads; its number."""
    provenance = champion.Provenance(dt.date(2026, 1, 1), None, "r", "d", "c", "v", 1)
    recipe = {"trainer": "t", "definition": {"name": "visits", "hash": hash_}}
    with connect(world.url) as conn:
        number = champion.register(
            conn, champion.Candidate("shop/model", run_id, provenance, Artefact("k", "0" * 64), recipe)
        )
        leads = champion.champion(conn, "shop/model")
        champion.move(conn, champion.Move("shop/model", number, leads and leads.generation, "test", "it leads"))
    return number


def test_a_version_that_a_champion_reads_stays(shop: tuple[World, list[tuple[int, int]]], tmp_path: Path) -> None:
    world, events = shop
    old = load_definition(world.definition).hash
    promoted(world, "first", old)
    new = defined(tmp_path, "visits", "2h")
    assert ct(world, "deploy", "--definition", str(new))["switched"] is True
    words = ("retire", "--view", "visits", "--version", old[:12])
    planned = ct(world, *words)
    assert planned["champions"] == [{"model": "shop/model", "version": 1}]
    assert planned["retired"] is False
    refused = ct(world, *words, "--yes", code=1)["said"]
    assert f"version 1 of shop/model leads and reads version {old[:12]} of visits" in refused
    assert "ct run --pipeline" in refused
    counted(events, read(world, "visits", "--version", old[:12]), 1 / 24)

    promoted(world, "second", load_definition(new).hash)
    assert ct(world, *words)["champions"] == []
    assert ct(world, *words, "--yes")["retired"] is True
    counted(events, read(world, "visits"), 2 / 24)
    again = ct(world, *words, code=2)["said"]
    assert "no online table 'visits' of version" in again


def test_a_champion_s_version_that_is_there_over_another_topic_may_go(
    shop: tuple[World, object], tmp_path: Path
) -> None:
    world, _ = shop
    hash_ = load_definition(world.definition).hash
    promoted(world, "first", hash_)
    world.folder = tmp_path / "other"
    send(world, "b")
    move = ("--definition", str(world.definition), "--source", world.source)
    ct(world, "deploy", *move)
    assert ct(world, "deploy", *move, "--yes")["switched"] is True
    retired = ct(world, "retire", "--view", "visits", "--version", hash_[:12], "--yes")
    assert (retired["champions"], retired["retired"]) == ([], True)


def unfinished(world: World, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A first build that ends in its middle, as a killed worker leaves it; the version's hash."""

    def dies(*_: object) -> None:
        raise OSError("killed")

    definition = load_definition(path)
    with connect(world.url, autocommit=True) as conn, monkeypatch.context() as patch:
        patch.setattr(deployment, "_version", dies)
        stream = state.find_stream(conn, 1)
        from ct_assets.adapters.events.port import SourceIdentity

        identity = SourceIdentity(stream.source_kind, stream.cluster_id, stream.topic, stream.topic_id, True)
        with pytest.raises(OSError, match="killed"):
            open_versions(conn, [definition], identity)
    return definition.hash


def standing(world: World) -> dict[str, str]:
    return {d["name"]: d["state"] for d in ct(world, "status")["definitions"]}


def asked(world: World) -> str:
    command = [sys.executable, "-m", "ct_assets.cli", "features", "get", "--view", "second", "--entity", "who=1"]
    done = subprocess.run(command, env=world.environ(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    return done.stderr


def test_a_build_that_was_ended_is_called_so_and_can_be_retired(
    shop: tuple[World, list[tuple[int, int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online_url: str | None
) -> None:
    world, events = shop
    path = defined(tmp_path, "second", "30m")
    hash_ = unfinished(world, path, monkeypatch)
    words = ("retire", "--view", "second", "--version", hash_[:12])
    with connect(world.url, autocommit=True) as builder:
        builder.execute("select pg_advisory_lock(%s, hashtext('second'))", (versions.BUILD_LOCK,))
        assert standing(world) == {"visits": "ready", "second": "building"}
        assert "second is being built" in asked(world)
        assert "is being built now" in ct(world, *words, "--yes", code=2)["said"]
    assert standing(world) == {"visits": "ready", "second": "abandoned"}
    said = asked(world)
    assert "was not built to its end" in said
    assert f"ct stream retire --view second --version {hash_[:12]} --yes" in said
    assert "did you mean" not in said
    assert ct(world, *words)["retired"] is False
    assert ct(world, *words, "--yes")["retired"] is True
    assert standing(world) == {"visits": "ready"}
    with connect(world.url) as conn:
        assert tables(conn) == 1
    world.definition = path
    unfinished(world, path, monkeypatch)
    assert world.run("--until-idle").returncode == 0, "begun again"
    assert standing(world) == {"visits": "ready", "second": "ready"}
    counted(events, read(world, "second"), 1 / 48)


def test_a_deployment_holds_the_lock_of_a_build(
    shop: tuple[World, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be called abandoned, or its table dropped by another one, while it is built."""
    from click.testing import CliRunner

    from ct_assets.cli.stream_deploy import deploy

    world, _ = shop
    for name, value in (("CT_HOME", str(world.home)), ("CT_DATABASE_URL", world.url)):
        monkeypatch.setenv(name, value)
    seen: list[bool] = []
    fold = deployment._fold

    def looks(conn: psycopg.Connection, *more: object) -> int:
        with connect(world.url, autocommit=True) as other:
            seen.append(versions.is_being_built(other, "visits"))
        return fold(conn, *more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(deployment, "_fold", looks)
    done = CliRunner().invoke(deploy, ["--definition", str(defined(tmp_path, "visits", "2h"))])
    assert done.exit_code == 0, done.output
    assert seen == [True, True]
    with connect(world.url, autocommit=True) as other:
        assert not versions.is_being_built(other, "visits")


def tables(conn: psycopg.Connection) -> int:
    row = conn.execute("select count(*) from pg_tables where schemaname = 'online'").fetchone()
    assert row is not None
    return row[0]

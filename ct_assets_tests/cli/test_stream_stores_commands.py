"""`ct features get`, `ct stream plan|deploy` and `ct dead-letter` as a person runs them.

Why the answers are compared as JSON: scripts read stdout, and every line of it must be one value.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import deployment, online, state, versions
from ct_assets.adapters.stream.redis_sync import Twin
from ct_assets.cli.dead_letter import dead_letter
from ct_assets.cli.features import features
from ct_assets.cli.stream_deploy import deploy, plan, readable
from ct_assets.cli.stream_retire import retire
from ct_assets.cli.stream_status import status
from ct_assets.cli.stream_sync import sync
from ct_assets.errors import CtError
from ct_assets.streaming.aggregates import RESERVED
from ct_assets.streaming.definition import load_definition
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.worlds import START, Given, M, Writer

OLD = "  - {name: n, function: count, window: 5m}\n  - {name: s, function: sum, column: paid, window: 1h}\n"
NEW = "  - {name: n, function: count, window: 10m}\n  - {name: s, function: sum, column: paid, window: 1h}\n"


@pytest.fixture(params=["postgresql", "redis"])
def folder(
    request: pytest.FixtureRequest, pg_url: str, tmp_path: Path, ct_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Definitions `old` (running, with three events of user 1 lately) and `new`; each online store in turn."""
    monkeypatch.setenv("CT_DATABASE_URL", pg_url)
    definition = worlds.definition(tmp_path / "old", OLD)
    worlds.definition(tmp_path / "new", NEW)
    now = round(time.time() * 1e6) - START
    with connect(pg_url, autocommit=True) as conn:
        stream = state.open_stream(conn, "visits", definition.acceptance, worlds.identity())
        writer = Writer(conn, stream, [online.ensure(conn, stream, definition)])
        dead = [state.DeadLetterRow(0, 9, "poison", "no JSON", definition.acceptance.contract_digest, b"{", None)]
        events = [
            Given(1, now - 7 * M, paid=Decimal("2.50")),
            Given(1, now - M, paid=Decimal("0.25")),
            Given(1, now - M // 2),
        ]
        if request.param == "redis":
            url = request.getfixturevalue("redis_url")
            monkeypatch.setenv("CT_ONLINE_URL", url)
            writer.twin = Twin.opened(url, stream)
        writer.commit(worlds.accepted(events), dead=dead)
    return tmp_path


def run(command: click.Command, *arguments: str, code: int = 0) -> Result:
    found = CliRunner().invoke(command, list(arguments))
    assert found.exit_code == code, (found.output, found.exception)
    return found


def as_json(command: click.Command, *arguments: str, code: int = 0) -> list[Any]:
    return [json.loads(line) for line in run(command, *arguments, "--json", code=code).stdout.splitlines()]


def test_features_now_then_and_as_known(folder: Path) -> None:
    values, unknown = as_json(features, "get", "--view", "visits", "--entity", "who=1", "--entity", "who=2")
    assert (values["who"], values["n"], values["s"]) == (1, 2, "2.75")
    assert (unknown["who"], unknown["n"], unknown["s"]) == (2, 0, "0.00")
    assert values["watermark"].startswith("20")
    (then,) = as_json(features, "get", "--view", "visits", "--entity", "who=1", "--at", "2026-01-01T00:00:00Z")
    assert (then["n"], then["at"][:19]) == (0, "2026-01-01T00:00:00")
    (known,) = as_json(
        features, "get", "--view", "visits", "--entity", "who=1", "--as-known-at", "2026-01-01T00:00:00Z"
    )
    assert (known["n"], known["s"]) == (0, "0.00")
    assert "watermark" in run(features, "get", "--view", "visits", "--entity", "who=1").stdout


def test_a_moment_beyond_what_is_known_is_told_from_an_empty_window(folder: Path) -> None:
    """The newest event is half a minute old, so the watermark (ten seconds behind it) is known and now is beyond it."""
    get = ("get", "--view", "visits", "--entity", "who=1")
    watermark = as_json(features, *get)[0]["watermark"]
    (beyond,) = as_json(features, *get, "--at", "2100-01-01T00:00:00Z")
    assert (beyond["n"], beyond["watermark"], beyond["beyond_watermark"]) == (0, watermark, True)
    (known,) = as_json(features, *get, "--at", watermark)
    assert (known["watermark"], known["beyond_watermark"]) == (watermark, False)
    (then,) = as_json(features, *get, "--as-known-at", "2026-01-01T00:00:00Z")
    assert then["beyond_watermark"] is True, "--at is now"
    said = "2100-01-01T00:00:00+00:00 lies beyond the watermark"
    assert said in run(features, *get, "--at", "2100-01-01T00:00:00Z").stdout
    assert "lies beyond" not in run(features, *get, "--at", watermark).stdout


def test_no_field_beside_the_values_can_be_the_name_of_one(folder: Path) -> None:
    (now,) = as_json(features, "get", "--view", "visits", "--entity", "who=1")
    (then,) = as_json(features, "get", "--view", "visits", "--entity", "who=1", "--at", "2026-01-01T00:00:00Z")
    assert {*now, *then} - {"who", "n", "s"} <= set(RESERVED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--view", "visit", "--entity", "who=1"), "did you mean 'visits'"),
        (("--view", "visits", "--entity", "wo=1"), "did you mean 'who'"),
        (("--view", "visits", "--entity", "who=x"), "who is an integer"),
        (("--view", "visits", "--entity", "who=99999999999999999999"), "who does not fit 64 bits"),
        (("--view", "visits", "--entity", f"who={2**63}", "--at", "2026-01-01T00:00:00Z"), "who does not fit 64 bits"),
        (("--view", "visits", "--entity", "who=1", "--at", "2026-01-01"), "is no ISO 8601 time"),
    ],
)
def test_features_wrong_usage_teaches(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    found = CliRunner().invoke(features, ["get", *arguments])
    assert isinstance(found.exception, CtError)
    assert found.exception.exit_code == 2
    assert message in str(found.exception)


def test_plan_deploy_and_back(folder: Path) -> None:
    old, new = str(folder / "old/visits.yaml"), str(folder / "new/visits.yaml")
    (planned,) = as_json(plan, "--definition", new)
    assert (planned["action"], planned["changes"]) == ("build", ["~ n: window_us 300000000 -> 600000000"])
    told = CliRunner().invoke(plan, ["--definition", new]).stdout
    assert f"visits: {planned['active_hash'][:12]} -> {planned['hash'][:12]}\n  ~ n: window 5m -> 10m\n" in told
    (done,) = as_json(deploy, "--definition", new)
    assert (done["switched"], done["different"], done["equal"], done["changed"]) == (True, 0, 1, {"n": [1, 1]})
    (value,) = as_json(features, "get", "--view", "visits", "--entity", "who=1")
    assert (value["n"], value["s"]) == (3, "2.75")
    assert as_json(plan, "--definition", new)[0]["action"] == "nothing"
    (back,) = as_json(deploy, "--definition", old, "--back")
    assert back["to"] == planned["active_hash"]
    assert as_json(features, "get", "--view", "visits", "--entity", "who=1")[0]["n"] == 2
    assert as_json(plan, "--definition", new)[0]["action"] == "switch"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "+ hi: function max, column items, window_us 5400000000, hop_us 250000",
            "+ hi: function max, column items, window 90m, hop 250ms",
        ),
        ("~ freshness_us: None -> 60000000", "~ freshness: None -> 1m"),
        ("~ ttl_us: 2592000000000 -> 0", "~ ttl: 30d -> 0s"),
        ("! contract_digest " + "a1" * 32 + " -> " + "b2" * 32, "! contract_digest a1a1a1a1a1a1 -> b2b2b2b2b2b2"),
        ("~ n: where (('km', (60000000,)),) -> ()", "~ n: where (('km', (60000000,)),) -> ()"),
    ],
)
def test_a_change_is_said_in_units(change: str, said: str) -> None:
    assert readable(change) == said


def test_dead_letters_listed_shown_and_replayed(folder: Path) -> None:
    (row,) = as_json(dead_letter, "list")
    assert (row["stream"], row["reason"], row["letters"], row["came_back"]) == ("visits", "poison", 1, 0)
    (shown,) = as_json(dead_letter, "show", "--reason", "poison")
    assert (shown["partition"], shown["offset"], shown["raw"]) == (0, 9, "{")
    number = str(shown["dead_letter_id"])
    assert as_json(dead_letter, "show", number) == as_json(dead_letter, "show", "--id", number) == [shown]
    (again,) = as_json(dead_letter, "replay", "--definition", str(folder / "old/visits.yaml"), code=1)
    assert again["outcomes"] == {"poison": 1}
    assert "visits/0@9  poison: no JSON (replayed: poison)" in run(dead_letter, "show").stdout
    told = CliRunner().invoke(dead_letter, ["replay", "--definition", str(folder / "old/visits.yaml")])
    assert (told.exit_code, told.stdout) == (
        1,
        "visits (log://visits, stream 1): 0 came back, 1 stay dead (1 poison)\n",
    )


def test_two_topics_of_one_name_are_told_apart_and_chosen_by_number(folder: Path, pg_url: str) -> None:
    """Logs in two folders of one name: everything but the topic's id is equal."""
    old = folder / "old/visits.yaml"
    twin = replace(worlds.identity(), topic_id="another")
    with connect(pg_url, autocommit=True) as conn:
        acceptance = load_definition(old).acceptance
        writer = Writer(conn, state.open_stream(conn, "visits", acceptance, twin), [])
        event = f'{{"id": "back", "who": 2, "at_time": "{datetime.now(UTC).isoformat()}", "kind": "a"}}'.encode()
        dead = [state.DeadLetterRow(0, 9, "poison", "no JSON", acceptance.contract_digest, event, None)]
        writer.commit(worlds.accepted([Given(1, round(time.time() * 1e6) - START - M)]), dead=dead)
    rows = as_json(dead_letter, "list")
    assert [(row["stream_id"], row["stream"], row["topic"]) for row in rows] == [
        (1, "visits", "visits"),
        (2, "visits", "visits"),
    ]
    assert [row["topic_id"] for row in as_json(status)[0]["streams"]] == ["id-of-visits", "another"]
    assert [s for s in ("id-of-visits", "another") if s not in run(status).stdout] == []
    assert run(dead_letter, "list").stdout.count("log://visits") == 2
    assert [row["stream_id"] for row in as_json(dead_letter, "list", "--stream", "2")] == [2]
    assert [row["raw"] for row in as_json(dead_letter, "show", "--stream", "2")] == [event.decode()]
    (first,) = as_json(dead_letter, "replay", "--definition", str(old), "--stream", "1", code=1)
    assert (first["stream_id"], first["source"], first["outcomes"]) == (1, "log", {"poison": 1})
    assert as_json(dead_letter, "show", "--stream", "2")[0]["outcome"] is None
    both = CliRunner().invoke(dead_letter, ["replay", "--definition", str(old)])
    assert (both.exit_code, both.stdout.splitlines()) == (
        1,
        [
            "visits (log://visits, stream 1): 0 came back, 1 stay dead (1 poison)",
            "visits (log://visits, stream 2): 1 came back",
        ],
    )
    with pytest.raises(CtError, match="no stream '3'"):
        CliRunner().invoke(dead_letter, ["replay", "--definition", str(old), "--stream", "3"], catch_exceptions=False)


def test_a_refused_replay_stores_nothing_of_any_stream(folder: Path, pg_url: str) -> None:
    """The second stream keeps other columns: the letter of the first, which would come back, stays too."""
    old = folder / "old/visits.yaml"
    contract = folder / "new/c.odcs.yaml"
    contract.write_text(contract.read_text().replace("numeric(12,2)", "numeric(12,3)"))
    with connect(pg_url, autocommit=True) as conn:
        other = load_definition(folder / "new/visits.yaml").acceptance
        writer = Writer(conn, state.open_stream(conn, "visits", other, worlds.identity("elsewhere")), [])
        writer.take([0])
        event = f'{{"id": "back", "who": 2, "at_time": "{datetime.now(UTC).isoformat()}", "kind": "a"}}'.encode()
        conn.execute("update stream.dead_letter set raw = %s", (event,))
        state.insert_dead_letters(conn, writer.stream, [state.DeadLetterRow(0, 9, "poison", "x", "d", event, None)])
        with pytest.raises(CtError, match=r"visits \(log://elsewhere, stream 2\) cannot come back") as refused:
            CliRunner().invoke(dead_letter, ["replay", "--definition", str(old)], catch_exceptions=False)
        assert refused.value.exit_code == 2
        assert conn.execute("select distinct outcome from stream.dead_letter").fetchall() == [(None,)]
    (done,) = as_json(dead_letter, "replay", "--definition", str(old), "--stream", "1")
    assert done["outcomes"] == {"accepted": 1}


def test_letters_of_an_earlier_contract_wait_for_their_number(folder: Path, pg_url: str) -> None:
    """The topic is read by the changed contract already, which has judged them: the old stream's stay unless it is named."""
    contract, new = folder / "new/c.odcs.yaml", folder / "new/visits.yaml"
    contract.write_text(contract.read_text().replace("string}", "string, enum: [a, b]}", 1))
    with connect(pg_url, autocommit=True) as conn:
        state.open_stream_beside(conn, state.find_stream(conn, 1), load_definition(new).acceptance)
    found = CliRunner().invoke(dead_letter, ["replay", "--definition", str(new)])
    assert (found.exit_code, found.stdout) == (0, "visits (log://visits, stream 2): nothing to replay\n")
    assert "visits (log://visits, stream 1), run by another version of the contract, has letters too" in found.stderr
    assert "`ct dead-letter replay --stream 1`" in found.stderr
    (named,) = as_json(dead_letter, "replay", "--definition", str(new), "--stream", "1", code=1)
    assert (named["stream_id"], named["outcomes"]) == (1, {"poison": 1})


def test_a_replay_without_a_definition_asks_for_the_file_that_no_pipeline_has(folder: Path) -> None:
    found = CliRunner().invoke(dead_letter, ["replay"])
    assert isinstance(found.exception, CtError)
    assert "no installed pipeline has a definition of the stream visits (visits)" in str(found.exception)
    assert "replay --definition FILE" in str(found.exception)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (dead_letter, ("show", "1", "999999"), "no dead letter 999999 as asked for"),
        (dead_letter, ("list", "--stream", "visit"), "no stream 'visit'\n  did you mean 'visits'?"),
        (retire, ("--view", "visits", "--version", "zzz"), "no online table 'visits' of version zzz\n  there are: "),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(
    folder: Path, command: click.Command, arguments: tuple[str, ...], message: str
) -> None:
    found = CliRunner().invoke(command, arguments)
    assert isinstance(found.exception, CtError), found.stdout
    assert (found.exception.exit_code, message in str(found.exception)) == (2, True), found.exception
    assert "did you mean 'visits'" not in str(found.exception) or "visit'" in message


def test_status_shows_streams_and_which_version_answers(folder: Path) -> None:
    as_json(deploy, "--definition", str(folder / "new/visits.yaml"))
    (found,) = as_json(status)
    (stream,) = found["streams"]
    assert (stream["name"], stream["topic"], stream["partitions"], stream["events"]) == ("visits", "log://visits", 1, 3)
    assert (stream["chunks"], stream["files"], stream["tombstones"]) == (1, 0, 0)
    assert 30 <= stream["staleness_seconds"] < 600
    assert [(d["name"], d["state"], d["answers"]) for d in found["definitions"]] == [
        ("visits", "ready", False),
        ("visits", "ready", True),
    ]
    text = run(status).stdout
    assert "1 worker, reading" in text
    assert "UTC" in text


def test_status_of_nothing(pg_url: str, ct_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_DATABASE_URL", pg_url)
    assert run(status).stdout == "no stream yet: `ct stream run` makes one\n"


def test_letters_that_are_not_there_are_said_to_be_so(folder: Path) -> None:
    for arguments, message in (
        (("--id", "99"), "no dead letter 99"),
        (("99",), "no dead letter 99"),
        (("--reason", "posion"), "did you mean 'poison'"),
        (("--stream", "visit"), "did you mean 'visits'"),
    ):
        found = CliRunner().invoke(dead_letter, ["show", *arguments])
        assert isinstance(found.exception, CtError)
        assert message in str(found.exception)


def test_a_replay_of_what_does_not_exist_is_wrong_usage(folder: Path) -> None:
    (letter,) = as_json(dead_letter, "show")
    known = str(letter["dead_letter_id"])
    for arguments, message in (
        (("--reason", "foo"), "one of poison, null_key"),
        (("--reason", "posion"), "did you mean 'poison'"),
        (("--id", known, "--id", "999"), "no dead letter 999 of visits"),
    ):
        found = CliRunner().invoke(dead_letter, ["replay", "--definition", str(folder / "old/visits.yaml"), *arguments])
        assert isinstance(found.exception, CtError)
        assert (found.exception.exit_code, message in str(found.exception)) == (2, True), found.exception
    assert as_json(dead_letter, "show")[0]["outcome"] is None
    (nothing,) = as_json(dead_letter, "replay", "--definition", str(folder / "old/visits.yaml"), "--reason", "late")
    assert nothing["outcomes"] == {}


def test_an_old_version_is_retired_only_with_yes_and_never_the_one_that_answers(folder: Path) -> None:
    new = str(folder / "new/visits.yaml")
    old = as_json(plan, "--definition", new)[0]["active_hash"]
    found = CliRunner().invoke(retire, ["--view", "visits", "--version", old, "--yes"])
    assert isinstance(found.exception, CtError)
    assert "answers now" in str(found.exception)
    as_json(deploy, "--definition", new)
    assert as_json(retire, "--view", "visits", "--version", old[:8]) == [
        {"name": "visits", "hash": old, "retired": False, "champions": []}
    ]
    refused = CliRunner().invoke(retire, ["--view", "visits", "--version", "", "--yes"])
    assert "may be any of: " in str(refused.exception), "an empty variable of a shell is no version"
    assert len(as_json(status)[0]["definitions"]) == 2
    as_json(retire, "--view", "visits", "--version", old[:8], "--yes")
    assert [d["answers"] for d in as_json(status)[0]["definitions"]] == [True]
    assert as_json(features, "get", "--view", "visits", "--entity", "who=1")[0]["n"] == 3


def test_a_deploy_that_waited_finds_what_another_built_and_switched(folder: Path, pg_url: str) -> None:
    new = load_definition(folder / "new/visits.yaml")
    command = [sys.executable, "-m", "ct_assets.cli", "stream", "deploy", "--definition", str(new.path), "--json"]
    with connect(pg_url, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s, hashtext('visits'))", (versions.BUILD_LOCK,))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            assert "another process builds a version of visits: waiting" in waiting.stderr.readline()
            built = deployment.build(other, new)
            old = versions.find_table(other, "visits").definition.hash
            versions.switch(other, "visits", built.table.definition.hash, old)
            other.execute("select pg_advisory_unlock(%s, hashtext('visits'))", (versions.BUILD_LOCK,))
            said, wrong = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, wrong
    assert json.loads(said)["action"] == "nothing"


def test_check_recomputes_what_was_read_and_notices_a_damaged_row(folder: Path, pg_url: str) -> None:
    (found,) = as_json(features, "check", "--view", "visits")
    assert (found["reads"], found["values"], found["mismatches"], found["changed_by_late_events"]) == (1, 2, 0, 0)
    with connect(pg_url, autocommit=True) as conn:
        name = conn.execute("select table_name from stream.definition").fetchone()
        assert name is not None
        conn.execute(f'update online."{name[0]}" set n0 = n0 + 5, t = t || t, m = m || m, c0 = c0 || c0'.encode())
    if url := os.environ.get("CT_ONLINE_URL"):
        import redis

        with redis.Redis.from_url(url) as client:  # as an eviction would
            assert client.delete(*client.scan_iter(match="ct:visits:*:1")) == 1
    (found,) = as_json(features, "check", "--view", "visits", code=1)
    assert (found["reads"], found["values"]) == (2, 4)
    assert found["mismatches"] >= 1
    assert "served" in run(features, "check", "--view", "visits", "--sample", "0", code=1).stdout


def test_sync_loads_an_emptied_redis_and_refuses_without_one(folder: Path) -> None:
    """`ct features get` says that Redis is empty; `ct stream sync` mends it; a retired version leaves no key."""
    import redis

    url = os.environ.get("CT_ONLINE_URL")
    if url is None:
        refused = CliRunner().invoke(sync, [])
        assert isinstance(refused.exception, CtError)
        assert "CT_ONLINE_URL is not set" in refused.exception.message
        return
    get = ("get", "--view", "visits", "--entity", "who=1")
    assert as_json(features, *get)[0]["n"] == 2
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        empty = CliRunner().invoke(features, list(get))
        assert isinstance(empty.exception, CtError)
        assert "it was emptied, or never loaded" in empty.exception.message
        old, new = (worlds.definition(folder / kind, text).hash for kind, text in (("old", OLD), ("new", NEW)))
        assert as_json(sync) == [{"synced": [{"name": "visits", "hash": old}], "rebuilt": False}]
        assert as_json(features, *get)[0]["n"] == 2
        before = set(client.scan_iter())
        assert as_json(sync, "--rebuild") == [{"synced": [{"name": "visits", "hash": old}], "rebuilt": True}]
        assert not before & {k for k in client.scan_iter() if client.type(k) != b"hash"}
        assert as_json(features, *get)[0]["n"] == 2
        run(deploy, "--definition", str(folder / "new" / "visits.yaml"))
        assert run(sync).stdout == f"up to date in Redis: visits {old[:12]}, visits {new[:12]}\n"
        assert len(list(client.scan_iter(match="ct:visits:*", _type="hash"))) == 2
        run(retire, "--view", "visits", "--version", old[:12], "--yes")
        assert len(list(client.scan_iter(match="ct:visits:*", _type="hash"))) == 1
    assert as_json(features, *get)[0]["n"] == 3


def test_a_version_read_again_whose_values_differ_is_switched_to_only_with_yes(folder: Path, pg_url: str) -> None:
    changed = worlds.definition(folder / "changed", OLD, more="dedup_horizon: 2h\n")
    path = str(folder / "changed/visits.yaml")
    (planned,) = as_json(plan, "--definition", path)
    assert (planned["action"], planned["events_gone"]) == ("new_stream", None)
    assert as_json(deploy, "--definition", path)[0]["action"] == "new_stream"
    now = round(time.time() * 1e6) - START
    with connect(pg_url, autocommit=True) as conn:
        stream = state.open_stream(conn, "visits", changed.acceptance, worlds.identity())
        again = [Given(1, now - M, paid=Decimal("9.75")), Given(1, now - M // 2)]
        Writer(conn, stream, []).commit(worlds.accepted(again, first_offset=0))
    refused = CliRunner().invoke(deploy, ["--definition", path])
    assert isinstance(refused.exception, CtError)
    assert refused.exception.exit_code == 1
    assert "1 values that should be the same differ" in str(refused.exception)
    assert [d["answers"] for d in as_json(status)[0]["definitions"]] == [True, False]
    (beside,) = as_json(deploy, "--definition", path, "--no-switch")
    assert (beside["switched"], beside["equal"], beside["different"], beside["events_gone"]) == (False, 1, 1, 0)
    (done,) = as_json(deploy, "--definition", path, "--yes")
    assert (done["switched"], done["different"]) == (True, 1)
    assert [d["answers"] for d in as_json(status)[0]["definitions"]] == [False, True]

"""A second definition on a topic whose history is stored: its values are the oracle's, as if it had always been there.

Why the first's worker may go on meanwhile: events that come while the second is built must be in it once. Why only late
moments are asked: a table that is built holds what a window can still reach.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import deployment, online, state, versions
from ct_assets.adapters.stream.online_reads import OnlineReads
from ct_assets.adapters.stream.registration import Watcher, open_versions
from ct_assets.errors import UsageError
from ct_assets.sampling.arrivals import Arrivals
from ct_assets.streaming.definition import Definition, load_definition
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import assert_values, random_events, ready
from ct_assets_tests.adapters.stream.worlds import START, H, M
from ct_assets_tests.adapters.stream_worker.test_worker import ended, offsets, owners, wait_until
from ct_assets_tests.adapters.stream_worker.world import DEFINITION, Truth, World, fill

AGGREGATES = """aggregates:
  - {name: clicks_30m, function: count, window: 30m, where: {event_type: click}}
  - {name: spend_2h, function: sum, column: amount, window: 2h}
  - {name: kinds_1h, function: count_distinct, column: event_type, window: 1h}
"""


def second_of(folder: Path) -> Path:
    """Another name and other windows over the same events, accepted alike."""
    text = DEFINITION.read_text().split("aggregates:")[0].replace("name: user_activity", "name: second")
    contract = DEFINITION.parent.parent / "contracts/shop_events.odcs.yaml"
    path = folder / "second.yaml"
    path.write_text(text.replace("../contracts/shop_events.odcs.yaml", str(contract)) + AGGREGATES)
    return path


def assert_late_values(world: World, truth: Truth, definition: Definition, online_url: str | None) -> None:
    end = max(e.time for e in truth.accepted) + 1
    users = sorted({e.values["user_id"] for e in truth.accepted})[:100]
    asked = Truth(definition, truth.accepted, truth.dead, truth.duplicates)
    reads = OnlineReads(online_url)
    seen = 0
    with connect(world.url, autocommit=True) as conn:
        table = versions.find_table(conn, definition.name)
        for at in (end - 20 * M, end, end + 25 * M):
            values = reads.read(conn, table, users, at).values
            wanted = [asked.values(user, at) for user in users]
            assert values == wanted
            seen += sum(any(w.values()) for w in wanted)
    assert seen > 20


def test_a_second_definition_counts_what_came_before_it(
    world: World, arrivals: Arrivals, truth: Truth, tmp_path: Path, online_url: str | None
) -> None:
    fill(world.folder, arrivals)
    assert world.run("--until-idle").returncode == 0
    path = second_of(tmp_path)
    world.definition = path
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    assert "second is new on shop_events, which holds events: building it from them" in done.stderr
    assert json.loads(done.stdout)["messages"] == 0
    assert_late_values(world, truth, load_definition(path), online_url)
    again = world.run("--until-idle")
    assert (again.returncode, "building" in again.stderr) == (0, False), again.stderr
    assert_late_values(world, truth, load_definition(path), online_url)


def test_a_second_definition_begins_while_the_first_one_s_worker_goes_on(
    world: World, arrivals: Arrivals, truth: Truth, tmp_path: Path, online_url: str | None
) -> None:
    half = len(arrivals) // 2
    fill(world.folder, arrivals, 0, half)
    first = world.start("--no-supervise")
    wait_until(world, lambda conn: offsets(conn) == half)
    path = second_of(tmp_path)
    world.definition = path
    second = world.start("--workers", "2")
    wait_until(world, lambda conn: answers(conn, "second"))
    fill(world.folder, arrivals, half)
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    for worker in (first, second):
        code, said = ended(worker, signal.SIGTERM)
        assert code == 0, said
    assert_late_values(world, truth, load_definition(path), online_url)


def test_workers_of_two_definitions_share_the_partitions(
    world: World, arrivals: Arrivals, truth: Truth, tmp_path: Path
) -> None:
    half = len(arrivals) // 2
    fill(world.folder, arrivals, 0, half)
    workers = [world.start("--no-supervise")]
    wait_until(world, lambda conn: offsets(conn) == half)
    path = second_of(tmp_path)
    world.definition = path
    workers.append(world.start("--no-supervise"))
    wait_until(world, lambda conn: owners(conn) == 2)
    fill(world.folder, arrivals, half)
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    for worker in workers:
        code, said = ended(worker, signal.SIGTERM)
        assert code == 0, said
        assert "beginning again" not in said
    assert_late_values(world, truth, load_definition(path), None)


def test_a_worker_in_another_group_is_told_once_why_it_loses_partitions(
    world: World, arrivals: Arrivals, truth: Truth
) -> None:
    """Values stay right all the same: the fence lets one of them write."""
    step = len(arrivals) // 25 + 1
    fill(world.folder, arrivals, 0, step)
    workers = [world.start("--no-supervise"), world.start("--no-supervise", "--group", "mine")]
    for begin in range(step, len(arrivals), step):
        end = min(begin + step, len(arrivals))
        fill(world.folder, arrivals, begin, end)
        wait_until(world, lambda conn, end=end: offsets(conn) == end)
    said = [ended(worker, signal.SIGTERM)[1] for worker in workers]
    told = [text.count("another worker keeps taking partitions") for text in said]
    assert max(told) == 1, said
    assert "one consumer group, and this one's is mine: give all of them the same --group" in said[1]
    assert_late_values(world, truth, load_definition(DEFINITION), None)


def answers(conn: psycopg.Connection, name: str) -> bool:
    return conn.execute("select 1 from stream.active where name = %s", (name,)).fetchone() is not None


# -- without a worker: what the database does --------------------------------------------------------------------------


@pytest.fixture
def conn(pg_url: str) -> Iterator[psycopg.Connection]:
    with connect(pg_url, autocommit=True) as found:
        yield found


SHORT = "  - {name: n, function: count, window: 10m}\n"


def given(conn: psycopg.Connection, folder: Path) -> tuple[Any, list[Any]]:
    writer, _ = ready(conn, worlds.definition(folder / "first"))
    found = sorted(random_events(1, 200), key=lambda g: g.t)
    events = worlds.accepted([g for g in found if g.t < H])
    writer.commit(events)
    return writer, events


def test_a_table_that_would_lack_events_is_never_made_to_answer(conn: psycopg.Connection, tmp_path: Path) -> None:
    writer, _ = given(conn, tmp_path)
    with pytest.raises(UsageError, match="holds events that it would lack"):
        online.ensure(conn, writer.stream, worlds.definition(tmp_path / "other", SHORT, name="other"))
    assert not answers(conn, "other")


def test_a_first_build_that_died_is_begun_again(
    conn: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, events = given(conn, tmp_path)
    other = worlds.definition(tmp_path / "other", SHORT, name="other")

    def dies(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(deployment, "_version", dies)
        with pytest.raises(OSError, match="killed"):
            open_versions(conn, [other], worlds.identity())
    with monkeypatch.context() as patch:  # built, and killed before it answers
        patch.setattr(online, "publish_function", dies)
        with pytest.raises(OSError, match="killed"):
            open_versions(conn, [other], worlds.identity())
    assert not answers(conn, "other")
    said: list[str] = []
    _, (table,) = open_versions(conn, [other], worlds.identity(), watcher=Watcher(said.append))
    assert (said, answers(conn, "other")) == ([], True)
    assert_values(Store(), conn, table, events, [0, 1, 2, 3], [START + H, START + H + 5 * M])


def test_a_version_over_a_stream_that_was_read_already_is_built_from_it(
    conn: psycopg.Connection, tmp_path: Path
) -> None:
    """What decides acceptance changes to what another definition has had all along: its events are there."""
    writer, events = given(conn, tmp_path)
    table = deployment.register_elsewhere(conn, writer.stream, worlds.definition(tmp_path / "o", SHORT, name="other"))
    assert_values(Store(), conn, table, events, [0, 1, 2, 3], [START + H, START + H + 5 * M])


def test_a_refusal_registers_nothing(conn: psycopg.Connection, tmp_path: Path) -> None:
    given(conn, tmp_path)
    changed = worlds.definition(tmp_path / "changed", SHORT, more="dedup_horizon: 2h\n")
    with pytest.raises(UsageError, match="another version of visits answers already"):
        open_versions(
            conn, [worlds.definition(tmp_path / "n", SHORT, "n", "dedup_horizon: 2h\n"), changed], worlds.identity()
        )
    assert conn.execute("select count(*) from stream.stream").fetchone() == (1,)
    assert [v.name for v in versions.listed(conn)] == ["visits"]
    assert state.find_stream(conn, 1).topic == "visits"


def test_a_topic_of_that_name_on_another_cluster_is_not_called_made_again(
    conn: psycopg.Connection, tmp_path: Path
) -> None:
    writer, _ = given(conn, tmp_path)
    first = worlds.definition(tmp_path / "first")
    again, elsewhere = replace(worlds.identity(), topic_id="new"), replace(worlds.identity(), cluster_id="other")
    with pytest.raises(UsageError, match="answers on log://visits, as that topic was before it was made again"):
        open_versions(conn, [first], again)
    with pytest.raises(UsageError, match="answers on log://visits; the source is another topic"):
        open_versions(conn, [first], elsewhere)
    assert conn.execute("select array_agg(stream_id) from stream.stream").fetchone() == ([writer.stream.stream_id],)

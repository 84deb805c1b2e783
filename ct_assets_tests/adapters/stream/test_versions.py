"""A changed definition: planned, built beside the old one while commits go on, compared, switched, taken back.

Why commits come before, during and after a build: an event missed or counted twice at a seam is the fault to find.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream import deployment, online, state, versions
from ct_assets.errors import UsageError
from ct_assets_tests.adapters.stream import worlds
from ct_assets_tests.adapters.stream.stores import Store
from ct_assets_tests.adapters.stream.test_online_values import assert_values, random_events, ready
from ct_assets_tests.adapters.stream.worlds import START, H, M, Writer

OLD = "  - {name: n, function: count, window: 5m}\n  - {name: s, function: sum, column: paid, window: 5m}\n"
NEW = "  - {name: n, function: count, window: 10m}\n  - {name: s, function: sum, column: paid, window: 5m}\n  - {name: hi, function: max, column: items, window: 1h}\n"


@pytest.fixture
def world(conn, tmp_path: Path):
    writer, table = ready(conn, worlds.definition(tmp_path / "old", OLD))
    within_reach = sorted((replace(g, t=g.t % H) for g in random_events(1, 300)), key=lambda g: g.t)
    events = worlds.accepted(within_reach)
    writer.commit(events[:100])
    return writer, table, worlds.definition(tmp_path / "new", NEW), events


def test_plan_names_each_change_and_changes_nothing(conn, world) -> None:
    _, table, new, _ = world
    found = deployment.plan(conn, new)
    assert (found.action, found.active_hash) == ("build", table.definition.hash)
    assert found.changes == (
        "+ hi: function max, column items, window_us 3600000000, mode exact",
        "~ n: window_us 300000000 -> 600000000",
    )
    assert deployment.plan(conn, table.definition).action == "nothing"
    assert len(versions.listed(conn)) == 1


def test_plan_of_a_new_name_and_of_another_acceptance(conn, world, tmp_path: Path) -> None:
    assert deployment.plan(conn, worlds.definition(tmp_path / "x", OLD, name="other")).action == "first"
    changed = worlds.definition(tmp_path / "y", OLD, more="dedup_horizon: 2h\n")
    found = deployment.plan(conn, changed)
    assert found.action == "new_stream"
    assert "! dedup_horizon_us 3600000000 -> 7200000000" in found.changes
    with pytest.raises(UsageError, match="what decides acceptance differs"):
        deployment.build(conn, changed)


def test_built_beside_then_switched_then_taken_back(conn, pg_url: str, world) -> None:
    writer, old, new, events = world
    built = deployment.build(conn, new)
    assert (built.events, built.caught_up) == (100, 0)
    writer.commit(events[100:200])  # the worker was not restarted: it knows only the old table
    moments = [START + 5 * M, START + H, START + 2 * H + 1]
    assert_values(Store(), conn, old, events[:200], [0, 1, 2, 3], moments)
    assert_values(Store(), conn, built.table, events[:200], [0, 1, 2, 3], moments)
    compared = deployment.compare(conn, old, built.table, START + 5 * M)
    assert (compared.entities, compared.equal, compared.different) == (4, 4, 0)
    assert compared.changed["n"][1] == 4
    sql = "select n from online.visits(array[1], '2026-01-01T00:08:00Z')"
    before = conn.execute(sql).fetchone()
    versions.switch(conn, "visits", new.hash, old.definition.hash)
    after = conn.execute(sql).fetchone()
    at = START + 8 * M
    assert before == (worlds.expected(old.definition, events[:200], 1, at)["n"],)
    assert after == (worlds.expected(new, events[:200], 1, at)["n"],)
    assert before != after
    assert versions.find_table(conn, "visits") == built.table
    assert versions.find_table(conn, "visits", old.definition.hash) == old
    assert online.ensure(conn, writer.stream, new) == built.table
    with pytest.raises(versions.SwitchRefused, match="is answered by"):
        versions.switch(conn, "visits", new.hash, old.definition.hash)
    writer.commit(events[200:])
    versions.switch(conn, "visits", old.definition.hash, new.hash)
    assert versions.previous(conn, "visits") == built.table
    assert conn.execute(sql).fetchone() == (worlds.expected(old.definition, events, 1, at)["n"],)
    assert_values(Store(), conn, old, events, [0, 1, 2, 3], moments)


def test_events_that_come_during_the_build_are_in_once(conn, pg_url: str, world, monkeypatch) -> None:
    writer, _, new, events = world
    fold, calls = deployment._fold, []

    def slow(*arguments):
        done = fold(*arguments)
        if not calls:
            with connect(pg_url, autocommit=True) as other:  # between the first fold and the lock
                monkeypatch.setattr(writer, "conn", other)
                writer.commit(events[100:200])
                monkeypatch.setattr(writer, "conn", conn)
        calls.append(done)
        return done

    monkeypatch.setattr(deployment, "_fold", slow)
    built = deployment.build(conn, new)
    assert (calls, built.caught_up) == ([100, 100], 100)
    writer.commit(events[200:])
    assert_values(Store(), conn, built.table, events, [0, 1, 2, 3], [START + 10 * M, START + H, START + 3 * H])


@pytest.mark.parametrize("moment", ["before_the_lock", "behind_the_lock"])
def test_a_partition_that_is_added_during_the_build_is_in_with_all_its_events(
    conn, pg_url: str, world, monkeypatch, moment: str
) -> None:
    """Its events are hours older than what the other partitions' windows reach: it is judged by its own watermark."""
    writer, _, new, _ = world
    later = worlds.accepted([worlds.Given(5, 9 * H, partition=p) for p in writer.epoch], first_offset=1_000)
    writer.commit(later)
    added = worlds.accepted([worlds.Given(77, n * M, partition=9) for n in range(5)])
    fold, calls, threads = deployment._fold, [], []

    def another_worker() -> None:
        with connect(pg_url, autocommit=True) as other:
            Writer(other, writer.stream, writer.tables, "w2").commit(added)

    def slow(*arguments):
        done = fold(*arguments)
        calls.append(done)
        if len(calls) == ["before_the_lock", "behind_the_lock"].index(moment) + 1:
            threads.append(threading.Thread(target=another_worker))
            threads[0].start()
            while threads[0].is_alive() and not waiting_for_a_lock(pg_url):
                time.sleep(0.01)
        return done

    monkeypatch.setattr(deployment, "_fold", slow)
    built = deployment.build(conn, new)
    threads[0].join()
    assert built.caught_up == (len(added) if moment == "before_the_lock" else 0)
    assert_values(Store(), conn, built.table, added, [77], [START + n * M + 1 for n in range(12)])


def waiting_for_a_lock(url: str) -> bool:
    with connect(url, autocommit=True) as conn:
        row = conn.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ).fetchone()
    return row != (0,)


def test_a_build_goes_on_when_somebody_holds_the_stream_for_a_while(conn, pg_url: str, world) -> None:
    """Waiting for the stream's row with the partitions in hand could wait for one who waits for a partition."""
    _, _, new, events = world
    held, go_on = threading.Event(), threading.Event()

    def claims() -> None:
        with connect(pg_url) as other, other.transaction():  # as a worker that claims a new and an old partition
            other.execute("insert into stream.partition (stream_id, partition) values (1, 9)")
            held.set()
            go_on.wait(30)
            other.execute("select from stream.partition where stream_id = 1 order by partition for no key update")

    thread = threading.Thread(target=claims)
    thread.start()
    assert held.wait(30)
    threading.Timer(0.3, go_on.set).start()
    built = deployment.build(conn, new)
    thread.join()
    assert go_on.is_set()
    assert_values(Store(), conn, built.table, events[:100], [0, 1, 2, 3], [START + H])


def test_a_build_that_died_is_begun_again(conn, world, monkeypatch) -> None:
    _, _, new, events = world

    def dies(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(deployment, "_version", dies)
        with pytest.raises(OSError, match="killed"):
            deployment.build(conn, new)
    assert [v.state for v in versions.listed(conn)] == ["ready", "building"]
    with pytest.raises(UsageError, match="is building"):
        online.ensure(conn, state.find_stream(conn, 1), new)
    built = deployment.build(conn, new)
    assert_values(Store(), conn, built.table, events[:100], [0, 1, 2, 3], [START + H])
    assert [v.state for v in versions.listed(conn)] == ["ready", "ready"]


def test_a_beginning_that_several_versions_share_names_none(conn, world) -> None:
    _, old, new, _ = world
    deployment.build(conn, new)
    conn.execute("update stream.definition set hash = 'abc' || substr(hash, 4)")
    hash_ = f"abc{new.hash[3:]}"
    with pytest.raises(UsageError, match="version 'abc' of visits may be any of: abc"):
        versions.retire(conn, "visits", "abc")
    assert versions.find_table(conn, "visits", hash_[:12]).definition.hash == new.hash
    assert versions.find_table(conn, "visits").definition.hash == old.definition.hash


def test_retired_versions_are_gone_and_the_active_one_stays(conn, world) -> None:
    writer, old, new, events = world
    deployment.build(conn, new)
    with pytest.raises(UsageError, match="answers now"):
        versions.retire(conn, "visits", old.definition.hash)
    versions.switch(conn, "visits", new.hash, old.definition.hash)
    versions.retire(conn, "visits", old.definition.hash)
    writer.commit(events[100:])
    with pytest.raises(UsageError, match="no online table 'visits' of version"):
        versions.find_table(conn, "visits", old.definition.hash)
    with pytest.raises(UsageError, match="did you mean 'visits'"):
        versions.find_table(conn, "visit")


def test_another_acceptance_is_filled_by_its_own_worker(conn, world, tmp_path: Path) -> None:
    _, old, _, events = world
    changed = worlds.definition(tmp_path / "y", NEW, more="dedup_horizon: 2h\n")
    stream = state.open_stream(conn, "visits", changed.acceptance, worlds.identity())
    table = deployment.register_elsewhere(conn, stream, changed)
    assert online.ensure(conn, stream, changed) == table
    worlds.Writer(conn, stream, [table]).commit(events)
    assert deployment.plan(conn, changed).action == "switch"
    versions.switch(conn, "visits", changed.hash, old.definition.hash)
    assert_values(Store(), conn, versions.find_table(conn, "visits"), events, [0, 1], [START + H])

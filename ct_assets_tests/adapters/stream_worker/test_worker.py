"""The worker as a process, on an embedded log and a real PostgreSQL, against the oracle.

What goes here: values, effectively-once through kills, two workers, stopping, losing the log. What does not: the same on
a Kafka broker, and the acceptance's cases (``conformance``).
"""

from __future__ import annotations

import json
import signal
import subprocess
import time

import psycopg
import pytest

from ct_assets.adapters.crash import STREAM_POINTS
from ct_assets.adapters.events.log_group import LogGroup
from ct_assets.adapters.events.port import open_source
from ct_assets.adapters.postgres.connect import connect
from ct_assets.sampling.arrivals import Arrivals
from ct_assets.settings import load
from ct_assets_tests.adapters.stream_worker.world import Truth, World, fill, truth_of


def assert_equals(world: World, truth: Truth) -> None:
    content = world.content()
    assert content["places"] == sorted((e.partition, e.offset) for e in truth.accepted)
    reasons: dict[str, int] = {}
    for row in content["dead"]:
        reasons[row[2]] = reasons.get(row[2], 0) + 1
    assert reasons == dict(truth.dead)
    assert sum(row[7] for row in content["partitions"]) == truth.duplicates
    questions = truth.questions(150)
    wanted = [truth.values(user, at) for user, at in questions]
    assert world.read(questions) == wanted
    assert sum(any(v for v in w.values()) for w in wanted) > len(wanted) / 3


def test_values_and_dead_letters_equal_the_oracle(world: World, arrivals: Arrivals, truth: Truth) -> None:
    fill(world.folder, arrivals)
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["messages"] == len(arrivals)
    assert summary["events"] == len(truth.accepted)
    assert summary["dead"] == dict(truth.dead)
    assert summary["tombstones"] == sum(payload is None for payload in arrivals.payload) > 0
    parts = (summary["events"], summary["duplicates"], truth.dead.total(), summary["tombstones"])
    assert sum(parts) == summary["messages"]
    assert summary["first_message_at"] < summary["last_commit_at"] < summary["first_message_at"] + summary["seconds"]
    assert_equals(world, truth)
    again = json.loads(world.run("--until-idle").stdout)
    assert (again["messages"], again["commits"]) == (0, 0), "nothing is read twice"
    assert (again["first_message_at"], again["last_commit_at"]) == (None, None)


@pytest.mark.parametrize("size", [7, 1_000])
def test_the_size_of_batches_does_not_matter(world: World, arrivals: Arrivals, size: int) -> None:
    some = Arrivals(*(getattr(arrivals, name)[:1_200] for name in Arrivals.__dataclass_fields__))
    fill(world.folder, some)
    done = world.run("--until-idle", "--max-messages", str(size))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commits"] >= 1_200 / size
    assert_equals(world, truth_of(some))


@pytest.mark.case(12)
@pytest.mark.fault("F04")
@pytest.mark.parametrize("point", STREAM_POINTS)
def test_f04_killed_at_any_point_a_restart_ends_the_same(
    world: World, arrivals: Arrivals, truth: Truth, point: str
) -> None:
    fill(world.folder, arrivals)
    third = "" if point == "assigned" else "*3"
    killed = world.run("--until-idle", "--max-messages", "400", crash_at=point + third)
    assert killed.returncode == -signal.SIGKILL, f"the point was never reached: {killed.stderr}"
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    assert_equals(world, truth)


def test_sigterm_commits_what_is_in_hand_and_gives_the_partitions_back(
    world: World, arrivals: Arrivals, truth: Truth
) -> None:
    half = len(arrivals) // 2
    fill(world.folder, arrivals, 0, half)
    worker = world.start("--no-supervise")
    wait_until(world, lambda conn: offsets(conn) == half)
    fill(world.folder, arrivals, half)
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    assert ended(worker, signal.SIGTERM)[0] == 0
    with connect(world.url) as conn:
        assert conn.execute("select count(*) from stream.partition where owner is not null").fetchone() == (0,)
    assert_equals(world, truth)


@pytest.mark.parametrize("supervision", ["--no-supervise", "--supervise"])
def test_sigterm_before_anything_was_read_is_a_good_end(world: World, arrivals: Arrivals, supervision: str) -> None:
    fill(world.folder, arrivals)
    with connect(world.url) as conn:
        conn.execute("lock table stream.stream")  # the worker opens its versions and waits here
        worker = world.start(supervision)
        wait_until(world, lambda other: others_waiting(other) == 1)
        code, said = ended(worker, signal.SIGTERM)
    assert code == 0, said
    assert "Traceback" not in said
    with connect(world.url) as conn:
        assert conn.execute("select count(*) from stream.stream").fetchone() == (0,), "nothing was registered"


def test_sigterm_after_the_answer_is_a_good_end(world: World, arrivals: Arrivals) -> None:
    """Python takes its handlers away before it frees its memory: a signal in that tenth of a second ended it with 143."""
    fill(world.folder, arrivals)
    worker = subprocess.Popen(
        world.command("--until-idle", "--json"), env=world.environ(), stdout=subprocess.PIPE, text=True
    )
    world.started.append(worker)
    assert worker.stdout is not None
    assert json.loads(worker.stdout.readline())["messages"] == len(arrivals)
    while worker.poll() is None:
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.005)
    assert worker.returncode == 0


def test_a_run_that_is_stopped_does_not_keep_house_first(world: World, arrivals: Arrivals) -> None:
    """The last turn of a long run takes longer than a supervisor waits; it is for runs that ended by themselves."""
    fill(world.folder, arrivals)
    with connect(world.url) as conn:
        conn.execute("lock table stream.read_sample")  # the last thing that housekeeping looks at
        worker = world.start("--until-idle", "--no-supervise", "--max-messages", "1")
        wait_until(world, lambda other: offsets(other) > 50)
        code, said = ended(worker, signal.SIGTERM)
    assert code == 0, said
    with connect(world.url) as conn:
        assert offsets(conn) < len(arrivals), "it was at work"


@pytest.mark.case(11)
def test_two_workers_share_the_partitions_and_one_takes_over(world: World, arrivals: Arrivals, truth: Truth) -> None:
    fill(world.folder, arrivals, 0, 300)
    first, second = world.start("--no-supervise"), world.start("--no-supervise")
    wait_until(world, lambda conn: owners(conn) == 2)
    fill(world.folder, arrivals, 300, len(arrivals) // 2)
    assert ended(first, signal.SIGKILL)[0] == -signal.SIGKILL
    fill(world.folder, arrivals, len(arrivals) // 2)
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    assert ended(second, signal.SIGTERM)[0] == 0
    assert_equals(world, truth)


def test_a_run_until_idle_waits_for_partitions_of_a_member_that_reads_nothing(
    world: World, arrivals: Arrivals, truth: Truth
) -> None:
    fill(world.folder, arrivals)
    source = open_source(world.source, load())
    partitions = source.partitions()
    source.close()
    silent = LogGroup(world.folder, "g")
    worker = world.start("--until-idle", "--no-supervise", "--group", "g")
    try:
        wait_until(world, lambda conn: len(silent.balance(partitions, lambda _: None)) == 0 and owners(conn) == 1)
        wait_until(world, lambda conn: own_lag(conn) == 0)
        assert silent.held
        with pytest.raises(subprocess.TimeoutExpired):  # idle for longer than it takes to end
            worker.wait(2.0)
    finally:
        silent.leave()
    assert ended(worker)[0] == 0
    with connect(world.url, autocommit=True) as conn:
        assert offsets(conn) == len(arrivals)
    assert_equals(world, truth)


def own_lag(conn: psycopg.Connection) -> int:
    """Partitions with an owner that are not yet said to be read to their end."""
    row = conn.execute("select count(*) from stream.partition where owner is not null and not caught_up").fetchall()
    return row[0][0]


def test_a_supervisor_starts_a_killed_worker_again(world: World, arrivals: Arrivals, truth: Truth) -> None:
    fill(world.folder, arrivals)
    # four batches: the first life dies in its third commit, the second has two to do and reaches no third
    quarter = str(-(-len(arrivals) // 4))
    parent = world.start("--supervise", "--max-messages", quarter, CT_CRASH_AT="chunks_written*3")
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    code, said = ended(parent, signal.SIGTERM)
    assert code == 0
    assert "ended with signal 9" in said
    assert_equals(world, truth)


@pytest.mark.fault("F53")
def test_f53_the_database_ends_every_connection_in_the_middle(world: World, arrivals: Arrivals, truth: Truth) -> None:
    fill(world.folder, arrivals, 0, 500)
    worker = world.start("--no-supervise")
    wait_until(world, lambda conn: offsets(conn) == 500)
    cut = 0
    for begin in range(500, len(arrivals), 1_000):
        fill(world.folder, arrivals, begin, begin + 1_000)
        cut += cut_connections(world)
        time.sleep(0.3)
    assert cut > 0
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    code, said = ended(worker, signal.SIGTERM)
    assert code == 0
    assert "beginning again from the database" in said
    assert_equals(world, truth)


@pytest.mark.fault("F53")
def test_f53_connections_that_end_just_before_sigterm_do_not_fail_the_worker(
    world: World, arrivals: Arrivals, truth: Truth
) -> None:
    fill(world.folder, arrivals)
    worker = world.start("--no-supervise")
    wait_until(world, lambda conn: offsets(conn) == len(arrivals))
    worker.send_signal(signal.SIGSTOP)  # so that it cannot notice and connect again before it is told to leave
    assert cut_connections(world) > 0
    worker.send_signal(signal.SIGTERM)
    code, said = ended(worker, signal.SIGCONT)
    assert code == 0, said
    assert_equals(world, truth)


@pytest.mark.fault("F48")
def test_f48_a_topic_made_again_is_another_stream(world: World, arrivals: Arrivals) -> None:
    import shutil

    fill(world.folder, arrivals, 0, 300)
    worker = world.start("--no-supervise")
    wait_until(world, lambda conn: offsets(conn) == 300)
    shutil.rmtree(world.folder)
    fill(world.folder, arrivals, 300, 400)
    code, said = ended(worker)
    assert code == 1
    assert "no offset of the old one may be applied" in said
    with connect(world.url) as conn:
        assert offsets(conn) == 300
        assert conn.execute("select rule from ledger.incident where state = 'open'").fetchall() == [
            ("topic_recreated",)
        ]


def ended(worker: subprocess.Popen[str], how: signal.Signals | None = None) -> tuple[int, str]:
    """(exit code, what it said), after the signal if one is given."""
    if how is not None:
        worker.send_signal(how)
    said = worker.communicate(timeout=60)[1]
    return worker.returncode, said


def wait_until(world: World, holds, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with connect(world.url) as conn:
            if holds(conn):
                return
        time.sleep(0.2)
    with connect(world.url) as conn:
        state = conn.execute("select partition, owner, next_offset from stream.partition order by 1").fetchall()
    raise AssertionError(f"never came true within {seconds} s; partitions: {state}")


def offsets(conn: psycopg.Connection) -> int:
    row = conn.execute(
        "select coalesce(sum(next_offset) filter (where next_offset > 0), 0)::bigint from stream.partition"
    )
    return row.fetchall()[0][0]


def owners(conn: psycopg.Connection) -> int:
    row = conn.execute("select count(distinct owner) from stream.partition where owner is not null").fetchall()
    return row[0][0]


def others_waiting(conn: psycopg.Connection) -> int:
    """Connections to this database that wait for a lock."""
    row = conn.execute(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ).fetchall()
    return row[0][0]


def cut_connections(world: World) -> int:
    with connect(world.url, autocommit=True) as conn:
        return len(
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            ).fetchall()
        )

"""A worker on a topic that is not its definition's: it stops before it stores the topic as dead letters.

What goes here: worker processes on a new stream that accepts nothing. What does not: garbage in a stream that works
(``test_worker_faults``).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ct_assets.adapters.events.log_sink import LogSink
from ct_assets.adapters.postgres.connect import connect
from ct_assets.adapters.stream_worker.committer import Batch
from ct_assets.adapters.stream_worker.first_messages import REFUSED_AT_LEAST, FirstMessages, NothingAccepted
from ct_assets.adapters.stream_worker.session import Judged
from ct_assets.sampling.arrivals import Arrivals
from ct_assets_tests.adapters.stream_worker.test_worker import assert_equals, ended, wait_until
from ct_assets_tests.adapters.stream_worker.world import Truth, World, fill

T0 = 1_767_225_600_000_000
TABLES = (
    "stream.stream",
    "stream.partition",
    "stream.definition",
    "stream.active",
    "stream.dead_letter",
    "stream.chunk",
)


def foreign(folder: Path, count: int, partition: int = 0) -> None:
    """Scans of parcels: good JSON, none of it the shop's."""
    sink = LogSink(str(folder), 4)
    scans = [json.dumps({"parcel": f"p{i}", "scanned": "2026-01-01T00:00:00Z"}).encode() for i in range(count)]
    sink.send(scans, partition=partition, append_time=T0)
    sink.close()


def stored(url: str) -> dict[str, int]:
    with connect(url) as conn:
        return {t: (conn.execute(f"select count(*) from {t}".encode()).fetchone() or (0,))[0] for t in TABLES}


def nothing(url: str) -> bool:
    with connect(url) as conn:
        views = conn.execute("select proname from pg_proc where pronamespace = 'online'::regnamespace").fetchall()
        tables = conn.execute("select 1 from pg_tables where schemaname = 'online'").fetchall()
    return not any(stored(url).values()) and not views and not tables


@pytest.mark.parametrize("size", ["100000", "97"])
def test_a_topic_of_which_nothing_is_accepted_stops_the_worker_and_leaves_nothing(
    world: World, arrivals: Arrivals, truth: Truth, tmp_path: Path, size: str
) -> None:
    right, world.folder = world.folder, tmp_path / "scans"
    foreign(world.folder, REFUSED_AT_LEAST)
    done = world.run("--until-idle", "--max-messages", size)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "shop_events accepted none of its first 1,000 messages of log://scans" in done.stderr
    assert "(1,000 null_key)" in done.stderr
    assert "is this the right topic" in done.stderr
    assert '{"parcel": "p0"' in done.stderr, "an example"
    assert nothing(world.url)
    world.folder = right
    fill(world.folder, arrivals)
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    assert_equals(world, truth)


@pytest.mark.parametrize("workers", [1, 2])
def test_supervised_workers_are_not_started_again(world: World, workers: int) -> None:
    """The one that is left takes the partition over and ends as the first did."""
    foreign(world.folder, REFUSED_AT_LEAST)
    worker = world.start("--workers", str(workers))
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == 1, said
    assert said.count("accepted none of its first") == workers, said
    assert nothing(world.url)


def test_an_option_goes_on_all_the_same(world: World, arrivals: Arrivals, truth: Truth) -> None:
    foreign(world.folder, REFUSED_AT_LEAST)
    done = world.run("--until-idle", "--keep-refused")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dead"] == {"null_key": REFUSED_AT_LEAST}
    assert stored(world.url)["stream.dead_letter"] == REFUSED_AT_LEAST
    assert world.run("--until-idle").returncode == 0, "nothing new was refused"


def test_a_few_refused_messages_are_kept_and_said_and_the_right_topic_still_runs(
    world: World, arrivals: Arrivals, truth: Truth, tmp_path: Path
) -> None:
    right, world.folder = world.folder, tmp_path / "scans"
    foreign(world.folder, 7)
    done = world.run("--until-idle")
    assert done.returncode == 1
    assert "has not accepted any message yet; is this the right topic" in done.stderr
    assert json.loads(done.stdout)["dead"] == {"null_key": 7}
    assert stored(world.url)["stream.dead_letter"] == 7
    replayed = subprocess.run(  # the definition is an installed pipeline's: it need not be named
        [sys.executable, "-m", "ct_assets.cli", "dead-letter", "replay"],
        env=world.environ(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (replayed.returncode, replayed.stdout) == (
        1,
        "shop_events (log://scans, stream 1): 0 came back, 7 stay dead (7 null_key)\n",
    )
    world.folder = right
    fill(world.folder, arrivals)
    done = world.run("--until-idle")
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    assert (summary["events"], summary["nothing_accepted"]) == (len(truth.accepted), False)
    with connect(world.url) as conn:
        answers = conn.execute(
            """select d.name, s.topic from stream.active join stream.definition d using (definition_id)
               join stream.stream s using (stream_id)"""
        ).fetchall()
    assert answers == [("user_activity", right.name)]


def test_one_good_partition_is_enough(world: World, arrivals: Arrivals, truth: Truth) -> None:
    """The garbage is read first: it is held until the stream has accepted an event, then kept."""
    fill(world.folder, arrivals, 0, 20)
    assert world.run("--until-idle").returncode == 0
    foreign(world.folder, REFUSED_AT_LEAST, partition=3)
    done = world.run("--until-idle", "--max-messages", "400")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dead"] == {"null_key": REFUSED_AT_LEAST}


def test_what_a_stopped_worker_held_is_committed(world: World) -> None:
    foreign(world.folder, 5)
    worker = world.start("--no-supervise")
    wait_until(world, lambda conn: letters(conn) == 5)
    code, said = ended(worker, signal.SIGTERM)
    assert code == 0, said
    assert "has not accepted any message yet" in said


def letters(conn: psycopg.Connection) -> int:
    return (conn.execute("select count(*) from stream.dead_letter").fetchone() or (0,))[0]


# -- the rule -----------------------------------------------------------------------------------------------------------


def batch(events: int, dead: int) -> Judged:
    import polars as pl

    from ct_assets.adapters.stream.state import DeadLetterRow

    rows = [DeadLetterRow(0, i, "poison", "no JSON", "d", b"\xff\x00x") for i in range(dead)]
    return Judged(
        Batch([], pl.DataFrame({"x": range(events)}), rows, 0.0, events + dead), 0, 0, Counter(poison=dead), 0
    )


def test_batches_wait_for_the_first_accepted_event_and_keep_their_order() -> None:
    given = [batch(0, 300), batch(0, 699), batch(1, 500), batch(0, 5_000)]
    out: list[Judged] = []
    first = FirstMessages("s", "log://t", lambda: False, out.append)
    for number, judged in enumerate(given):
        first.judged(judged)
        assert len(out) == (0, 0, 3, 4)[number]
    assert out == given
    assert first.nothing_accepted is False


def test_the_thousandth_refused_message_is_one_too_many_unless_another_worker_accepted_one() -> None:
    out: list[Judged] = []
    elsewhere = iter([False, True])
    first = FirstMessages("s", "log://t", lambda: next(elsewhere), out.append)
    first.judged(batch(0, REFUSED_AT_LEAST))
    assert len(out) == 1
    first = FirstMessages("s", "log://t", lambda: False, out.append)
    first.judged(batch(0, REFUSED_AT_LEAST - 1))
    first.release()  # the topic is read to its end: they are kept, and still count
    assert (len(out), first.nothing_accepted) == (2, True)
    with pytest.raises(NothingAccepted, match=r"first 1,000 messages of log://t \(1,000 poison\).*offset 0: no JSON"):
        first.judged(batch(0, 1))
    assert len(out) == 2

"""Housekeeping of a stream, by its workers, without a person: garbage in online tables, compaction, retention, old samples.

What goes here: what is tidied when, and the thread that a worker starts for it. What does not: how (``online``,
``compaction``, ``consistency``).

One housekeeper a stream at a time (an advisory lock): it works beside commits in short transactions of its own, and when it
fails the worker goes on and the next turn tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.adapters.stream import compaction, consistency, online, versions
from ct_assets.adapters.stream.compaction import Compacted
from ct_assets.streaming.walk import duration_text

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.storage import Storage
    from ct_assets.adapters.stream.records import Stream

_LOCK = 7_236_012  # class of the advisory locks; the key is the stream
PAGES = 1_000  # of an online table in one transaction: some ms
# While a worker catches up, compaction waits until so much lies in the table (about 180 M events): it takes
# the cores from the events that are waited for.
MOST_WAITING = 2 << 30


@dataclass(frozen=True)
class Rules:
    """How often, and how long what is kept. ``retention_days`` None: events and dead letters are kept for ever."""

    every_seconds: float = 60.0
    small_files_after: timedelta = timedelta(hours=6)
    samples_kept: timedelta = timedelta(days=14)
    orphans_after: timedelta = timedelta(hours=1)
    retention_days: int | None = None
    waiting_bytes: int = 0  # compaction waits until the chunks in the table take more
    run_reads_back: timedelta = timedelta(days=7)  # in a run that ends by itself: its past moments stay readable


@dataclass(frozen=True)
class Tidied:
    """What one turn did."""

    online_rows: int = 0
    compacted: Compacted = field(default_factory=Compacted)
    events_removed: int = 0
    letters_removed: int = 0
    files_removed: int = 0
    samples_removed: int = 0
    kept_longer: str | None = None  # why events stay beyond the days of retention

    @property
    def sentence(self) -> str:
        """In words; empty when there was nothing to do."""
        done = []
        if self.online_rows:
            done.append(f"{self.online_rows:,} online rows out of every window removed")
        if self.compacted.files:
            c = self.compacted
            done.append(f"{c.chunks:,} chunks with {c.rows:,} events moved to {c.files} files ({c.bytes:,} bytes)")
        if self.events_removed or self.letters_removed:
            done.append(f"retention removed {self.events_removed:,} events and {self.letters_removed:,} dead letters")
        return "; ".join(done)


def tidy(  # noqa: PLR0913 - what, where, when and how
    conn: psycopg.Connection,
    stream: Stream,
    storage: Storage,
    now: datetime,
    rules: Rules | None = None,
    reads_back: timedelta = timedelta(0),
) -> Tidied | None:
    """One turn at everything; None when another process is at it. ``conn`` must be in autocommit.

    Online rows stay for reads so far back (``reads_back``) beyond what the windows need.
    """
    rules = rules or Rules()
    row = conn.execute("select pg_try_advisory_lock(%s, %s)", (_LOCK, stream.stream_id)).fetchone()
    if row != (True,):
        return None
    try:
        rows = sum(_collect(conn, table, reads_back) for table in versions.ready_tables(conn, stream))
        events, letters = _retain(conn, stream, now, rules)  # first: a file goes only when all its events may
        ripe = compaction.waiting_bytes(conn, stream) >= rules.waiting_bytes
        moved = compaction.compact(conn, stream, storage, now - rules.small_files_after) if ripe else Compacted()
        files = compaction.sweep(conn, stream, storage, now - rules.orphans_after)
        samples = consistency.forget(conn, now - rules.samples_kept)
        return Tidied(rows, moved, events, letters, files, samples, _kept_longer(conn, stream, rules))
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(%s, %s)", (_LOCK, stream.stream_id))


def _collect(conn: psycopg.Connection, table: online.OnlineTable, reads_back: timedelta) -> int:
    """Rows removed from one online table: each partition by its own watermark, some pages at a time."""
    rows = conn.execute(
        "select partition, top from stream.partition where stream_id = %s and top is not null", (table.stream_id,)
    ).fetchall()
    late = table.definition.acceptance.out_of_orderness_us + reads_back // timedelta(microseconds=1)
    limits = {partition: online.garbage_limit(table, top - late) for partition, top in rows}
    total, page = online.collect_garbage(conn, table, limits, 0, PAGES)
    while page:
        deleted, page = online.collect_garbage(conn, table, limits, page, PAGES)
        total += deleted
    return total


def _retain(conn: psycopg.Connection, stream: Stream, now: datetime, rules: Rules) -> tuple[int, int]:
    if rules.retention_days is None:
        return 0, 0
    before = now - timedelta(days=rules.retention_days)
    events = compaction.remove_before(conn, stream, round(before.timestamp() * 1e6))
    with conn.transaction():
        letters = conn.execute(
            "delete from stream.dead_letter where stream_id = %s and created_at < %s", (stream.stream_id, before)
        ).rowcount
    return events, letters


def _kept_longer(conn: psycopg.Connection, stream: Stream, rules: Rules) -> str | None:
    """The sentence for people when windows reach further back than retention; they win."""
    tables = versions.registered_tables(conn, stream)
    if rules.retention_days is None or not tables:
        return None
    table = max(tables, key=lambda t: t.definition.max_window_us)
    needed = -online.garbage_limit(table, -stream.acceptance.out_of_orderness_us)
    if needed <= timedelta(days=rules.retention_days) // timedelta(microseconds=1):
        return None
    name, longest = table.definition.name, duration_text(table.definition.max_window_us)
    return (
        f"CT_STREAM_RETENTION_DAYS={rules.retention_days} is less than windows of {name} need: its events are kept for"
        f" twice its longest window ({longest}) behind the watermark"
    )


class Housekeeper:
    """A thread that tidies a stream now and then, from now until :meth:`close`."""

    def __init__(  # noqa: PLR0913 - what it works on, and how
        self,
        url: str,
        stream: Stream,
        storage: Storage,
        say: Callable[[str], None],
        rules: Rules | None = None,
        clock: Clock | None = None,
        reads_back: timedelta = timedelta(0),
        catching_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """``url``: the stream database. ``say`` is told what was done, and what failed. ``reads_back`` as for :func:`tidy`;
        ``catching_up``: the worker is far behind."""
        self._url, self._stream, self._storage, self._say = url, stream, storage, say
        self._reads_back, self._catching_up = reads_back, catching_up
        self._rules, self._clock = rules or Rules(), clock or SystemClock()
        self._told: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stream-housekeeper", daemon=True)
        self._thread.start()

    def close(self, last_turn: bool = False) -> None:
        """Stop after the turn in hand, or at most 10 seconds later; with ``last_turn`` tidy once more (short runs)."""
        self._ended.set()
        self._thread.join(10.0)
        if last_turn:
            self._turn()

    def _work(self) -> None:
        while not self._ended.wait(self._rules.every_seconds):
            self._turn()

    def _turn(self) -> None:
        from ct_assets.adapters.postgres.connect import connect

        rules = replace(self._rules, waiting_bytes=MOST_WAITING) if self._catching_up() else self._rules
        try:
            with connect(self._url, autocommit=True) as conn:
                done = tidy(conn, self._stream, self._storage, self._clock.now(), rules, self._reads_back)
        except Exception as error:  # noqa: BLE001 - the worker must go on; the next turn tries again
            self._say(f"housekeeping failed and is tried again: {type(error).__name__}: {str(error).strip()[:200]}")
            return
        if done is None:
            return
        if done.sentence:
            self._say(f"housekeeping: {done.sentence}")
        if done.kept_longer != self._told and done.kept_longer is not None:
            self._say(done.kept_longer)
        self._told = done.kept_longer

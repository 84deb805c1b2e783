"""The loop: poll, decode, judge, hand to the committer; take and give back partitions; begin again after a failure.

What goes here: when what happens. What does not: what one step does (``session``, ``committer``, ``adapters.stream``).

Effectively once: offsets, accepted events, online rows and dead letters of a batch are one transaction that is fenced
by the epoch of each partition. Whatever fails, this process forgets all it holds and begins again from what the
database says, so a lost acknowledgement, a failover that lost commits (fault F53) and a crash are one case.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ct_assets.adapters.events.port import LostData, SourceError
from ct_assets.adapters.postgres.connect import DatabaseUnreachable, connect
from ct_assets.adapters.stream import state
from ct_assets.adapters.stream_worker.committer import Batch, Committed, Committer
from ct_assets.adapters.stream_worker.elsewhere import Elsewhere
from ct_assets.adapters.stream_worker.first_messages import FirstMessages, NothingAccepted
from ct_assets.adapters.stream_worker.options import Options, Summary, Wiring
from ct_assets.adapters.stream_worker.session import Judged, Session

if TYPE_CHECKING:
    import psycopg

    from ct_assets.adapters.events.port import EventSource
    from ct_assets.adapters.stream.records import Stream

LOOK_SECONDS = 1.0  # how often lag, watermarks and heartbeats are looked at
RETRY_SECONDS = 0.2
_TWICE = 2
_TAKEN = (
    "another worker keeps taking partitions {partitions}; workers of a stream share its partitions only within one "
    "consumer group, and this one's is {group}: give all of them the same --group, or none"
)


class Worker:
    """One process's share of a stream. :meth:`run` returns when told to stop, or when idle if asked so."""

    def __init__(self, wiring: Wiring, options: Options) -> None:
        """Nothing is opened before :meth:`run`."""
        self._wiring, self._options = wiring, options
        self._session = Session(wiring.stream, wiring.acceptance, wiring.decoder, options.owner)
        self._stopping = False
        self._conn: psycopg.Connection | None = None
        self._writer: psycopg.Connection | None = None
        self._looked_at = 0.0
        self._read_anything_at = time.monotonic()
        self._lag: dict[int, int] = {}
        self._source: EventSource | None = None
        self._discarding = False  # closing a source after a failure: what it held is forgotten, not given back
        self._elsewhere = Elsewhere(wiring.stream)
        self._failing_since: float | None = None
        self._fenced = 0  # how often another worker took what this one held
        self.summary = Summary()
        stream = wiring.stream
        self._first = FirstMessages(
            stream.name,
            f"{stream.source_kind}://{stream.topic}",
            lambda: state.has_accepted(self._reader(), stream),
            self._hand_over,
            options.keep_refused,
        )

    def stop(self, *_: object) -> None:
        """Finish the batch in hand, commit it and leave (SIGTERM)."""
        self._stopping = True

    @property
    def stream(self) -> Stream:
        """What it reads for."""
        return self._wiring.stream

    @property
    def was_stopped(self) -> bool:
        """Whether somebody told it to end, rather than an idle topic."""
        return self._stopping

    def run(self) -> Summary:
        """Work until told to stop. Raises what no new beginning mends (lost offsets, a recreated topic, no database)."""
        started = time.monotonic()
        self._committer = Committer(self._commit, self._committed)
        try:
            while not self._finished():
                try:
                    self._pass()
                except Exception as error:  # noqa: BLE001 - `_failed` raises it again unless beginning again mends it
                    self._failed(error)
            try:
                self._leave()
            except Exception as error:  # noqa: BLE001 - as above; what was in hand is the next worker's to read again
                self._failed(error)
        finally:
            self._discarding = True
            self._committer.close()
            self._close_source()
            self._close_connections()
        self.summary.seconds = time.monotonic() - started
        self.summary.nothing_accepted = self._first.nothing_accepted
        return self.summary

    @property
    def lag(self) -> int:
        """Messages that wait, as of the last look."""
        return sum(self._lag.values())

    # -- one pass -------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        self._committer.check()
        source = self._opened()
        messages = source.poll(self._options.max_messages, self._options.poll_seconds)
        self._wiring.crash("polled")
        if len(messages):
            now = time.monotonic()
            self._read_anything_at = now
            stamped = source.identity().append_time
            first_read = None if stamped else int(self._wiring.clock.now().timestamp() * 1e6)
            self.summary.first_message_at = self.summary.first_message_at or self._wiring.clock.now().timestamp()
            judged = self._session.judge(messages, now, first_read)
            self._wiring.crash("folded")
            self._offer(judged)
        if time.monotonic() - self._looked_at >= LOOK_SECONDS or (self._options.until_idle and not len(messages)):
            self._look()

    def _offer(self, judged: Judged) -> None:
        try:
            self._first.judged(judged)
        except NothingAccepted:
            from ct_assets.adapters.stream.registration import forget

            forget(self._reader(), self._wiring.stream, self._options.owner)
            raise

    def _hand_over(self, judged: Judged) -> None:
        """Let a batch be committed, and count it."""
        self._wiring.metrics.judged(judged.late, judged.duplicates, judged.dead, judged.tombstones)
        self.summary.late += judged.late
        self.summary.duplicates += judged.duplicates
        self.summary.dead += judged.dead
        self.summary.tombstones += judged.tombstones
        self._committer.submit(judged.batch)
        if self._wiring.alarm is not None:
            self._wiring.alarm.judged(judged.batch.messages, judged.batch.dead)

    def _opened(self) -> EventSource:
        """The source, opened and joined at first and after every failure."""
        if self._source is None:
            self._source = self._wiring.open_source()
            self._source.subscribe(self._options.group, self._assigned, self._revoked, self._lost)
        return self._source

    def _finished(self) -> bool:
        if self._stopping:
            return True
        quiet = time.monotonic() - self._read_anything_at
        caught_up = bool(self._lag) and sum(self._lag.values()) == 0 and self._committer.idle
        return (
            self._options.until_idle
            and caught_up
            and self._elsewhere.is_read
            and quiet > 2 * self._options.poll_seconds
        )

    def _look(self) -> None:
        """Lag, watermarks, heartbeat: what people and the supervisor see."""
        self._looked_at = time.monotonic()
        source, held = self._opened(), list(self._session.held)
        positions, ends = source.positions(), source.end_offsets(held)
        self._lag = {p: max(0, ends[p] - positions[p]) for p in held if p in positions}
        if not any(self._lag.values()):  # no further message that could be accepted
            self._first.release()
            if self._options.until_idle:
                self._elsewhere.look(source, held, self._reader())
        if self._committer.idle:
            state.heartbeat(self._reader(), self._wiring.stream, self._options.owner, self._lag)
            self._failing_since = None  # source and database both answered
            if self._wiring.twin is not None:
                self._wiring.twin.level(self._reader(), held)
        metrics = self._wiring.metrics
        metrics.lag(self._lag)
        metrics.watermarks(self._session.watermarks, int(self._wiring.clock.now().timestamp() * 1e6))
        metrics.state(self._session.acceptor.state_bytes())
        if metrics.liveness.stalled_seconds < LOOK_SECONDS * 2:
            self._wiring.beat()

    # -- commits --------------------------------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> None:
        """On the committer's thread, with a connection of its own."""
        if self._writer is None or self._writer.closed:
            self._writer = connect(self._wiring.url, autocommit=True)
        state.commit(
            self._writer,
            self._wiring.stream,
            progress=batch.progress,
            events=batch.events,
            dead=batch.dead,
            late=batch.late,
            definitions=self._wiring.tables,
            crash=self._wiring.crash,
        )
        if self._wiring.twin is not None:
            self._wiring.twin.committed(self._writer, batch.progress, batch.events)

    def _committed(self, done: Committed) -> None:
        self._failing_since = None
        self._wiring.metrics.committed(done)
        self.summary.messages += done.messages
        self.summary.events += done.events
        self.summary.commits += 1
        self.summary.last_commit_at = self._wiring.clock.now().timestamp()

    # -- partitions come and go -------------------------------------------------------------------------------------

    def _reader(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._wiring.url, autocommit=True)
        return self._conn

    def _assigned(self, partitions: Sequence[int]) -> dict[int, int]:
        offsets = self._session.take(self._reader(), partitions)
        self._wiring.crash("assigned")
        self._wiring.say(f"holding partitions {sorted(self._session.held)}")
        return offsets

    def _revoked(self, partitions: Sequence[int]) -> None:
        try:
            if not self._discarding:
                self._first.release()
                self._committer.flush()
                state.release(self._reader(), self._wiring.stream, list(partitions), self._options.owner)
        finally:
            self._lost(partitions)

    def _lost(self, partitions: Sequence[int]) -> None:
        """Another worker may have them already: nothing of theirs is committed (the fence sees to it)."""
        self._session.drop(partitions)
        for partition in partitions:
            self._lag.pop(partition, None)

    def _failed(self, error: Exception) -> None:
        """Forget everything, so that the next pass begins from what the database holds; raise what that cannot mend."""
        self._failing_since = self._failing_since or time.monotonic()
        if not _mendable(error) or time.monotonic() - self._failing_since > self._options.patience_seconds:
            raise error
        self.summary.restarts += 1
        self._wiring.metrics.restarted()
        self._wiring.say(f"beginning again from the database after {type(error).__name__}: {_first_line(error)}")
        if isinstance(error, state.Fenced):
            self._fenced += 1
            if self._fenced == _TWICE:  # once may be a hand-over that came late
                self._wiring.say(_TAKEN.format(partitions=error.partitions, group=self._options.group))
        self._committer.recover()
        self._first.forget()
        self._discarding = True
        self._close_source()
        self._discarding = False
        self._close_connections()
        self._session.drop(list(self._session.held))
        self._lag = {}
        time.sleep(RETRY_SECONDS)

    def _close_source(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _close_connections(self) -> None:
        for conn in (self._conn, self._writer):
            if conn is not None:
                conn.close()

    def _leave(self) -> None:
        """Commit what is in hand and give the partitions back."""
        self._first.release()
        self._committer.flush()
        if self._source is None:
            return
        self._look()
        self._source.commit_offsets(self._source.positions())
        self._close_source()


def _mendable(error: Exception) -> bool:
    """Whether beginning again can help: database or broker went away, or another worker holds a partition."""
    import psycopg

    if isinstance(error, LostData):
        return False
    passing = (psycopg.OperationalError, psycopg.InterfaceError, DatabaseUnreachable, state.Fenced, SourceError)
    return isinstance(error, passing)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")

"""Which decoded events count: future, repeats and conflicts, lateness, and the watermark that follows.

What goes here: the state of each partition and the rules of acceptance in offset order; the result is the same for every
batch size and interleaving of partitions. What does not: decoding, the memory of ids (``seen.py``), windows, storing.

Vectorised: a late event never moves a running maximum, so lateness follows from one cumulative maximum. Only ids that
come again within their batch, or whose memory may end within it, are walked in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.streaming.decode import INDEX, DeadLetter, Decoded
from ct_assets.streaming.definition import Acceptance
from ct_assets.streaming.messages import ABSENT, Messages
from ct_assets.streaming.seen import I64, Prints, Seen, fingerprints

BACKFILL_US = 600_000_000  # appended this much after its time: history that is replayed
NEVER = -(2**62)  # before any event
NEVER_KNOWN = 2**62  # after any moment
PLACE = {"_partition": pl.Int32, "_offset": pl.Int64, "_append_time": pl.Int64, "_known_at": pl.Int64}
ACCEPTED, DUPLICATE, FUTURE, CONFLICT, LATE = range(5)
REASONS = {FUTURE: "future", CONFLICT: "conflict", LATE: "late"}


@dataclass
class Accepted:
    """What one batch became.

    ``events``: the contract's columns plus ``_partition``, ``_offset``, ``_append_time`` (-1: absent) and ``_known_at``,
    in input order. ``late``: the same of those that came too late to be accepted; nobody was ever told of them. ``dead``:
    the decoder's letters and those of acceptance, by index. The rest is by partition: counts of this batch, ``tops`` and
    ``frontiers`` after it (of every partition held that has one), ``last_append`` in it.
    """

    events: pl.DataFrame
    late: pl.DataFrame
    dead: list[DeadLetter] = field(default_factory=list)
    duplicates: dict[int, int] = field(default_factory=dict)
    late_accepted: dict[int, int] = field(default_factory=dict)
    late_dead: dict[int, int] = field(default_factory=dict)
    tops: dict[int, int] = field(default_factory=dict)
    frontiers: dict[int, int] = field(default_factory=dict)
    last_append: dict[int, int] = field(default_factory=dict)


@dataclass
class _Partition:
    top: int = NEVER
    frontier: int = NEVER
    seen: Seen = field(default_factory=Seen)


@dataclass
class _Run:
    """Decoded events of one partition in offset order, and what becomes of each."""

    time: I64
    append: I64
    prints: Prints
    capped: I64
    verdict: npt.NDArray[np.int8]
    behind: I64  # the partition's top before each event
    known_at: I64
    slot: I64  # in the memory of ids, before this batch
    again: bool = False  # an id was accepted twice: forgotten within the batch

    @classmethod
    def of(cls, time: I64, append: I64, prints: Prints) -> _Run:
        capped = np.where(append == ABSENT, time, np.minimum(time, append))
        n = len(time)
        return cls(
            time, append, prints, capped, np.zeros(n, np.int8), np.full(n, NEVER), np.zeros(n, np.int64), np.full(n, -1)
        )


class Acceptor:
    """Judges decoded batches; holds what it must remember of each partition."""

    def __init__(self, acceptance: Acceptance, ingestion_lag_us: int = 1_000_000) -> None:
        """``ingestion_lag_us``: from append to readable, added to say when an event was known."""
        self.acceptance = acceptance
        self._lag = ingestion_lag_us
        self._partitions: dict[int, _Partition] = {}

    def accept(self, decoded: Decoded, messages: Messages, *, first_read_us: int | None = None) -> Accepted:
        """Judge one batch. ``first_read_us`` stands for an absent append time of a live source; None: a file."""
        index, frame = decoded.frame[INDEX].to_numpy(), decoded.frame.drop(INDEX)
        append = messages.append_time
        if first_read_us is not None:
            append = np.where(append == ABSENT, first_read_us, append)
        out = Accepted(frame, frame, list(decoded.dead))
        partition, time = messages.partition[index], frame[self.acceptance.event_time].to_physical().to_numpy()
        prints = fingerprints(frame, self.acceptance.event_id)
        verdict, known = np.full(len(index), ACCEPTED, np.int8), np.zeros(len(index), np.int64)
        partitions = messages.partitions()
        for p in partitions:
            rows = np.flatnonzero(partition == p)
            if len(partitions) == 1:  # nothing need be copied
                run = _Run.of(time, append[index], prints)
            else:
                run = _Run.of(time[rows], append[index[rows]], prints.at(rows))
            self._judge(self._partitions.setdefault(p, _Partition()), run)
            verdict[rows], known[rows] = run.verdict, run.known_at
            self._report(out, p, run, index[rows])
            last = int(append[messages.partition == p].max())
            if last != ABSENT:
                out.last_append[p] = last
        out.dead.sort(key=lambda letter: letter.index)
        for p, state in self._partitions.items():
            if state.top != NEVER:
                out.tops[p], out.frontiers[p] = state.top, state.frontier
        known[verdict == LATE] = NEVER_KNOWN
        places = (partition, messages.offset[index], append[index], known)
        out.events, out.late = (_of_verdict(frame, places, verdict == which) for which in (ACCEPTED, LATE))
        return out

    def _judge(self, state: _Partition, run: _Run) -> None:
        rules = self.acceptance
        future = (run.append != ABSENT) & (run.time > run.append + rules.max_future_skew_us)
        run.verdict[future] = FUTURE
        self._repeats(state, run, np.flatnonzero(~future))
        counts = run.verdict == ACCEPTED
        run.behind = _before(np.where(counts, run.capped, NEVER), state.top)
        run.verdict[counts & (run.time < run.behind - rules.out_of_orderness_us - rules.allowed_lateness_us)] = LATE
        accepted = np.flatnonzero(run.verdict == ACCEPTED)
        if not len(accepted):
            return
        time, append = run.time[accepted], run.append[accepted]
        frontier = np.maximum(np.maximum.accumulate(time), state.frontier)
        live = (append != ABSENT) & (append - frontier <= BACKFILL_US)
        run.known_at[accepted] = np.where(live, append, frontier) + self._lag
        state.top = max(state.top, int(run.capped[accepted].max()))
        state.frontier = int(frontier[-1])
        last = accepted if not run.again else _last_of_each(run.prints.key, accepted)
        state.seen.put(run.prints.at(last), run.time[last], run.slot[last], self._forget_before(state.top))

    def _forget_before(self, top: int) -> int:
        """Ids of events before this are forgotten: the watermark is past their time and the horizon."""
        return top - self.acceptance.out_of_orderness_us - self.acceptance.dedup_horizon_us

    def _repeats(self, state: _Partition, run: _Run, rows: I64) -> None:
        """Mark repeats and conflicts among ``rows``; late ones that are walked are marked too."""
        keys = run.prints.key[rows]
        slot = state.seen.find(keys)
        run.slot[rows] = slot
        known = slot >= 0
        twice = _repeated(keys)
        if known.any():
            where = np.flatnonzero(known)
            # remembered to the end of this batch
            where = where[state.seen.times(slot[where]) >= self._forget_before(max(state.top, int(run.capped.max())))]
            same = state.seen.checks(slot[where]) == run.prints.check[rows[where]]
            run.verdict[rows[where]] = np.where(same, DUPLICATE, CONFLICT)
            known[where] = twice[where] = False
        walked = rows[known | twice]
        if len(walked) and (known.any() or not self._plain(state, run, walked)):
            self._walk(state, run, walked)

    def _plain(self, state: _Partition, run: _Run, walked: I64) -> bool:
        """Mark ids that come again within the batch, if the first of each is accepted and none is forgotten meanwhile."""
        key, check = run.prints.key[walked], run.prints.check[walked]
        _, begin, which = np.unique(key, return_index=True, return_inverse=True)
        first = walked[begin]
        if (run.time[first] < self._forget_before(max(state.top, int(run.capped.max())))).any():
            return False
        again = np.ones(len(walked), np.bool_)
        again[begin] = False
        before = run.verdict[walked].copy()
        run.verdict[walked[again]] = np.where(check == check[begin][which], DUPLICATE, CONFLICT)[again]
        behind = _before(np.where(run.verdict == ACCEPTED, run.capped, NEVER), state.top)[first]
        if (run.time[first] < behind - self.acceptance.out_of_orderness_us - self.acceptance.allowed_lateness_us).any():
            run.verdict[walked] = before
            return False
        return True

    def _walk(self, state: _Partition, run: _Run, walked: I64) -> None:
        """Ids that may be accepted and come again, or be forgotten, within this batch: one after the other."""
        rules = self.acceptance
        others = np.where(run.verdict == ACCEPTED, run.capped, NEVER)
        others[walked] = NEVER
        behind = _before(others, state.top)
        slots = run.slot[walked]
        memory: dict[int, tuple[int, int]] = {}
        top = NEVER
        for i, slot in zip(walked.tolist(), slots.tolist(), strict=True):
            key, check, time = int(run.prints.key[i]), int(run.prints.check[i]), int(run.time[i])
            now = max(top, int(behind[i]))
            first = memory.get(key)
            if first is None and slot >= 0:
                first = (int(state.seen.checks(slot)), int(state.seen.times(slot)))
            if first is not None and first[1] >= self._forget_before(now):
                run.verdict[i] = DUPLICATE if first[0] == check else CONFLICT
            elif time < now - rules.out_of_orderness_us - rules.allowed_lateness_us:
                run.verdict[i] = LATE
            else:
                run.again = run.again or key in memory
                memory[key] = (check, time)
                top = max(top, int(run.capped[i]))

    def _report(self, out: Accepted, partition: int, run: _Run, index: I64) -> None:
        """Counts and dead letters of one partition."""
        duplicates = int(np.count_nonzero(run.verdict == DUPLICATE))
        late = int(np.count_nonzero(run.verdict == LATE))
        watermark = run.behind - self.acceptance.out_of_orderness_us
        corrections = int(np.count_nonzero((run.verdict == ACCEPTED) & (run.time < watermark)))
        for counts, number in ((out.duplicates, duplicates), (out.late_dead, late), (out.late_accepted, corrections)):
            if number:
                counts[partition] = number
        for i in np.flatnonzero(run.verdict > DUPLICATE).tolist():
            verdict = int(run.verdict[i])
            out.dead.append(DeadLetter(int(index[i]), REASONS[verdict], self._why(verdict, run, i)))

    def _why(self, verdict: int, run: _Run, i: int) -> str:
        rules = self.acceptance
        if verdict == FUTURE:
            return f"{rules.event_time} is {(run.time[i] - run.append[i]) / 1e6:.6f} s after its append time, more than {rules.max_future_skew_us / 1e6:g} s"
        if verdict == CONFLICT:
            return f"{rules.event_id} was accepted before with another payload"
        late = (run.behind[i] - rules.out_of_orderness_us - run.time[i]) / 1e6
        return f"{late:.6f} s behind its partition's watermark, more than {rules.allowed_lateness_us / 1e6:g} s"

    def restore(self, partition: int, *, top: int | None, frontier: int | None, events: Iterable[pl.DataFrame]) -> None:
        """Begin a partition from what was committed: frames of accepted events of the last horizon, in offset order."""
        state = _Partition(NEVER if top is None else top, NEVER if frontier is None else frontier)
        for frame in events:
            plain = frame.drop(*PLACE, strict=False)
            times = plain[self.acceptance.event_time].to_physical().to_numpy()
            prints = fingerprints(plain, self.acceptance.event_id)
            last = _last_of_each(prints.key, np.arange(frame.height))
            slots = state.seen.find(prints.key[last])
            state.seen.put(prints.at(last), times[last], slots, self._forget_before(state.top))
        self._partitions[partition] = state

    def forget(self, partition: int) -> None:
        """Drop a partition that is no longer ours."""
        self._partitions.pop(partition, None)

    def tops(self) -> Mapping[int, int]:
        """The top of each partition that has one."""
        return {p: s.top for p, s in self._partitions.items() if s.top != NEVER}

    def state_bytes(self) -> int:
        """What the memory of ids takes."""
        return sum(s.seen.nbytes for s in self._partitions.values())


def _of_verdict(frame: pl.DataFrame, places: tuple[npt.NDArray[Any], ...], of: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """These rows with their places."""
    every = bool(of.all())
    columns = [
        pl.Series(name, values if every else values[of], PLACE[name])
        for name, values in zip(PLACE, places, strict=True)
    ]
    return (frame if every else frame.filter(pl.Series(of))).hstack(columns)


def _before(values: I64, start: int) -> I64:
    """The largest value before each position, ``start`` included."""
    out = np.empty(len(values), np.int64)
    out[:1] = start
    np.maximum.accumulate(np.maximum(values[:-1], start), out=out[1:])
    return out


def _repeated(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which keys occur more than once here."""
    ordered = np.sort(keys)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    found = np.zeros(len(keys), np.bool_)
    if len(twice):
        low = np.zeros(1 << 16, np.bool_)
        low[twice & np.uint64(0xFFFF)] = True
        likely = np.flatnonzero(low[keys & np.uint64(0xFFFF)])  # a few, so that the exact question is cheap
        found[likely] = np.isin(keys[likely], twice)
    return found


def _last_of_each(keys: npt.NDArray[np.uint64], rows: I64) -> I64:
    """Of each key the last of these rows."""
    _, backwards = np.unique(keys[rows][::-1], return_index=True)
    return np.sort(rows[len(rows) - 1 - backwards])

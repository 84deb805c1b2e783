"""The partitions a worker holds now: claims in the database, what was remembered of each, and how far it has read.

What goes here: taking, restoring and giving back partitions; judging a batch against what is remembered. What does not:
reading messages, committing (``committer``), the rules of acceptance (``ct_assets.streaming``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ct_assets.adapters.stream import state
from ct_assets.adapters.stream_worker.committer import Batch
from ct_assets.streaming.accept import Acceptor

if TYPE_CHECKING:
    import psycopg

    from ct_assets.streaming.decode import Decoded
    from ct_assets.streaming.definition import Acceptance
    from ct_assets.streaming.messages import Messages


class Decoder(Protocol):
    """Bytes of messages to typed rows."""

    def decode(self, messages: Messages) -> Decoded:
        """One batch."""
        ...


@dataclass
class Held:
    """One partition in hand: the claim's epoch and the offset after the last message handed to a commit."""

    epoch: int
    next_offset: int
    watermark: int | None = None


@dataclass(frozen=True)
class Judged:
    """A batch ready to commit, and what to tell the metrics about it."""

    batch: Batch
    late: int
    duplicates: int
    dead: Counter[str]
    tombstones: int


@dataclass
class Session:
    """What this worker holds, from one beginning to the next failure or loss."""

    stream: state.Stream
    acceptance: Acceptance
    decoder: Decoder
    owner: str
    held: dict[int, Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.acceptor = Acceptor(self.acceptance, self.stream.ingestion_lag_us)

    def take(self, conn: psycopg.Connection, partitions: Sequence[int]) -> dict[int, int]:
        """Claim ``partitions`` (older owners are fenced from here on) and remember their last horizon again.

        Returns the offset at which to read each. Recovery is this refold: there is no second format of the state.
        """
        claims = state.claim(conn, self.stream, list(partitions), self.owner)
        for partition, claim in claims.items():
            self.acceptor.forget(partition)
            self.held[partition] = Held(claim.epoch, claim.next_offset)
            if claim.top is not None:
                watermark = claim.top - self.acceptance.out_of_orderness_us
                self.held[partition].watermark = watermark
                since = watermark - self.acceptance.dedup_horizon_us
                self.acceptor.restore(
                    partition,
                    top=claim.top,
                    frontier=claim.frontier,
                    events=state.replay_frames(conn, self.stream, partition, since),
                )
        return {partition: claim.next_offset for partition, claim in claims.items()}

    def drop(self, partitions: Sequence[int]) -> None:
        """Forget partitions that another worker has, or is about to have."""
        for partition in partitions:
            self.held.pop(partition, None)
            self.acceptor.forget(partition)

    def judge(self, messages: Messages, polled_at: float, first_read_us: int | None) -> Judged:
        """Decode and judge one poll; what is remembered moves on, so the result must be committed or all forgotten."""
        decoded = self.decoder.decode(messages)
        accepted = self.acceptor.accept(decoded, messages, first_read_us=first_read_us)
        dead = [state.DeadLetterRow.of(letter, messages, self.acceptance) for letter in accepted.dead]
        progress = []
        partitions, last = _ends(messages)
        dead_by, tombs_by = _count(messages, [d.index for d in accepted.dead]), _count(messages, decoded.tombstones)
        appended = _last_append(messages)
        for partition, end in zip(partitions, last, strict=True):
            held = self.held[partition]
            top = accepted.tops.get(partition)
            progress.append(
                state.PartitionProgress(
                    partition=partition,
                    epoch=held.epoch,
                    expected_offset=held.next_offset,
                    next_offset=end + 1,
                    top=top,
                    frontier=accepted.frontiers.get(partition),
                    last_append=appended.get(partition),
                    late_accepted=accepted.late_accepted.get(partition, 0),
                    late_dead=accepted.late_dead.get(partition, 0),
                    duplicates=accepted.duplicates.get(partition, 0),
                    dead=dead_by.get(partition, 0),
                    tombstones=tombs_by.get(partition, 0),
                )
            )
            held.next_offset = end + 1
            if top is not None:
                held.watermark = top - self.acceptance.out_of_orderness_us
        return Judged(
            Batch(progress, accepted.events, dead, polled_at, len(messages), accepted.late),
            sum(accepted.late_accepted.values()),
            sum(accepted.duplicates.values()),
            Counter(letter.reason for letter in accepted.dead),
            len(decoded.tombstones),
        )

    @property
    def watermarks(self) -> dict[int, int]:
        """The watermark of each partition that has one."""
        return {p: held.watermark for p, held in self.held.items() if held.watermark is not None}


def _ends(messages: Messages) -> tuple[list[int], list[int]]:
    """Each partition in the batch and the last offset read of it."""
    last = messages.last_of_each()
    return list(last), [int(messages.offset[index]) for index in last.values()]


def _last_append(messages: Messages) -> dict[int, int]:
    """The newest append time of each partition in the batch, where there is one."""
    there = messages.append_time >= 0
    partitions = messages.partition[there]
    return {int(p): int(messages.append_time[there][partitions == p].max()) for p in np.unique(partitions)}


def _count(messages: Messages, indices: Sequence[int] | np.ndarray) -> dict[int, int]:
    """How many of ``indices`` (into the batch) lie in each partition."""
    if len(indices) == 0:
        return {}
    found, counts = np.unique(messages.partition[np.asarray(indices, np.int64)], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))

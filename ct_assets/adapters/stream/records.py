"""What a worker and the database tell each other: a stream, a claim, progress, a dead letter, the fence's refusal.

What goes here: plain records. What does not: SQL (``state``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ct_assets.errors import CtError
from ct_assets.streaming.definition import Acceptance

if TYPE_CHECKING:
    from ct_assets.streaming.decode import DeadLetter
    from ct_assets.streaming.messages import Messages


class Fenced(CtError):
    """Another worker claimed a partition of this commit: nothing was written. Claim again or let it go."""

    def __init__(self, stream: str, partitions: Sequence[int]) -> None:
        """Keep the partitions that are no longer this owner's."""
        super().__init__(
            f"partitions {sorted(partitions)} of stream {stream!r} belong to another worker; nothing was written"
        )
        self.partitions = tuple(sorted(partitions))


@dataclass(frozen=True)
class Stream:
    """One acceptance over one topic, as the database knows it."""

    stream_id: int
    name: str
    acceptance: Acceptance
    topic: str
    topic_id: str
    cluster_id: str
    source_kind: str
    ingestion_lag_us: int

    @property
    def event_time(self) -> str:
        """Name of the event time's column."""
        return self.acceptance.event_time

    @property
    def topic_key(self) -> tuple[str, str, str]:
        """Which topic it reads: kind of source, cluster and the topic's id."""
        return self.source_kind, self.cluster_id, self.topic_id

    @property
    def reading(self) -> str:
        """What it reads and how it judges, whichever topic of that name it was: incidents of a topic that was made again are
        over when the next one is read."""
        return f"{self.source_kind}://{self.topic} {self.acceptance.digest[:12]}"

    @property
    def label(self) -> str:
        """For people: name, topic and number (names and topics of two streams may be equal)."""
        return f"{self.name} ({self.source_kind}://{self.topic}, stream {self.stream_id})"


@dataclass(frozen=True)
class Claim:
    """A partition taken: ``next_offset`` is where to read (-2: the first offset the topic still holds).

    ``top`` and ``frontier`` (microseconds) are None while the partition never had an accepted event.
    """

    partition: int
    epoch: int
    next_offset: int
    top: int | None
    frontier: int | None
    leader_epoch: int | None = None


@dataclass(frozen=True)
class PartitionProgress:
    """What one commit does to one partition. Counts are of this commit; a time that is None stays as it was."""

    partition: int
    epoch: int
    expected_offset: int
    next_offset: int
    top: int | None = None
    frontier: int | None = None
    last_append: int | None = None
    leader_epoch: int | None = None
    late_accepted: int = 0
    late_dead: int = 0
    duplicates: int = 0
    dead: int = 0
    tombstones: int = 0


@dataclass(frozen=True)
class DeadLetterRow:
    """A message that was not accepted, as it is kept. ``append_time``: microseconds, None when absent."""

    partition: int
    offset: int
    reason: str
    error: str
    contract_digest: str
    raw: bytes
    append_time: int | None = None

    @classmethod
    def of(cls, letter: DeadLetter, messages: Messages, acceptance: Acceptance) -> DeadLetterRow:
        """The row of a dead letter out of a batch of messages."""
        append = int(messages.append_time[letter.index])
        return cls(
            partition=int(messages.partition[letter.index]),
            offset=int(messages.offset[letter.index]),
            reason=letter.reason,
            error=letter.error,
            contract_digest=acceptance.contract_digest,
            raw=messages.payload(letter.index) or b"",
            append_time=None if append < 0 else append,
        )

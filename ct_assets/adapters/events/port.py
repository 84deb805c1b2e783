"""The port that every source and sink of events stands behind, and the ways in which a log can betray its reader.

What goes here: the protocols, the identity of a topic, positions, the three losses that must stop a worker (F47 to F49),
and the choice of an adapter by URL. What does not: Kafka, files, decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ct_assets.errors import CtError, UsageError, did_you_mean

if TYPE_CHECKING:
    from ct_assets.settings import Settings
    from ct_assets.streaming.messages import Messages

BEGINNING = -2  # as an offset: the first one that the topic still holds
NO_EPOCH = -1


@dataclass(frozen=True)
class SourceIdentity:
    """Which topic this is. Two topics of one name differ in ``topic_id``; ``append_time``: the broker stamps arrivals."""

    kind: str
    cluster_id: str
    topic: str
    topic_id: str
    append_time: bool


class Position(NamedTuple):
    """The next offset to read, and the leader epoch of the message before it (-1: not known)."""

    offset: int
    leader_epoch: int = NO_EPOCH


# What callers may give for a partition: an offset alone, or one with the leader epoch it was read under.
Start = int | Position
OnAssign = Callable[[list[int]], Mapping[int, Start]]
OnPartitions = Callable[[list[int]], None]


class EventSource(Protocol):
    """One reader of one topic. Offsets of a partition ascend; nothing is skipped in silence.

    A reader either names its partitions (:meth:`assign`) or shares them with others (:meth:`subscribe`), not both.
    All methods raise :class:`~ct_assets.errors.CtError` when the source does not answer.
    """

    def identity(self) -> SourceIdentity:
        """Which topic this is, as of opening; a later change raises :class:`TopicRecreated` from :meth:`poll`."""
        ...

    def partitions(self) -> list[int]:
        """The topic's partitions now, ascending (they may grow)."""
        ...

    def assign(self, offsets: Mapping[int, Start]) -> None:
        """Read exactly these partitions from these offsets. Raises F47, F48 and F49's errors before the first read."""
        ...

    def subscribe(self, group: str, on_assign: OnAssign, on_revoke: OnPartitions, on_lost: OnPartitions) -> None:
        """Share the topic with the other members of ``group`` (cooperative: what stays is not interrupted).

        The callbacks run inside :meth:`poll` and :meth:`close`. ``on_assign`` gets the partitions that came and returns
        where to begin each; ``on_revoke`` those about to go (commit now); ``on_lost`` those already gone (do not commit).
        """
        ...

    def poll(self, max_messages: int, timeout_s: float) -> Messages:
        """The next messages of any assigned partition, at most ``max_messages``; none after ``timeout_s`` of silence."""
        ...

    def positions(self) -> dict[int, int]:
        """Where reading goes on: equals the end offset exactly when the partition is caught up.

        It may run ahead of the last message (transaction markers take offsets and are never messages).
        """
        ...

    def leader_epochs(self) -> dict[int, int]:
        """Leader epoch of the last message read per partition; absent where there is none. Store it beside the offset."""
        ...

    def begin_offsets(self, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """The first offset still held, per partition (all when None)."""
        ...

    def end_offsets(self, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """The offset that the next message will get, per partition (all when None); asks the broker."""
        ...

    def commit_offsets(self, offsets: Mapping[int, int]) -> None:
        """Tell the broker's tools how far the group is. Information only: the truth lies with the state."""
        ...

    def pause(self, partitions: Sequence[int]) -> None:
        """Deliver nothing of these until :meth:`resume` (back-pressure); the assignment stays."""
        ...

    def resume(self, partitions: Sequence[int]) -> None:
        """Go on with these."""
        ...

    def close(self) -> None:
        """Leave the group and release everything. Safe to repeat."""
        ...


class EventSink(Protocol):
    """A writer of one topic."""

    def partitions(self) -> list[int]:
        """The topic's partitions, ascending."""
        ...

    def send(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        partition: int | None = None,
        append_time: int | Sequence[int] | None = None,
    ) -> None:
        """Append ``values`` in order; None is a tombstone. Equal keys go to one partition unless ``partition`` says.

        ``append_time``: microseconds UTC, one for all or one each; only the embedded log can be told (a broker stamps).
        """
        ...

    def flush(self) -> None:
        """Return when everything sent is durable; raise when something could not be written."""
        ...

    def close(self) -> None:
        """Flush and release. Safe to repeat."""
        ...


class SourceError(CtError):
    """A source did not answer, or is not what it should be."""


class LostData(SourceError):
    """What the state needs next is no longer there. Nothing may go on by itself: a person decides."""


ACCEPT_LOSS = "ct stream accept-loss --definition FILE --source URL"


class OffsetOutOfRange(LostData):
    """F47: retention deleted messages that were never read."""

    def __init__(self, partition: int, committed: int, available_from: int) -> None:
        """``[committed, available_from)`` of ``partition`` is lost."""
        self.partition, self.committed, self.available_from = partition, committed, available_from
        super().__init__(
            f"partition {partition}: offset {committed} is next, but the topic begins at {available_from}: "
            f"{available_from - committed} offsets [{committed}, {available_from}) were deleted unread",
            hint=f"restore them from a backup; or see what is lost in all partitions with `{ACCEPT_LOSS}`, and give it up"
            " with --yes; then raise the topic's retention (retention.ms, retention.bytes)",
        )


class TopicRecreated(LostData):
    """F48: the topic was deleted and made again, or the URL leads to another cluster: its offsets mean nothing here."""

    def __init__(self, old_id: str, new_id: str) -> None:
        """``old_id`` is what the state was read from, ``new_id`` what is there (empty: nothing)."""
        self.old_id, self.new_id = old_id, new_id
        found = f"now it is {new_id}" if new_id else "now there is none of that name"
        super().__init__(
            f"the topic had the id {old_id}; {found}: no offset of the old one may be applied",
            hint="`ct stream deploy --definition FILE --source URL` says how to move to the new topic; otherwise mend the URL",
        )


class LogTruncated(LostData):
    """F49: the log ends before what was read: an unclean election or a restored disk took messages back."""

    def __init__(self, partition: int, committed: int, end: int) -> None:
        """``[end, committed)`` of ``partition`` was read and is gone; other messages may take those offsets."""
        self.partition, self.committed, self.end = partition, committed, end
        super().__init__(
            f"partition {partition}: offsets [{end}, {committed}) were read and are no longer in the log, which ends at {end}",
            hint="the state holds events that the log has lost: bring back the replica or backup that has them and start again;"
            " or copy what is left to a new topic and move there: `ct stream deploy --definition FILE --source URL` says how",
        )


def check_identity(stored: SourceIdentity, found: SourceIdentity) -> None:
    """Refuse to apply offsets of ``stored`` to ``found`` when they are two topics (F48)."""
    if stored.topic_id != found.topic_id or stored.cluster_id != found.cluster_id:
        raise TopicRecreated(f"{stored.cluster_id}/{stored.topic_id}", f"{found.cluster_id}/{found.topic_id}")


def position_of(start: Start) -> Position:
    """``start`` as a position."""
    return start if isinstance(start, Position) else Position(int(start))


def check_range(partition: int, offset: int, begin: int, end: int) -> None:
    """Raise F47 or F49 when ``offset`` lies outside ``[begin, end]`` of ``partition``."""
    if offset < begin:
        raise OffsetOutOfRange(partition, offset, begin)
    if offset > end:
        raise LogTruncated(partition, offset, end)


@dataclass(frozen=True)
class EventUrl:
    """``kafka://HOST:PORT[,HOST:PORT...]/TOPIC`` or ``log://DIR``, taken apart. ``place``: brokers, or the folder."""

    kind: str
    place: str
    topic: str | None = None


def parse_url(url: str) -> EventUrl:
    """Take ``url`` apart. Raises :class:`~ct_assets.errors.UsageError` with the two forms."""
    scheme, sep, rest = url.partition("://")
    forms = "expected kafka://HOST:PORT[,HOST:PORT]/TOPIC or log://DIR"
    if not sep or scheme not in ("kafka", "log"):
        near = did_you_mean(scheme, ("kafka", "log")) if sep else None
        raise UsageError(f"no source or sink of events: {url!r}", hint=f"{near}; {forms}" if near else forms)
    if scheme == "log":
        if not rest:
            raise UsageError(f"{url!r} names no folder", hint=forms)
        return EventUrl("log", rest)
    if "@" in rest:
        raise UsageError(
            "a kafka:// URL holds no user or password", hint="set CT_KAFKA_SASL_USERNAME and CT_KAFKA_SASL_PASSWORD"
        )
    brokers, _, topic = rest.partition("/")
    named = all(host.rpartition(":")[0] and host.rpartition(":")[2].isdigit() for host in brokers.split(","))
    if not named or not topic or "/" in topic:
        raise UsageError(f"incomplete address {url!r}", hint=forms)
    return EventUrl("kafka", brokers, topic)


def open_source(url: str, settings: Settings | None = None) -> EventSource:
    """The source at ``url``. ``settings`` (default: the environment's) say how to log in and how to read.

    Raises :class:`SourceError` when there is no such topic or nobody answers.
    """
    where = parse_url(url)
    if where.kind == "log":
        from ct_assets.adapters.events.log import LogSource

        return LogSource(where.place)
    from ct_assets.adapters.events.kafka_batches import open_kafka_source

    assert where.topic is not None
    return open_kafka_source(where.place, where.topic, _kafka(settings))


def open_sink(url: str, settings: Settings | None = None, partitions: int | None = None) -> EventSink:
    """The sink at ``url``. ``partitions``: make the topic with so many when it is absent (a log: 1 by default).

    Raises :class:`SourceError` when the topic is absent and ``partitions`` is None (Kafka), or has another number.
    """
    where = parse_url(url)
    if where.kind == "log":
        from ct_assets.adapters.events.log import LogSink

        return LogSink(where.place, partitions)
    from ct_assets.adapters.events.kafka_sink import KafkaSink

    assert where.topic is not None
    return KafkaSink(where.place, where.topic, _kafka(settings), partitions)


def _kafka(settings: Settings | None):
    from ct_assets.settings import load

    return (settings or load()).kafka

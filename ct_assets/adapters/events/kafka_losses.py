"""What an error of librdkafka means for the data: nothing, or one of the losses that stop a reader (F47 to F49).

What goes here: finding out which; watching the topic's id. What does not: reading.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import Future
from typing import Any

from ct_assets.adapters.events.kafka_client import LOG, KafkaTopic, NoSuchTopic
from ct_assets.adapters.events.port import (
    LogTruncated,
    LostData,
    SourceError,
    SourceIdentity,
    TopicRecreated,
    check_range,
)

IDENTITY_SECONDS = 1.0  # between two looks at the topic's id: how long a recreated topic may go unnoticed at most


class IdentityWatch:
    """Asks from time to time, without waiting, whether the topic is still the one that was opened."""

    def __init__(self, topic: KafkaTopic, identity: SourceIdentity) -> None:
        """``identity``: the topic as it was opened."""
        self._topic, self._id = topic, identity.topic_id
        self._asked: Future | None = None
        self._next = time.monotonic() + IDENTITY_SECONDS

    def wait(self) -> None:
        """Ask and wait. Raises :class:`TopicRecreated`; :class:`SourceError` when nobody answers."""
        self._check(self._topic.ask())

    def look(self) -> None:
        """Read the last answer if it has come; ask again when it is time. Raises :class:`TopicRecreated`."""
        if self._asked is not None and self._asked.done():
            asked, self._asked = self._asked, None
            try:
                self._check(asked)
            except LostData:
                raise
            except SourceError as silent:
                LOG.warning("%s", silent.message)
        if self._asked is None and time.monotonic() >= self._next:
            self._asked = self._topic.ask()
            self._next = time.monotonic() + IDENTITY_SECONDS

    def _check(self, asked: Future) -> None:
        try:
            found = str(self._topic.answer(asked).topic_id)
        except NoSuchTopic:
            found = ""
        if found != self._id:
            raise TopicRecreated(self._id, found)


def is_doubtful(error: Any) -> bool:
    """Whether ``error`` may mean that data is gone."""
    from confluent_kafka import KafkaError

    return error.code() in (
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError._LOG_TRUNCATION,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
    )


def diagnose(topic: KafkaTopic, watch: IdentityWatch, error: Any, partition: int, at: int | None) -> SourceError | None:
    """What ``error`` at offset ``at`` of ``partition`` means (``at`` None: not assigned any more); None: go on."""
    from confluent_kafka import KafkaError

    try:
        watch.wait()
        if at is None:
            return None
        begin = topic.offsets([partition], end=False)[partition]
        check_range(partition, at, begin, topic.offsets([partition], end=True)[partition])
    except LostData as lost:
        return lost
    except SourceError as silent:  # the broker is away: librdkafka tries again
        LOG.warning("partition %s: %s; %s", partition, error.str(), silent.message)
        return None
    if "log truncation" in error.str():  # other messages lie on these offsets: KIP-320 saw it, the range does not
        return LogTruncated(partition, at, _agreed_end(error.str(), at))
    if error.code() == KafkaError._AUTO_OFFSET_RESET:  # librdkafka has stopped reading the partition
        return SourceError(f"partition {partition}: {error.str()}", hint="nothing is lost: start again")
    return None


def _agreed_end(text: str, position: int) -> int:
    """Up to where log and reader agree ("... broker end offset is N ..."); the position itself when unsaid."""
    found = re.search(r"broker end offset is (\d+)", text)
    return int(found.group(1)) if found else position

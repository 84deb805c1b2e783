"""A Kafka topic as its cluster describes it: how to log in, which topic this is, where its partitions begin and end.

What goes here: options of librdkafka, questions to the cluster, making topics. What does not: reading (``kafka``),
writing (``kafka_sink``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.events.port import SourceError, SourceIdentity
from ct_assets.errors import UsageError, did_you_mean
from ct_assets.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

LOG = logging.getLogger("ct_assets.kafka")
ANSWER_SECONDS = 10.0


def client_options(brokers: str, kafka: KafkaSettings) -> dict[str, Any]:
    """Options of librdkafka that every client shares. Holds secrets: never print it."""
    options: dict[str, Any] = {
        "bootstrap.servers": brokers,
        "client.id": "ct_assets",
        "security.protocol": kafka.security_protocol,
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password.reveal() if kafka.sasl_password else None,
        "ssl.ca.location": kafka.ssl_ca,
        "ssl.certificate.location": kafka.ssl_certificate,
        "ssl.key.location": kafka.ssl_key,
        "ssl.key.password": kafka.ssl_key_password.reveal() if kafka.ssl_key_password else None,
        "log_level": 2,  # what matters comes through error_cb; at the default a stopped broker fills the screen
        "reconnect.backoff.max.ms": 1000,
    }
    options = {name: value for name, value in options.items() if value is not None}
    return options | further_options(kafka)


def further_options(kafka: KafkaSettings) -> dict[str, str]:
    """``CT_KAFKA_OPTIONS`` taken apart; they win over everything that is chosen here."""
    found = {}
    for part in (kafka.options.reveal() if kafka.options else "").split(";"):
        name, sep, value = part.partition("=")
        if part.strip() and not sep:
            raise UsageError("CT_KAFKA_OPTIONS has a part without '='", hint="expected name=value;name=value")
        if sep:
            found[name.strip()] = value.strip()
    return found


class KafkaTopic:
    """Questions to a cluster about one topic."""

    def __init__(self, brokers: str, topic: str, kafka: KafkaSettings) -> None:
        """Nothing is asked yet."""
        self.brokers, self.name, self._options = brokers, topic, client_options(brokers, kafka)
        self._client: AdminClient | None = None
        self._cause: str | None = None

    def admin(self) -> AdminClient:
        """The client, made on first use and kept: librdkafka drops the answers of one that was collected."""
        if self._client is None:
            from confluent_kafka import KafkaException
            from confluent_kafka.admin import AdminClient

            try:
                options: dict[str, Any] = self._options | {"error_cb": self._noted}
                self._client = AdminClient(options)
            except KafkaException as error:
                raise UsageError(f"librdkafka refuses these options: {error.args[0].str()}") from error
        return self._client

    def _noted(self, error: Any) -> None:
        self._cause = error.str()

    def answer(self, future: Future) -> Any:
        """What the cluster answers. Raises :class:`SourceError` with the cause that librdkafka saw."""
        from confluent_kafka import KafkaException

        try:
            return future.result(ANSWER_SECONDS + 1)
        except (KafkaException, TimeoutError) as error:
            raise self._refused(error) from error

    def _refused(self, error: BaseException) -> SourceError:
        from confluent_kafka import KafkaError

        found = error.args[0] if error.args and isinstance(error.args[0], KafkaError) else None
        if found is not None and found.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return NoSuchTopic(self.name, self.brokers, self._topics())
        if self._client is not None:
            self._client.poll(0)  # lets error_cb speak
        text = found.str() if found is not None else "no answer"
        return SourceError(
            f"Kafka at {self.brokers}: {text}" + (f" ({self._cause})" if self._cause and self._cause != text else ""),
            hint="is the address right, the broker up, and CT_KAFKA_SECURITY_PROTOCOL what it expects?",
        )

    def _topics(self) -> list[str]:
        from confluent_kafka import KafkaException

        try:
            return sorted(name for name in self.admin().list_topics(timeout=5).topics if not name.startswith("__"))
        except KafkaException:
            return []

    def ask(self) -> Future:
        """Ask for the topic's description; :meth:`answer` waits for it."""
        from confluent_kafka import TopicCollection

        asked = self.admin().describe_topics(TopicCollection([self.name]), request_timeout=ANSWER_SECONDS)
        return asked[self.name]

    def partitions(self) -> list[int]:
        """The topic's partitions, ascending."""
        return sorted(p.id for p in self.answer(self.ask()).partitions)

    def identity(self) -> SourceIdentity:
        """Cluster and topic id, and whether the broker stamps arrivals."""
        topic_id = str(self.answer(self.ask()).topic_id)
        cluster = self.answer(self.admin().describe_cluster(request_timeout=ANSWER_SECONDS)).cluster_id
        stamped = self.config()["message.timestamp.type"] == "LogAppendTime"
        return SourceIdentity("kafka", cluster, self.name, topic_id, stamped)

    def config(self) -> dict[str, str]:
        """The topic's settings as the broker applies them."""
        from confluent_kafka.admin import ConfigResource, ResourceType  # pyright: ignore[reportPrivateImportUsage]

        resource = ConfigResource(ResourceType.TOPIC, self.name)
        asked = self.admin().describe_configs([resource], request_timeout=ANSWER_SECONDS)
        return {name: entry.value for name, entry in self.answer(asked[resource]).items()}

    def offsets(self, partitions: Sequence[int] | None, *, end: bool) -> dict[int, int]:
        """The first offset (or the one behind the last readable message) of the partitions, all when None."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            wanted = self.partitions() if partitions is None else partitions
            try:
                return self._offsets(wanted, end)
            except SourceError as error:
                if not _is_passing(error.__cause__) or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _offsets(self, partitions: Sequence[int], end: bool) -> dict[int, int]:
        from confluent_kafka import IsolationLevel, TopicPartition
        from confluent_kafka.admin import OffsetSpec  # pyright: ignore[reportPrivateImportUsage]

        spec: Any = OffsetSpec.latest() if end else OffsetSpec.earliest()
        asked = self.admin().list_offsets(
            {TopicPartition(self.name, p): spec for p in partitions},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ANSWER_SECONDS,
        )
        return {tp.partition: self.answer(future).offset for tp, future in asked.items()}

    def create(self, partitions: int, **config: str) -> None:
        """Make the topic with ``LogAppendTime`` and wait until it is known."""
        from confluent_kafka.admin import NewTopic  # pyright: ignore[reportPrivateImportUsage]

        topic = NewTopic(self.name, partitions, config={"message.timestamp.type": "LogAppendTime"} | config)
        self.answer(self.admin().create_topics([topic], operation_timeout=ANSWER_SECONDS)[self.name])
        self._until_known(partitions)

    def add_partitions(self, total: int) -> None:
        """Grow the topic to ``total`` partitions."""
        from confluent_kafka.admin import NewPartitions  # pyright: ignore[reportPrivateImportUsage]

        grown = NewPartitions(self.name, total)
        self.answer(self.admin().create_partitions([grown], operation_timeout=ANSWER_SECONDS)[self.name])
        self._until_known(total)

    def _until_known(self, partitions: int) -> None:
        """The controller answers before the brokers know: wait until they do."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                if len(self.partitions()) == partitions or time.monotonic() > deadline:
                    return
            except NoSuchTopic:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)


def _is_passing(cause: BaseException | None) -> bool:
    """Whether an answer is wrong only while a leader moves: a restarted broker, an election."""
    from confluent_kafka import KafkaError

    found = cause.args[0] if cause is not None and cause.args else None
    return isinstance(found, KafkaError) and found.code() in (
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    )


class NoSuchTopic(SourceError):
    """The cluster has no topic of this name."""

    def __init__(self, topic: str, brokers: str, present: list[str]) -> None:
        """``present``: the topics that there are."""
        near = did_you_mean(topic, present) or (f"it has {', '.join(present[:8])}" if present else "it has none")
        super().__init__(
            f"no topic {topic!r} at {brokers}", hint=f"{near}; ct events produce ... --partitions N makes one"
        )

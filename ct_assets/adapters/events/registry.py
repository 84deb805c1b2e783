"""Writer schemas of Avro messages: from memory, from disk, else from a Confluent-compatible schema registry.

What goes here: asking the registry, keeping what it said, telling "it is down" from "it does not know". What does not:
decoding (``streaming.avro``), registering schemas (that is CI's, with other credentials).

A schema id never changes its meaning within a registry, so what was fetched once is kept for good: a registry that is
down stops only messages with ids that this installation has never seen (F34). REST form:
https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.adapters.events.port import SourceError
from ct_assets.errors import CtError, UsageError
from ct_assets.settings import KafkaSettings, redact

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

ANSWER_SECONDS = 5.0
ASKED = 3  # times, before an id counts as unknown: a producer's new schema reaches the replicas a moment later
WAIT_SECONDS = 0.5


class RegistryDown(SourceError):
    """The registry does not answer and the schema is not kept here: the worker begins again and waits, nothing is lost."""


class SchemaNotKnown(SourceError):
    """The registry answers and has no such id, and the policy is to wait until it has."""


class UnusableSchema(CtError):
    """A schema that these messages cannot be read by: another format, or one that refers to other subjects."""


class Schemas:
    """The writer schemas of one registry, by id: :meth:`text` is what ``AvroDecoder`` asks."""

    def __init__(
        self, kafka: KafkaSettings, folder: Path, *, wait_for_unknown: bool = False, clock: Clock | None = None
    ):
        """``folder`` keeps one file an id, below a name made of the registry's URL. Asks nothing yet."""
        if kafka.registry_url is None:
            raise UsageError(
                "Avro messages need a schema registry",
                hint="set CT_SCHEMA_REGISTRY_URL (and CT_SCHEMA_REGISTRY_USERNAME, CT_SCHEMA_REGISTRY_PASSWORD)",
            )
        self._kafka, self._url, self._clock = kafka, kafka.registry_url, clock or SystemClock()
        self._folder = folder / hashlib.sha256(self._url.rstrip("/").encode()).hexdigest()[:16]
        self._wait_for_unknown = wait_for_unknown
        self._known: dict[int, str] = {}
        self._client: SchemaRegistryClient | None = None

    def text(self, schema_id: int) -> str:
        """The schema of that id as JSON text.

        Raises LookupError when the registry does not know it (:class:`SchemaNotKnown` when that is to be waited for),
        :class:`RegistryDown` when it does not answer, :class:`UnusableSchema`.
        """
        if schema_id not in self._known:
            kept = self._folder / f"{schema_id}.avsc"
            if kept.is_file():
                self._known[schema_id] = kept.read_text(encoding="utf-8")
            else:
                self._known[schema_id] = self._keep(kept, self._fetch(schema_id))
        return self._known[schema_id]

    def answers(self) -> list[str]:
        """The registry's subjects: whether it is reachable with these credentials. Raises :class:`RegistryDown`."""
        return self._ask(lambda client: client.get_subjects())

    def _keep(self, kept: Path, text: str) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".part-{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.replace(kept)
        return text

    def _fetch(self, schema_id: int) -> str:
        for attempt in range(1, ASKED + 1):
            try:
                found = self._ask(lambda client: client.get_schema(schema_id))
            except LookupError:
                if attempt < ASKED:
                    self._clock.sleep(WAIT_SECONDS)
                continue
            if found.schema_type != "AVRO" or found.references:
                what = "refers to other subjects" if found.references else f"is {found.schema_type}, not Avro"
                raise UnusableSchema(
                    f"schema {schema_id} of {redact(self._url)} {what}",
                    hint="register it as one self-contained Avro schema",
                )
            return found.schema_str
        if self._wait_for_unknown:
            raise SchemaNotKnown(
                f"the registry {redact(self._url)} has no schema {schema_id}", hint="is it the producer's registry?"
            )
        raise LookupError(schema_id)

    def _ask(self, question: Any) -> Any:
        """Ask once. Raises LookupError for "not found" and :class:`RegistryDown` for no answer, 5xx, 401."""
        from confluent_kafka.schema_registry import SchemaRegistryClient
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        if self._client is None:
            options: dict[str, Any] = {"url": self._url, "timeout": ANSWER_SECONDS, "max.retries": 0}
            if self._kafka.registry_username:
                password = self._kafka.registry_password
                options["basic.auth.user.info"] = (
                    f"{self._kafka.registry_username}:{password.reveal() if password else ''}"
                )
            self._client = SchemaRegistryClient(options)
        try:
            return question(self._client)
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                raise LookupError(str(error)) from error
            raise self._down(f"{error.http_status_code}: {error.error_message}") from error
        except Exception as error:  # the client lets its HTTP library's errors through; all of them mean "no answer"
            raise self._down(f"{type(error).__name__}: {error}") from error

    def _down(self, why: str) -> RegistryDown:
        return RegistryDown(
            f"schema registry {redact(self._url)}: {why}",
            hint="messages with schemas that are kept go on; new ones wait, nothing is lost. `ct doctor` asks it again",
        )

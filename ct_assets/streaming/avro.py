"""Avro messages in Confluent's framing: a zero byte, the schema's id in four bytes, one record.

What goes here: framing, the cache of writer schemas, records to typed events. What does not: asking a registry (the
caller hands in ``fetch_schema``), the truth table of values (``values.py``).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from ct_assets.contracts.model import DatasetSchema
from ct_assets.errors import CtError
from ct_assets.streaming.decode import Decoded, EventFrames, decode_each
from ct_assets.streaming.definition import Acceptance
from ct_assets.streaming.messages import Messages
from ct_assets.streaming.values import Reading, Refused

HEADER = 5


class UnknownSchema(CtError):
    """No registry knows the schema id of a message; the caller may wait, or ask for dead letters instead."""

    def __init__(self, schema_id: int) -> None:
        """Keep the id, so that the caller can ask again."""
        super().__init__(f"no schema with id {schema_id}", hint="is the registry the one that the producer uses?")
        self.schema_id = schema_id


class AvroDecoder:
    """Avro messages. ``fetch_schema(id)`` gives the writer's schema (text or parsed) or raises LookupError."""

    def __init__(
        self,
        schema: DatasetSchema,
        acceptance: Acceptance,
        fetch_schema: Callable[[int], str | dict[str, Any]],
        *,
        unknown_is_dead: bool = True,
    ) -> None:
        """``unknown_is_dead``: an unknown schema id is a dead letter ``poison``; otherwise UnknownSchema is raised."""
        self._frames = EventFrames(schema, acceptance)
        self._reading = Reading(schema, acceptance)
        self._fetch = fetch_schema
        self._unknown_is_dead = unknown_is_dead
        self._schemas: dict[int, Any] = {}

    def decode(self, messages: Messages) -> Decoded:
        """Typed events in the order of the messages, dead letters, tombstones. Raises UnknownSchema if asked to."""
        here = np.flatnonzero(messages.length >= 0).tolist()
        frame, dead = decode_each(messages, here, self._parse, self._frames, self._reading)
        frame, broken = self._frames.judged(frame)
        dead = sorted([*dead, *broken], key=lambda letter: letter.index)
        return Decoded(frame, dead, np.flatnonzero(messages.length < 0).astype(np.int64))

    def _parse(self, payload: bytes) -> dict[str, Any]:
        import fastavro

        if len(payload) < HEADER or payload[0] != 0:
            raise Refused("poison", f"no Confluent framing: begins with {payload[:HEADER].hex() or 'nothing'}")
        schema = self._schema(int.from_bytes(payload[1:HEADER], "big"))
        body = io.BytesIO(payload[HEADER:])
        try:
            found = fastavro.schemaless_reader(body, schema, None)
        except Exception as wrong:  # noqa: BLE001 (fastavro raises many kinds for torn bytes; all of them are poison)
            raise Refused("poison", f"no Avro: {type(wrong).__name__}: {str(wrong)[:160]}") from None
        if body.read(1):
            raise Refused("poison", "bytes follow the Avro record")
        if not isinstance(found, dict):
            raise Refused("poison", f"no Avro record but a {type(found).__name__}")
        return found

    def _schema(self, schema_id: int) -> Any:
        import fastavro

        if schema_id not in self._schemas:
            try:
                text = self._fetch(schema_id)
            except LookupError:
                if not self._unknown_is_dead:
                    raise UnknownSchema(schema_id) from None
                raise Refused("poison", f"unknown schema id {schema_id}") from None
            self._schemas[schema_id] = fastavro.parse_schema(json.loads(text) if isinstance(text, str) else text)
        return self._schemas[schema_id]

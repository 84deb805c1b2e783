"""Which decoder reads a topic's messages.

What goes here: the choice by name. What does not: the decoders (``streaming``), the registry (``registry``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ct_assets.settings import Settings

if TYPE_CHECKING:
    from ct_assets.streaming.avro import AvroDecoder
    from ct_assets.streaming.decode import JsonDecoder
    from ct_assets.streaming.definition import Definition

FORMATS = ("json", "avro")
UNKNOWN_SCHEMA = ("dead-letter", "wait")


def open_decoder(
    settings: Settings, definition: Definition, name: str = "json", unknown_schema: str = "dead-letter"
) -> JsonDecoder | AvroDecoder:
    """The decoder called ``name``. ``unknown_schema``: what becomes of a message whose schema id nobody knows.

    Raises UsageError when Avro is asked for and no registry is set.
    """
    if name == "json":
        from ct_assets.streaming.decode import JsonDecoder

        return JsonDecoder(definition.schema, definition.acceptance)
    from ct_assets.adapters.events.registry import Schemas
    from ct_assets.streaming.avro import AvroDecoder

    schemas = Schemas(settings.kafka, settings.home / "schemas", wait_for_unknown=unknown_schema == "wait")
    return AvroDecoder(definition.schema, definition.acceptance, schemas.text)

"""Stream definitions as Feast objects: the one place where a name or a type is carried over.

What goes here: entity, source and feature view of a definition. What does not: anything a definition does not say.
A view is called as its definition, its features as the aggregates; its tags carry the definition's hash, and reads go to
exactly that version, so a value of another version never reaches a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureView, Field  # noqa: TID253 - only the feature repository imports this module
from feast.types import Bool, FeastType, Float64, Int64, String, UnixTimestamp  # noqa: TID253
from feast.value_type import ValueType  # noqa: TID253

from ct_assets.adapters.feast.source import StreamEventsSource
from ct_assets.streaming.definition import Aggregate, Definition, load_definition

HASH_TAG, NAME_TAG = "ct_definition_hash", "ct_definition"
# Feast has no exact type that its transformations accept: decimals are doubles there, exact in SQL
_TYPES: dict[str, FeastType] = {"integer": Int64, "number": Float64, "boolean": Bool, "timestamp": UnixTimestamp}


def definition_files(root: Path) -> list[Path]:
    """The definition files of all instances under ``root`` (``defs/<team>/<pipeline>/streams/*.yaml``)."""
    return sorted(root.rglob("streams/*.yaml"))


def feast_type(definition: Definition, aggregate: Aggregate) -> FeastType:
    """The type of an aggregate's value in Feast."""
    found = definition.result_type(aggregate)
    return Float64 if found.startswith("decimal") else _TYPES.get(found, String)


def entity_of(definition: Definition) -> Entity:
    """The entity: its key column is its name."""
    kind = ValueType.INT64 if _is_integer(definition) else ValueType.STRING
    return Entity(
        name=definition.entity, join_keys=[definition.entity], value_type=kind, description=f"key of {definition.name}"
    )


def view_of(definition: Definition, entity: Entity) -> FeatureView:
    """The live view of a definition."""
    key = Field(name=definition.entity, dtype=Int64 if _is_integer(definition) else String)
    fields = [
        Field(name=a.name, dtype=feast_type(definition, a), description=described(a)) for a in definition.aggregates
    ]
    return FeatureView(
        name=definition.name,
        entities=[entity],
        ttl=timedelta(microseconds=definition.ttl_us),
        schema=[key, *fields],
        source=StreamEventsSource(
            name=f"{definition.name}_events",
            definition=definition.name,
            definition_hash=definition.hash,
            columns=[field.name for field in (key, *fields)],
            description="accepted events; values are computed at the moments asked for",
        ),
        description=definition.description,
        tags={NAME_TAG: definition.name, HASH_TAG: definition.hash},
    )


def described(aggregate: Aggregate) -> str:
    """An aggregate in words: ``count over 5 min where event_type is purchase``."""
    what = aggregate.function if aggregate.column is None else f"{aggregate.function} of {aggregate.column}"
    where = " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in aggregate.where)
    return f"{what} over {aggregate.window_us / 6e7:g} min" + (f" where {where}" if where else "")


def projected(files: Iterable[Path]) -> dict[str, Any]:
    """Entities and views of all definitions, by name; definitions of one entity share it."""
    found: dict[str, Any] = {}
    for path in files:
        definition = load_definition(path)
        entity = found.setdefault(definition.entity, entity_of(definition))
        found[definition.name] = view_of(definition, entity)
    return found


def _is_integer(definition: Definition) -> bool:
    return definition.schema.column(definition.entity).type == "integer"

"""A definition file (YAML, ``kind: StreamAggregates``) becomes a :class:`Definition`.

What goes here: the walk over the file, its defaults and its errors with file and line. What does not: what a definition
means (``definition.py``, ``oracle.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ct_assets.contracts import safe_yaml
from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.model import Column, Contract, DatasetSchema
from ct_assets.contracts.odcs import load_contract
from ct_assets.contracts.predicate import Node
from ct_assets.contracts.reading import Reader
from ct_assets.contracts.safe_yaml import Block
from ct_assets.errors import UsageError
from ct_assets.streaming.aggregates import RESERVED, read_aggregates
from ct_assets.streaming.definition import (
    UNITS_OF_TIME,
    Acceptance,
    Definition,
    contract_digest,
)
from ct_assets.streaming.walk import DURATION, DefinitionError, Walk, duration_text

API_VERSION, KIND = "ct_assets/v1", "StreamAggregates"
KEYS = (
    "apiVersion",
    "kind",
    "name",
    "description",
    "owner",
    "source",
    "entity",
    "out_of_orderness",
    "allowed_lateness",
    "idle_timeout",
    "max_future_skew",
    "dedup_horizon",
    "ttl",
    "freshness",
    "on_stale",
    "emit",
    "aggregates",
)
SOURCE_KEYS = ("contract", "schema", "event_id", "event_time")
HOUR = DURATION["h"]


def read_definition(path: Path) -> Definition:
    """Read a definition file. Raises ContractError with file and line, or UsageError when there is no such file."""
    if not path.is_file():
        raise UsageError(f"no definition at {path}", hint="give the path of a YAML file of kind StreamAggregates")
    raw, walk = _yaml(path), Walk(path)
    _check_head(raw, walk)
    name = walk.name(raw, "a definition", "user_activity")
    contract_path, schema, source, unit = _source(raw, walk)
    entity = _entity(raw, walk, schema)
    acceptance = _acceptance(raw, walk, schema, (str(source["event_id"]), str(source["event_time"]), entity.name, unit))
    aggregates = read_aggregates(raw, schema, acceptance, walk)
    definition = Definition(
        name=name,
        entity=entity.name,
        acceptance=acceptance,
        aggregates=aggregates,
        ttl_us=walk.duration(raw, "ttl", least=1),
        freshness_us=walk.duration(raw, "freshness", least=1) if raw.get("freshness") is not None else None,
        on_stale=_on_stale(raw, walk),
        schema=schema,
        path=path,
        emit_hop_us=_emit(raw, walk, max(a.window_us for a in aggregates)),
        contract_path=contract_path,
        description=str(raw.get("description") or ""),
    )
    _check_ttl(raw, walk, definition)
    return definition


def _yaml(path: Path) -> Block:
    try:
        return safe_yaml.load(path)
    except ContractError as wrong:
        raise DefinitionError(wrong.file, wrong.line, wrong.reason, wrong.hint) from None


def _on_stale(raw: Block, walk: Walk) -> str:
    """``null`` in YAML is the word here, with and without quotes; absent is ``flag``."""
    if "on_stale" in raw and raw["on_stale"] is None:
        return "null"
    return walk.choice(raw, "on_stale", ("flag", "null"))


def _entity(raw: Block, walk: Walk, schema: DatasetSchema) -> Column:
    entity = walk.column(raw, "entity", schema)
    if entity.type not in ("string", "integer"):
        hint = "a string or an integer identifies an entity"
        raise walk.error(raw, "entity", f"the entity {entity.name} is a {entity.type}", hint)
    if entity.name in RESERVED:
        hint = (
            f"a row of answers has fields of its own: {', '.join(RESERVED)}; the events need another name for the key"
        )
        raise walk.error(raw, "entity", f"{entity.name!r} is no name for an entity", hint)
    return entity


def _check_head(raw: Block, walk: Walk) -> None:
    walk.known(raw, KEYS, "definition")
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if raw.get(key) != wanted:
            raise walk.error(raw, key, f"{key} is {raw.get(key)!r}", f"write `{key}: {wanted}`")


def _source(raw: Block, walk: Walk) -> tuple[Path, DatasetSchema, Block, str]:
    source = raw.get("source")
    if not isinstance(source, Block):
        raise walk.error(
            raw,
            "source",
            "a definition needs `source`",
            "for example {contract: events.odcs.yaml, event_id: event_id, event_time: event_time}",
        )
    walk.known(source, SOURCE_KEYS, "source")
    path = walk.path.parent / walk.text(source, "contract", "source", "events.odcs.yaml")
    if not path.is_file():
        raise walk.error(source, "contract", f"no contract at {path}", "the path is relative to this file")
    contract = load_contract(path)
    schema = _without_day(contract, contract.schema(str(source["schema"]) if source.get("schema") else None))
    event_id = walk.column(source, "event_id", schema)
    if event_id.type not in ("string", "integer"):
        raise walk.error(source, "event_id", f"{event_id.name} is a {event_id.type}", "an id is a string or an integer")
    event_time = walk.column(source, "event_time", schema)
    return path, schema, source, _unit(contract, schema, event_time, source, walk)


def _without_day(contract: Contract, schema: DatasetSchema) -> DatasetSchema:
    """A rule about the delivery's day means nothing on a stream. Raises ContractError."""
    for rule in schema.rules:
        if isinstance(rule.limit, Node) and rule.limit.uses_delivery_day():
            hint = "a stream has no deliveries; give events a contract of their own"
            raise Reader(contract.path).at(rule.line, f"the rule {rule.name} compares with ${{deliveryDay}}", hint)
    return schema


def _unit(contract: Contract, schema: DatasetSchema, column: Column, source: Block, walk: Walk) -> str:
    """iso for a timestamp; for an integer the custom property ``unit``. Raises ContractError otherwise."""
    if column.type == "timestamp":
        return "iso"
    if column.type != "integer":
        raise walk.error(
            source,
            "event_time",
            f"{column.name} is a {column.type}",
            "a timestamp, or an integer with the custom property unit",
        )
    unit = _custom_unit(contract, schema, column)
    if unit not in UNITS_OF_TIME:
        found = "no custom property `unit`" if unit is None else f"unit {unit!r}"
        hint = "add `customProperties: [{property: unit, value: us}]` (us, ms or s) to the column"
        raise Reader(contract.path).at(column.line, f"{column.name} is an integer time with {found}", hint)
    return str(unit)


def _custom_unit(contract: Contract, schema: DatasetSchema, column: Column) -> Any:
    blocks = [b for b in contract.raw.get("schema") or () if b.get("name") == schema.name]
    properties = [p for b in blocks for p in b.get("properties") or () if p.get("name") == column.name]
    customs = [c for p in properties for c in p.get("customProperties") or () if c.get("property") == "unit"]
    return customs[0].get("value") if customs else None


def _acceptance(raw: Block, walk: Walk, schema: DatasetSchema, names: tuple[str, str, str, str]) -> Acceptance:
    event_id, event_time, entity, unit = names
    disorder = walk.duration(raw, "out_of_orderness")
    lateness = walk.duration(raw, "allowed_lateness")
    horizon = walk.duration(raw, "dedup_horizon", max(HOUR, disorder + lateness))
    if horizon < disorder + lateness:
        hint = "an id must be remembered at least as long as a repeat of it could be accepted; an hour is usual"
        raise walk.error(
            raw,
            "dedup_horizon",
            f"dedup_horizon is {raw['dedup_horizon']}, less than out_of_orderness + allowed_lateness",
            hint,
        )
    return Acceptance(
        contract_digest=contract_digest(schema, unit),
        event_id=event_id,
        event_time=event_time,
        entity=entity,
        out_of_orderness_us=disorder,
        allowed_lateness_us=lateness,
        idle_timeout_us=walk.duration(raw, "idle_timeout", 30 * DURATION["s"], least=1),
        max_future_skew_us=walk.duration(raw, "max_future_skew", 5 * DURATION["m"]),
        dedup_horizon_us=horizon,
        time_unit=unit,
    )


def _check_ttl(raw: Block, walk: Walk, definition: Definition) -> None:
    if definition.ttl_us < definition.max_window_us:
        hint = "an entity's values would vanish while its events still count: make ttl at least as long"
        longest = duration_text(definition.max_window_us)
        raise walk.error(raw, "ttl", f"ttl is {raw['ttl']}, the longest window {longest}", hint)


def _emit(raw: Block, walk: Walk, longest_us: int) -> int | None:
    emit = raw.get("emit")
    if emit is None:
        return None
    if not isinstance(emit, Block):
        raise walk.error(raw, "emit", f"emit is {emit!r}", "for example `emit: {hop: 10s}`")
    walk.known(emit, ("hop",), "emit")
    hop = walk.duration(emit, "hop", least=1)
    if hop > longest_us:
        hint = "events between two windows would be in no row: a hop is at most as long as the longest window"
        raise walk.error(emit, "hop", f"the hop {emit['hop']} is longer than every window", hint)
    return hop

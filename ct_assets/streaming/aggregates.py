"""The aggregates of a definition file: functions, columns that fit, windows, filters.

What goes here: reading and checking one aggregate. What does not: the rest of the file (``reading.py``).
"""

from __future__ import annotations

from typing import Any

from ct_assets.contracts.model import DatasetSchema
from ct_assets.contracts.properties import typed_value
from ct_assets.contracts.safe_yaml import Block, Items
from ct_assets.errors import did_you_mean
from ct_assets.streaming.definition import FUNCTIONS, NUMERIC, ORDERED, Acceptance, Aggregate
from ct_assets.streaming.walk import Walk

AGGREGATE_KEYS = ("name", "function", "column", "window", "where", "mode", "hop", "description")
# beside the values: `ct features get` (see cli.features), hop emission, Feast's label frames
RESERVED = (
    "at",
    "as_known_at",
    "watermark",
    "beyond_watermark",
    "whole_from",
    "staleness_seconds",
    "is_stale",
    "definition",
    "window_end",
    "event_timestamp",
)


def read_aggregates(raw: Block, schema: DatasetSchema, acceptance: Acceptance, walk: Walk) -> tuple[Aggregate, ...]:
    """The aggregates of a definition. Raises ContractError with file and line."""
    items = walk.items(raw, "aggregates")
    if not items:
        raise walk.error(
            raw,
            "aggregates",
            "a definition needs aggregates",
            "for example - {name: purchases_5m, function: count, window: 5m}",
        )
    found: list[Aggregate] = []
    for item, line in zip(items, items.lines, strict=True):
        if not isinstance(item, Block):
            raise walk.at(
                line, f"an aggregate is {item!r}", "for example {name: purchases_5m, function: count, window: 5m}"
            )
        aggregate = _aggregate(item, schema, walk)
        if aggregate.name in RESERVED:
            hint = f"a row of answers has fields of its own: {', '.join(RESERVED)}"
            raise walk.error(item, "name", f"{aggregate.name!r} is no name for an aggregate", hint)
        if aggregate.name in [a.name for a in found] or aggregate.name == acceptance.entity:
            raise walk.error(
                item, "name", f"{aggregate.name!r} is already the name of something else in a row", "names must differ"
            )
        found.append(aggregate)
    return tuple(found)


def _aggregate(item: Block, schema: DatasetSchema, walk: Walk) -> Aggregate:
    walk.known(item, AGGREGATE_KEYS, "aggregate")
    name = walk.name(item, "an aggregate", "purchases_5m")
    function = walk.text(item, "function", name, "count")
    if function not in FUNCTIONS:
        hint = did_you_mean(function, FUNCTIONS) or f"one of: {', '.join(FUNCTIONS)}"
        raise walk.error(item, "function", f"{name}: no function {function!r}", hint)
    mode = walk.choice(item, "mode", ("exact", "sawtooth"))
    return Aggregate(
        name=name,
        function=function,
        column=_measured(item, name, function, schema, walk),
        window_us=walk.duration(item, "window", least=1),
        where=_where(item, schema, walk),
        mode=mode,
        hop_us=_hop(item, mode, walk),
    )


def _measured(item: Block, name: str, function: str, schema: DatasetSchema, walk: Walk) -> str | None:
    if function == "count" and item.get("column") is None:
        return None
    if item.get("column") is None:
        raise walk.error(item, "column", f"{name}: {function} needs a column", "add `column: amount`")
    column = walk.column(item, "column", schema)
    fitting = {"sum": NUMERIC, "avg": NUMERIC, "var": NUMERIC, "std": NUMERIC, "min": ORDERED, "max": ORDERED}
    if column.type not in fitting.get(function, (column.type,)):
        raise walk.error(
            item,
            "column",
            f"{name}: {function} of {column.name}, a {column.type}",
            f"{function} takes {', '.join(fitting[function])}",
        )
    return column.name


def _hop(item: Block, mode: str, walk: Walk) -> int | None:
    if mode == "exact":
        if item.get("hop") is not None:
            raise walk.error(item, "hop", "hop without mode sawtooth", "add `mode: sawtooth` or remove hop")
        return None
    hop, window = walk.duration(item, "hop", least=1), walk.duration(item, "window", least=1)
    if window % hop:
        raise walk.error(
            item,
            "hop",
            f"the window {item['window']} is no multiple of the hop {item['hop']}",
            "choose a hop that divides it",
        )
    return hop


def _where(item: Block, schema: DatasetSchema, walk: Walk) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    where = item.get("where")
    if where is None:
        return ()
    if not isinstance(where, Block) or not where:
        raise walk.error(
            item,
            "where",
            f"where is {where!r}",
            "for example {event_type: purchase} or {event_type: [purchase, refund]}",
        )
    found = []
    for name, given in where.items():
        names = [c.name for c in schema.columns]
        if name not in names:
            raise walk.error(
                where,
                name,
                f"where names {name!r}, which the contract has not",
                did_you_mean(name, names) or ", ".join(names),
            )
        found.append((name, _values(name, given, where, schema, walk)))
    return tuple(sorted(found))


def _values(name: str, given: Any, where: Block, schema: DatasetSchema, walk: Walk) -> tuple[Any, ...]:
    column = schema.column(name)
    if column.type not in ("string", "integer", "boolean"):
        raise walk.error(
            where, name, f"where on {name}, a {column.type}", "filter by a string, an integer or a boolean"
        )
    values = tuple(typed_value(column, v) for v in (given if isinstance(given, Items) else (given,)))
    if not values or None in values:
        raise walk.error(where, name, f"{name} is {given!r}", f"write values of type {column.type}")
    _in_enum(name, values, where, schema, walk)
    return tuple(sorted(set(values)))


def _in_enum(name: str, values: tuple[Any, ...], where: Block, schema: DatasetSchema, walk: Walk) -> None:
    """A value that the contract's enum does not allow can never match: a typing error."""
    for rule in schema.rules:
        if rule.kind == "enum" and rule.columns == (name,):
            for value in values:
                if value not in rule.limit:
                    hint = (
                        did_you_mean(str(value), map(str, rule.limit)) or f"one of: {', '.join(map(str, rule.limit))}"
                    )
                    raise walk.error(where, name, f"{name} is never {value!r} by the contract", hint)

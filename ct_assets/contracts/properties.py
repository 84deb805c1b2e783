"""One ODCS property becomes a :class:`Column` and its row rules.

What goes here: logical types, logicalTypeOptions, required, unique, enum, our column properties.
What does not: the quality list (``quality.py``), the whole file (``odcs.py``).
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ct_assets.contracts.formats import DEFAULT_FORMATS, INTEGER_RANGES, STRING_FORMATS, date_format, linear_regex
from ct_assets.contracts.model import Clause, Column, NumberFormat, Rule
from ct_assets.contracts.reading import Custom, Reader
from ct_assets.contracts.safe_yaml import Block
from ct_assets.errors import did_you_mean

PROPERTY_KEYS = [
    "id",
    "name",
    "physicalName",
    "physicalType",
    "logicalType",
    "logicalTypeOptions",
    "businessName",
    "description",
    "tags",
    "primaryKey",
    "primaryKeyPosition",
    "required",
    "unique",
    "partitioned",
    "partitionKeyPosition",
    "classification",
    "encryptedName",
    "transformSourceObjects",
    "transformLogic",
    "transformDescription",
    "examples",
    "criticalDataElement",
    "relationships",
    "quality",
    "customProperties",
    "properties",
    "items",
    "authoritativeDefinitions",
    "enum",
    "deprecated",
    "context",
    "semanticType",
]
COLUMN_CUSTOM = (
    "transforms",
    "formats",
    "renamedFrom",
    "nullTokens",
    "leadingZeros",
    "numberFormat",
    "personalData",
    "derived",
    "timeZone",
    "mayBeAbsent",
)
TRANSFORMS = ("trim", "upper", "lower", "collapseSpaces", "stripTrailingPointZero")
LOGICAL_TYPES = ("string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
PERSONAL = re.compile(r"personal|pii|restricted|confidential|sensitive", re.IGNORECASE)
_DECIMAL = re.compile(r"\s*(?:decimal|numeric|number)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)\s*", re.IGNORECASE)


@dataclass
class _Property:
    """One property while it is read."""

    block: Block
    reader: Reader
    clauses: list[Clause]
    column: Column
    rules: list[Rule]

    @property
    def name(self) -> str:
        return self.column.name

    def rule(self, kind: str, key: str, limit: Any = None, source: Any = None) -> None:
        line = (source or self.block).line_of(key) if hasattr(source or self.block, "line_of") else self.block.line
        self.rules.append(Rule(f"{self.name}.{kind}", kind, (self.name,), limit=limit, line=line))

    def clause(self, text: str, key: str, enforced: bool = True, why: str = "", source: Any = None) -> None:
        self.clauses.append(Clause(self.name, text, enforced, (source or self.block).line_of(key), why))


def read_property(item: Any, zone: Any, reader: Reader, clauses: list[Clause]) -> tuple[Column, list[Rule]]:
    """Read one property. ``zone`` is the schema's time zone, if it declares one."""
    if not isinstance(item, Block) or item.get("name") is None:
        raise reader.at(getattr(item, "line", 1), "a property needs a name", "add `name: my_column`")
    clauses += reader.known_keys(item, PROPERTY_KEYS, "property")
    name = str(item["name"])
    custom = reader.custom(item, (*COLUMN_CUSTOM, *_unit_of_time(item)), clauses, name)
    column = Column(
        name,
        line=item.line,
        physical_name=str(item.get("physicalName") or name),
        description=str(item.get("description") or ""),
    )
    column = replace(
        column,
        classification=str(item.get("classification") or ""),
        pii=_personal(item, custom),
        example=_example(item),
    )
    prop = _Property(item, reader, clauses, column, [])
    _type(prop, custom, zone)
    _custom(prop, custom)
    _presence(prop)
    _options(prop)
    if item.get("relationships"):
        prop.clause("relationships", "relationships", False, "another dataset is not at hand when a delivery is judged")
    return prop.column, prop.rules


def _unit_of_time(item: Block) -> tuple[str, ...]:
    """``unit``, where it says what an integer time counts (streams read it); a unit of anything else is documentation."""
    customs = [c for c in item.get("customProperties") or () if isinstance(c, Block) and c.get("property") == "unit"]
    is_ours = item.get("logicalType") == "integer" and any(c.get("value") in ("us", "ms", "s") for c in customs)
    return ("unit",) if is_ours else ()


def _example(item: Block) -> str:
    examples = item.get("examples") or [""]
    return "" if not isinstance(examples, list) or examples[0] is None else str(examples[0])


def _personal(item: Block, custom: Mapping[str, Any]) -> bool:
    marks = [str(item.get("classification") or ""), *map(str, item.get("tags") or ())]
    return custom.get("personalData") is True or any(PERSONAL.search(mark) for mark in marks)


def _type(prop: _Property, custom: Custom, zone: Any) -> None:
    block = prop.block
    logical = block.get("logicalType") or "string"
    if logical not in LOGICAL_TYPES:
        hint = did_you_mean(str(logical), LOGICAL_TYPES) or f"one of: {', '.join(LOGICAL_TYPES)}"
        raise prop.reader.error(block, "logicalType", f"{prop.name}: no logicalType {logical!r}", hint)
    if logical in ("object", "array", "time"):
        prop.clause(f"logicalType {logical}", "logicalType", False, "read as text")
        return
    prop.column = replace(prop.column, type=logical)
    if logical == "number":
        _exact_number(prop)
    if logical in ("date", "timestamp"):
        _time_type(prop, custom, zone)
    if prop.column.type != "string":
        prop.rule("type", "logicalType")
        prop.clause(f"logicalType {logical}", "logicalType")
    if prop.column.time_zone and not prop.column.offsets:
        prop.rule("nonexistent_local_time", "logicalType")
        prop.rule("ambiguous_local_time", "logicalType")


def _exact_number(prop: _Property) -> None:
    match = _DECIMAL.fullmatch(str(prop.block.get("physicalType") or ""))
    if match is None:
        return
    precision, scale = int(match.group(1)), int(match.group(2) or 0)
    if not 1 <= precision <= 38 or scale > precision:
        raise prop.reader.error(
            prop.block,
            "physicalType",
            f"{prop.name}: decimal({precision},{scale}) is not possible",
            "1 to 38 digits, of which the scale",
        )
    prop.column = replace(prop.column, type="decimal", precision=precision, scale=scale)
    prop.clause(f"physicalType decimal({precision},{scale})", "physicalType")


def _time_type(prop: _Property, custom: Custom, zone: Any) -> None:
    options = prop.block.get("logicalTypeOptions") or {}
    declared = custom.get("formats") or ([options["format"]] if options.get("format") else [])
    with_zone = options.get("timezone") is True
    zone = custom.get("timeZone") or options.get("defaultTimezone") or zone
    formats = [str(f) for f in declared] or list(_default_formats(prop.column.type, with_zone and not zone))
    parsed = [date_format(f) for f in formats]
    known = all(p is not None and p.has_time == (prop.column.type == "timestamp") for p in parsed)
    if not known or len({p.has_offset for p in parsed if p}) > 1:
        prop.column = replace(prop.column, type="string")
        prop.clause(
            f"format {formats}",
            "logicalTypeOptions",
            False,
            "this form cannot be read without a guess; the column stays text",
        )
        return
    offsets = bool(parsed and parsed[0] and parsed[0].has_offset)
    zone = "UTC" if offsets and not zone else zone
    if prop.column.type == "timestamp" and zone:
        _check_zone(prop, str(zone))
        prop.column = replace(prop.column, time_zone=str(zone), offsets=offsets)
    prop.column = replace(prop.column, formats=tuple(formats))


def _default_formats(kind: str, offsets: bool) -> tuple[str, ...]:
    return DEFAULT_FORMATS["timestamp with offset" if kind == "timestamp" and offsets else kind]


def _check_zone(prop: _Property, zone: str) -> None:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = did_you_mean(zone, zoneinfo.available_timezones())
        raise prop.reader.error(
            prop.block, "logicalTypeOptions", f"{prop.name}: no time zone {zone!r}", near or "for example Europe/London"
        ) from None


def _custom(prop: _Property, custom: Custom) -> None:
    reader, column = prop.reader, prop.column
    transforms = reader.words(custom, "transforms")
    for name in transforms:
        if name not in TRANSFORMS:
            raise reader.error(
                custom, "transforms", f"no transform {name!r}", did_you_mean(name, TRANSFORMS) or ", ".join(TRANSFORMS)
            )
        if name != "trim" and column.type != "string":
            raise reader.error(
                custom, "transforms", f"{name} is for text, {column.name} is {column.type}", "only `trim` fits here"
            )
    prop.column = replace(
        column,
        transforms=transforms,
        renamed_from=reader.words(custom, "renamedFrom"),
        null_tokens=reader.words(custom, "nullTokens"),
        leading_zeros=reader.flag(custom, "leadingZeros"),
        number_format=_number_format(prop, custom),
        may_be_absent=reader.flag(custom, "mayBeAbsent"),
    )


def _number_format(prop: _Property, custom: Custom) -> NumberFormat:
    value = custom.get("numberFormat")
    if value is None:
        return NumberFormat()
    keys = ("decimal", "group", "currency")
    if not isinstance(value, Block) or any(k not in keys or not isinstance(v, str) for k, v in value.items()):
        raise prop.reader.error(
            custom,
            "numberFormat",
            "numberFormat takes decimal, group and currency",
            "for example {decimal: ',', group: '.'}",
        )
    found = NumberFormat(**value)
    if len(found.decimal) != 1 or len(found.group) > 1 or found.decimal == found.group or found.decimal.isalnum():
        raise prop.reader.error(
            custom,
            "numberFormat",
            f"cannot tell decimal {found.decimal!r} from group {found.group!r}",
            "one character each, unlike",
        )
    return found


def _presence(prop: _Property) -> None:
    block, reader = prop.block, prop.reader
    required = reader.flag(block, "required")
    key = reader.flag(block, "primaryKey")
    unique = reader.flag(block, "unique")
    prop.column = replace(prop.column, required=required or key, unique=unique)
    if (required or key) and prop.column.may_be_absent:
        text = f"{prop.name} is {'required' if required else 'a primary key'} and may be absent"
        raise reader.error(block, "required", text, "one of the two: an absent column is NULL in every row")
    if required or key:
        prop.rule("required", "required" if required else "primaryKey")
    if required:
        prop.clause("required", "required")
    if unique:
        prop.rule("unique", "unique")
        prop.clause("unique", "unique")
    if block.get("enum") is not None:
        values = reader.items(block, "enum")
        values = [v.get("value") if isinstance(v, dict) else v for v in values]
        prop.rule("enum", "enum", tuple(_value(prop, v, "enum", block) for v in values))
        prop.clause(f"enum of {len(values)}", "enum")


def _options(prop: _Property) -> None:
    options = prop.block.get("logicalTypeOptions")
    if options is None:
        return
    if not isinstance(options, Block):
        raise prop.reader.error(
            prop.block, "logicalTypeOptions", "logicalTypeOptions must be a mapping", "for example {minimum: 0}"
        )
    for key in options:
        reader = _OPTION.get(key)
        if reader is None:
            near = did_you_mean(key, _OPTION)
            if near and key not in _DOCUMENTED:
                raise prop.reader.error(options, key, f"{prop.name}: no logicalTypeOption {key!r}", near)
            prop.clause(f"logicalTypeOption {key}", key, False, "not known here", options)
        else:
            reader(prop, key, options)


def _bound(prop: _Property, key: str, options: Block) -> None:
    if prop.column.type in ("string", "boolean"):
        prop.clause(f"{key} {options[key]}", key, False, f"{prop.column.type} has no order here", options)
        return
    prop.rule(key, key, _value(prop, options[key], key, options), options)
    prop.clause(f"{key} {options[key]}", key, source=options)


def _length(prop: _Property, key: str, options: Block) -> None:
    if prop.column.type != "string":
        prop.clause(f"{key} {options[key]}", key, False, "lengths are for text", options)
        return
    prop.rule(key, key, prop.reader.whole(options, key), options)
    prop.clause(f"{key} {options[key]}", key, source=options)


def _pattern(prop: _Property, key: str, options: Block) -> None:
    regex = linear_regex(str(options[key]))
    if prop.column.type != "string" or regex is None:
        why = "patterns are for text" if regex else "look-around and back references have no linear-time engine"
        prop.clause(f"pattern {options[key]}", key, False, why, options)
        return
    prop.rule("pattern", key, regex, options)
    prop.clause(f"pattern {options[key]}", key, source=options)


def _format(prop: _Property, key: str, options: Block) -> None:
    value, kind = str(options[key]), prop.column.type
    text = f"format {value}"
    if kind == "string" and value in STRING_FORMATS:
        prop.rule("format", key, STRING_FORMATS[value], options)
        prop.clause(text, key, source=options)
    elif kind == "integer" and value in INTEGER_RANGES:
        low, high = INTEGER_RANGES[value]
        prop.rules.append(
            Rule(f"{prop.name}.format", "range", (prop.name,), limit=(low, high), line=options.line_of(key))
        )
        prop.clause(text, key, source=options)
    elif kind in ("date", "timestamp"):
        prop.clause(text, key, source=options)
    elif prop.block.get("logicalType") not in ("date", "timestamp"):
        prop.clause(text, key, False, "no check for this form", options)


def _multiple(prop: _Property, key: str, options: Block) -> None:
    value = options[key]
    enforced = prop.column.type in ("integer", "decimal") and isinstance(value, int | float) and value > 0
    if enforced and prop.column.type == "integer" and not float(value).is_integer():
        enforced = False
    if enforced:
        prop.rule("multipleOf", key, _value(prop, value, key, options), options)
    prop.clause(f"multipleOf {value}", key, enforced, "" if enforced else "exact types only", options)


def _zone_option(prop: _Property, key: str, options: Block) -> None:
    prop.clause(f"{key} {options[key]}", key, prop.column.type == "timestamp", source=options)


_DOCUMENTED = (
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
)  # of arrays and objects
_OPTION: dict[str, Any] = {
    **dict.fromkeys(BOUNDS, _bound),
    "minLength": _length,
    "maxLength": _length,
    "pattern": _pattern,
    "format": _format,
    "multipleOf": _multiple,
    "timezone": _zone_option,
    "defaultTimezone": _zone_option,
}


def _value(prop: _Property, value: Any, key: str, source: Any) -> Any:
    """A bound or an allowed value in the column's own type. Raises ContractError."""
    converted = typed_value(prop.column, value)
    if converted is None:
        raise prop.reader.error(
            source, key, f"{prop.name}: {key} is {value!r}", f"write a value of type {prop.column.type}"
        )
    return converted


def typed_value(column: Column, value: Any) -> Any:
    """A value of the contract as the column's type holds it (timestamps in UTC); None when it is no such value."""
    try:
        return _CONVERT[column.type](column, value)
    except (ValueError, TypeError, InvalidOperation, OverflowError):
        return None


def _as_int(_: Column, value: Any) -> int | None:
    number = Decimal(str(value))
    return int(number) if number == int(number) and not isinstance(value, bool) else None


def _as_time(column: Column, value: Any) -> datetime | None:
    moment = datetime.fromisoformat(str(value))
    if column.time_zone is None:
        return moment if moment.tzinfo is None else None
    zone = zoneinfo.ZoneInfo(column.time_zone)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


_CONVERT: dict[str, Any] = {
    "string": lambda _, value: str(value) if value is not None else None,
    "integer": _as_int,
    "decimal": lambda _, value: Decimal(str(value)),
    "number": lambda _, value: float(value),
    "boolean": lambda _, value: value if isinstance(value, bool) else None,
    "date": lambda _, value: date.fromisoformat(str(value)),
    "timestamp": _as_time,
}

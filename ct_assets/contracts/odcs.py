"""An ODCS 3.x file becomes a :class:`Contract`.

What goes here: the walk over the file: contract, schema objects, our customProperties. What does not: properties
(``properties.py``), quality clauses (``quality.py``).
Source: Open Data Contract Standard 3.0-3.2 (bitol-io/open-data-contract-standard).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ct_assets.contracts import safe_yaml
from ct_assets.contracts.model import (
    BatchRule,
    Clause,
    Column,
    Contract,
    Coverage,
    DatasetSchema,
    Dialect,
    Example,
    Rule,
)
from ct_assets.contracts.predicate import Node
from ct_assets.contracts.properties import read_property
from ct_assets.contracts.quality import read_quality
from ct_assets.contracts.reading import Custom, Reader
from ct_assets.contracts.safe_yaml import Block, Items
from ct_assets.errors import UsageError, did_you_mean

CONTRACT_KEYS = [
    "apiVersion",
    "kind",
    "id",
    "name",
    "version",
    "status",
    "tenant",
    "domain",
    "dataProduct",
    "description",
    "schema",
    "support",
    "price",
    "team",
    "roles",
    "tags",
    "slaProperties",
    "slaDefaultElement",
    "servers",
    "authoritativeDefinitions",
    "customProperties",
    "contractCreatedTs",
]
OBJECT_KEYS = [
    "id",
    "name",
    "physicalName",
    "physicalType",
    "logicalType",
    "businessName",
    "description",
    "tags",
    "properties",
    "quality",
    "customProperties",
    "relationships",
    "authoritativeDefinitions",
    "dataGranularityDescription",
    "deprecated",
    "context",
    "semanticType",
]
SCHEMA_CUSTOM = (
    "deliveryDay",
    "maxBadFraction",
    "onExactDuplicate",
    "onRepeatedHeader",
    "closed",
    "timeZone",
    "dialect",
    "mustReject",
    "exampleFile",
)
DIALECT_KEYS = {
    "encoding": "encoding",
    "delimiter": "delimiter",
    "quote": "quote",
    "headerCase": "header_case",
    "compression": "compression",
    "finalNewline": "final_newline",
    "maxFieldBytes": "max_field_bytes",
    "maxRowBytes": "max_row_bytes",
    "maxUnpackedBytes": "max_unpacked_bytes",
    "maxRatio": "max_ratio",
}
RESERVED = ("_line", "_raw", "_reasons", "_revision_id")


def load_contract(path: Path | str) -> Contract:
    """Read and check a contract file. Raises ContractError (file, line, what to do) or UsageError (no such file)."""
    path = Path(path)
    if path.is_dir():
        there = sorted(p.name for p in path.glob("*.y*ml"))[:5]
        raise UsageError(
            f"{path} is a folder", hint=f"give one file: {', '.join(there)}" if there else "give an ODCS YAML file"
        )
    if not path.is_file():
        raise UsageError(f"no contract at {path}", hint="give the path of an ODCS YAML file")
    raw = safe_yaml.load(path)
    reader = Reader(path)
    _check_head(raw, reader)
    digest = hashlib.sha256(
        json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()
    contract = Contract(
        path=path,
        id=str(raw.get("id", "")),
        name=str(raw.get("name") or raw.get("id") or path.stem),
        version=str(raw.get("version", "")),
        status=str(raw.get("status", "")),
        digest=digest,
        owner=_owner(raw.get("team")),
        schemas=(),
        raw=raw,
    )
    objects = reader.blocks(raw, "schema")
    schemas = tuple(_schema(block, contract, reader) for block in objects)
    _unlike_names([s.name for s in schemas], objects, reader, "schema object")
    return replace(contract, schemas=schemas)


def _check_head(raw: Block, reader: Reader) -> None:
    reader.known_keys(raw, CONTRACT_KEYS, "contract")
    kind = raw.get("kind", "DataContract")
    if kind != "DataContract":
        raise reader.error(raw, "kind", f"kind is {kind!r}", "an ODCS contract says `kind: DataContract`")
    version = str(raw.get("apiVersion", ""))
    if not re.fullmatch(r"v?3\.\d+(\.\d+)?.*", version):
        raise reader.error(
            raw, "apiVersion", f"apiVersion is {version or 'missing'!r}", "write `apiVersion: v3.1.0` (ODCS 3.x)"
        )


def _owner(team: Any) -> str | None:
    if isinstance(team, dict):
        return team.get("name") or _owner(team.get("members"))
    if isinstance(team, list):
        owners = [m.get("username") for m in team if isinstance(m, dict) and str(m.get("role", "")).lower() == "owner"]
        return next(filter(None, owners), None)
    return None


def _unlike_names(names: list[str], items: Items, reader: Reader, what: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise reader.at(items.lines[i], f"two {what}s are named {name!r}", "names must differ")


def _schema(block: Any, contract: Contract, reader: Reader) -> DatasetSchema:
    if not isinstance(block, Block) or not block.get("name"):
        raise reader.at(getattr(block, "line", 1), "a schema object needs a name", "add `name: my_dataset`")
    clauses = reader.known_keys(block, OBJECT_KEYS, "schema object")
    custom = reader.custom(block, SCHEMA_CUSTOM, clauses, str(block["name"]))
    custom = reader.custom(contract.raw, SCHEMA_CUSTOM, [], "").overridden_by(custom)
    columns, rules, batch = _columns(block, custom, reader, clauses)
    more_rules, more_batch = read_quality(block, columns, None, reader, clauses)
    key = _primary_key(block, columns, rules, clauses)
    rules += more_rules
    duplicates = reader.choice(custom, "onExactDuplicate", ("keep", "collapse", "quarantine"))
    if duplicates == "quarantine":
        rules.append(Rule("duplicate_row", "duplicate", (), line=block.line))
    _other_clauses(contract.raw, block, clauses)
    day = _delivery_day(custom, columns, reader)
    _check_day(rules, day, reader)
    return DatasetSchema(
        name=str(block["name"]),
        columns=columns,
        rules=_unlike_rules(rules, reader),
        batch_rules=tuple(batch + more_batch),
        dialect=_dialect(custom, reader),
        on_exact_duplicate=duplicates,
        max_bad_fraction=reader.fraction(custom, "maxBadFraction"),
        delivery_day=day,
        closed=reader.flag(custom, "closed"),
        on_repeated_header=reader.choice(custom, "onRepeatedHeader", ("reject", "quarantine")),
        primary_key=key,
        must_reject=_examples(custom.get("mustReject"), reader),
        example_file=str(custom.get("exampleFile") or ("2001-12-31.csv" if day else "example.csv")),
        coverage=Coverage(tuple(clauses)),
        digest=contract.digest,
        version=contract.version,
        contract_id=contract.id,
        owner=contract.owner,
        time_zone=_zone(custom, columns),
        physical_name=str(block.get("physicalName") or block["name"]),
        description=str(block.get("description") or ""),
        line=block.line,
    )


def _zone(custom: Custom, columns: tuple[Column, ...]) -> str | None:
    own = custom.get("timeZone")
    return str(own) if own else next((c.time_zone for c in columns if c.time_zone and not c.offsets), None)


def _columns(
    block: Block, custom: Custom, reader: Reader, clauses: list[Clause]
) -> tuple[tuple[Column, ...], list[Rule], list[BatchRule]]:
    items = reader.blocks(block, "properties")
    columns, rules, batch = [], [], []
    for item in items:
        column, own_rules = read_property(item, custom.get("timeZone"), reader, clauses)
        if column.name in RESERVED:
            raise reader.at(column.line, f"{column.name!r} is a name that the product adds itself", "rename the column")
        columns.append(column)
        rules += own_rules
    _unlike_names([c.name for c in columns], items, reader, "column")
    columns = reader.derive(columns, items, clauses)
    computed = {c.name for c in columns if c.derived is not None}
    rules = [rule for rule in rules if rule.columns[0] not in computed]
    for item, column in zip(items, columns, strict=True):
        more_rules, more_batch = read_quality(item, tuple(columns), column, reader, clauses)
        rules += more_rules
        batch += more_batch
    return tuple(columns), rules, batch


def _primary_key(
    block: Block, columns: tuple[Column, ...], rules: list[Rule], clauses: list[Clause]
) -> tuple[str, ...]:
    items = [item for item in block.get("properties") or () if item.get("primaryKey") is True]
    key = tuple(str(i["name"]) for i in sorted(items, key=lambda i: i.get("primaryKeyPosition", 0) or 0))
    if key:
        rules.append(Rule("primary_key", "unique", key, line=items[0].line_of("primaryKey")))
        clauses.append(
            Clause(str(block["name"]), f"primaryKey ({', '.join(key)})", True, items[0].line_of("primaryKey"))
        )
    return key


def _unlike_rules(rules: list[Rule], reader: Reader) -> tuple[Rule, ...]:
    seen: dict[str, Rule] = {}
    for rule in rules:
        if rule.name in seen:
            raise reader.at(
                rule.line,
                f"the rule name {rule.name!r} is already used on line {seen[rule.name].line}",
                "give it another `name`",
            )
        seen[rule.name] = rule
    return tuple(rules)


def _delivery_day(custom: Custom, columns: tuple[Column, ...], reader: Reader) -> str | None:
    value = custom.get("deliveryDay")
    if value not in (None, "fileName"):
        raise reader.error(
            custom,
            "deliveryDay",
            f"deliveryDay is {value!r}",
            "only `fileName` is known: the ISO date that begins the file's name",
        )
    return value


def _check_day(rules: list[Rule], day: str | None, reader: Reader) -> None:
    for rule in rules:
        if day is None and isinstance(rule.limit, Node) and rule.limit.uses_delivery_day():
            raise reader.at(
                rule.line,
                f"{rule.name} uses ${{deliveryDay}}, which the schema does not declare",
                "add the customProperty deliveryDay: fileName",
            )


def _dialect(custom: Custom, reader: Reader) -> Dialect:
    value = custom.get("dialect")
    if value is None:
        return Dialect()
    if not isinstance(value, Block):
        raise reader.error(
            custom, "dialect", "dialect must be a mapping", "for example {delimiter: ';', encoding: latin-1}"
        )
    unknown = next((k for k in value if k not in DIALECT_KEYS), None)
    if unknown is not None:
        raise reader.error(
            value,
            unknown,
            f"no dialect key {unknown!r}",
            did_you_mean(unknown, DIALECT_KEYS) or ", ".join(DIALECT_KEYS),
        )
    return reader.dialect(Dialect(**{DIALECT_KEYS[k]: v for k, v in value.items()}), value)


def _examples(value: Any, reader: Reader) -> tuple[Example, ...]:
    found = []
    if value is not None and not isinstance(value, Items):
        raise reader.at(1, "mustReject must be a list", "for example [{rule: zero_quantity, row: {Quantity: '0'}}]")
    for i, item in enumerate(value or ()):
        line = value.lines[i] if value is not None else 1
        if not isinstance(item, Block) or not isinstance(item.get("row"), Block) or not item.get("rule"):
            raise reader.at(
                line,
                "a must-reject example needs `rule` and `row`",
                "for example {rule: zero_quantity, row: {Quantity: '0'}}",
            )
        found.append(Example(str(item["rule"]), {k: "" if v is None else str(v) for k, v in item["row"].items()}, line))
    return tuple(found)


def _other_clauses(raw: Any, block: Block, clauses: list[Clause]) -> None:
    """What stands outside columns and quality: shown to people, held by nothing here."""
    for sla in raw.get("slaProperties") or ():
        if isinstance(sla, Block):
            text = f"{sla.get('property')} {sla.get('value')}{sla.get('unit', '')}"
            clauses.append(
                Clause(
                    "slaProperties",
                    text,
                    False,
                    sla.line,
                    "a service level needs a clock; freshness is watched by the pipeline",
                )
            )
    for link in block.get("relationships") or ():
        line = getattr(link, "line", block.line)
        clauses.append(
            Clause(
                str(block["name"]),
                "relationship",
                False,
                line,
                "another dataset is not at hand when a delivery is judged",
            )
        )

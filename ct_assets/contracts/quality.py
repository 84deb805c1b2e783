"""The ODCS quality list becomes row rules and batch rules.

What goes here: library metrics, SQL counts, thresholds, severities. What does not: logicalTypeOptions
(``properties.py``).

A metric that must be 0 is a rule of each row: the rows that would be counted are quarantined (severity error) or
annotated (warning, info). Any other bound is a rule of the batch, measured on its good rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ct_assets.contracts.formats import linear_regex
from ct_assets.contracts.model import ERROR, WARN, BatchRule, Clause, Column, Rule
from ct_assets.contracts.predicate import rows_counted_by
from ct_assets.contracts.properties import typed_value
from ct_assets.contracts.reading import Reader
from ct_assets.contracts.safe_yaml import Block
from ct_assets.errors import did_you_mean

METRICS = ("rowCount", "nullValues", "missingValues", "invalidValues", "duplicateValues")
OLD_NAMES = {
    "nullCheck": "nullValues",
    "duplicateCount": "duplicateValues",
    "validValues": "invalidValues",
}  # ODCS 3.0 `rule:`
OPERATORS = [
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
]
SEVERITIES = {"error": ERROR, "critical": ERROR, "warning": WARN, "warn": WARN, "info": WARN}
QUALITY_KEYS = [
    "id",
    "name",
    "type",
    "metric",
    "rule",
    "arguments",
    "query",
    "engine",
    "implementation",
    "description",
    "dimension",
    "method",
    "severity",
    "businessImpact",
    "schedule",
    "scheduler",
    "tags",
    "unit",
    "customProperties",
    "authoritativeDefinitions",
    "validValues",
    *OPERATORS,
]
_NEVER_MORE_THAN_ZERO = {("mustBe", 0), ("mustBeLessThan", 1), ("mustBeLessOrEqualTo", 0)}


@dataclass
class _Quality:
    """One quality item while it is read; ``column`` is None for a rule of the whole dataset."""

    block: Block
    columns: tuple[Column, ...]
    column: Column | None
    dataset: str
    reader: Reader

    @property
    def where(self) -> str:
        return self.column.name if self.column else self.dataset

    @property
    def severity(self) -> str:
        value = str(self.block.get("severity") or "error").lower()
        if value not in SEVERITIES:
            hint = did_you_mean(value, SEVERITIES) or ", ".join(SEVERITIES)
            raise self.reader.error(self.block, "severity", f"severity is {value!r}", hint)
        return SEVERITIES[value]

    def threshold(self) -> tuple[str, Any]:
        """The one operator and its bound."""
        found = [(op, self.block[op]) for op in OPERATORS if op in self.block]
        if len(found) != 1:
            hint = "for example `mustBe: 0`"
            raise self.reader.at(
                self.block.line, f"a quality rule needs one of mustBe, mustBeLessThan, ...; {len(found)} given", hint
            )
        operator, bound = found[0]
        pair = operator.endswith("Between")
        numbers = bound if pair and isinstance(bound, list) and len(bound) == 2 else [bound]
        if pair != (len(numbers) == 2) or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            raise self.reader.error(
                self.block, operator, f"{operator} is {bound!r}", "write [low, high]" if pair else "write a number"
            )
        return operator, tuple(bound) if pair else bound

    def name(self, metric: str) -> str:
        own = self.block.get("name")
        return str(own) if own else f"{self.column.name}.{metric}" if self.column else metric

    def row_rule(self, metric: str, kind: str, columns: tuple[str, ...], limit: Any = None) -> Rule:
        text = str(self.block.get("description") or "")
        return Rule(self.name(metric), kind, columns, self.severity, limit, text, self.block.line)

    def batch_rule(self, metric: str, columns: tuple[str, ...], limit: Any = None) -> BatchRule:
        operator, bound = self.threshold()
        percent = str(self.block.get("unit") or "").lower() == "percent"
        text = str(self.block.get("description") or "")
        return BatchRule(
            self.name(metric), metric, columns, operator, bound, percent, self.severity, limit, text, self.block.line
        )


def read_quality(
    block: Block, columns: tuple[Column, ...], column: Column | None, reader: Reader, clauses: list[Clause]
) -> tuple[list[Rule], list[BatchRule]]:
    """Read the quality list of a property (``column``) or of a schema object."""
    rules: list[Rule] = []
    batch: list[BatchRule] = []
    for item in reader.items(block, "quality"):
        if not isinstance(item, Block):
            raise reader.at(
                block.line_of("quality"),
                "a quality rule must be a mapping",
                "for example {metric: nullValues, mustBe: 0}",
            )
        clauses += reader.known_keys(item, QUALITY_KEYS, "quality rule")
        quality = _Quality(item, columns, column, str(block["name"]), reader)
        rule, why = _compile(quality)
        what = str(
            item.get("name") or item.get("metric") or item.get("rule") or item.get("description") or item.get("type")
        )
        clauses.append(Clause(quality.where, f"quality {what!r}", rule is not None, item.line, why))
        if isinstance(rule, Rule):
            rules.append(rule)
        elif isinstance(rule, BatchRule):
            batch.append(rule)
    return rules, batch


def _compile(quality: _Quality) -> tuple[Rule | BatchRule | None, str]:
    block = quality.block
    metric = block.get("metric") or block.get("rule")
    kind = block.get("type") or ("sql" if block.get("query") else "library" if metric else "text")
    if kind == "text":
        return None, "text for people"
    if kind == "custom":
        return None, f"rule of another engine ({block.get('engine')})"
    if kind == "sql":
        return _sql(quality)
    if kind != "library":
        raise quality.reader.error(block, "type", f"quality type is {kind!r}", "text, library, sql or custom")
    metric = OLD_NAMES.get(str(metric), str(metric))
    if metric not in METRICS:
        raise quality.reader.error(
            block, "metric", f"no metric {metric!r}", did_you_mean(metric, METRICS) or ", ".join(METRICS)
        )
    return _library(quality, metric), ""


def _sql(quality: _Quality) -> tuple[Rule | BatchRule | None, str]:
    where = rows_counted_by(str(quality.block.get("query") or ""))
    if where is None:
        return None, "only SELECT COUNT(*) FROM ${table} WHERE ... is read"
    if quality.column:
        where = where.replace("${column}", '"' + quality.column.name.replace('"', '""') + '"')
    kinds = {c.name: c.kind for c in quality.columns if c.derived is None}
    node = quality.reader.predicate(where, kinds, quality.block.line_of("query"))
    if node.kind != "boolean":
        raise quality.reader.error(quality.block, "query", "the WHERE part is no condition", "compare something")
    columns = tuple(c.name for c in quality.columns if c.name in node.columns())
    if quality.threshold() in _NEVER_MORE_THAN_ZERO:
        return quality.row_rule("sql", "predicate", columns, node), ""
    return quality.batch_rule("sqlCount", columns, node), ""


def _library(quality: _Quality, metric: str) -> Rule | BatchRule:
    columns = _columns_of(quality, metric)
    limit = _limit(quality, metric)
    if metric != "rowCount" and quality.threshold() in _NEVER_MORE_THAN_ZERO:
        kind = {
            "nullValues": "required",
            "missingValues": "missing",
            "invalidValues": "invalid",
            "duplicateValues": "unique",
        }[metric]
        _refuse_derived(quality, metric, columns)
        return quality.row_rule(metric, kind, columns, limit)
    return quality.batch_rule(metric, columns, limit)


def _refuse_derived(quality: _Quality, metric: str, columns: tuple[str, ...]) -> None:
    """Rows are judged by what is in the file; a derived column is computed from rows that passed."""
    derived = [c.name for c in quality.columns if c.name in columns and c.derived is not None]
    if derived:
        hint = "write the rule over the columns it is derived from, as type: sql"
        raise quality.reader.at(quality.block.line, f"{metric} on the derived column {derived[0]!r}", hint)


def _columns_of(quality: _Quality, metric: str) -> tuple[str, ...]:
    if metric == "rowCount":
        return ()
    if quality.column:
        return (quality.column.name,)
    named = (quality.block.get("arguments") or {}).get("properties")
    known = [c.name for c in quality.columns]
    if not isinstance(named, list) or not named:
        raise quality.reader.at(
            quality.block.line, f"{metric} of a dataset needs arguments.properties", "or move it to the column"
        )
    for name in named:
        if name not in known:
            raise quality.reader.error(
                quality.block, "arguments", f"no column {name!r}", did_you_mean(str(name), known)
            )
    return tuple(map(str, named))


def _limit(quality: _Quality, metric: str) -> Any:
    arguments = quality.block.get("arguments") or {}
    if metric == "missingValues":
        return tuple("" if v is None else str(v) for v in arguments.get("missingValues") or (None, ""))
    if metric != "invalidValues":
        return None
    values = arguments.get("validValues", quality.block.get("validValues"))
    pattern = arguments.get("pattern")
    regex = linear_regex(str(pattern)) if pattern is not None else None
    if (values is None) == (pattern is None) or (pattern is not None and regex is None) or quality.column is None:
        hint = "give a column arguments.validValues (a list) or arguments.pattern (no look-around)"
        raise quality.reader.at(quality.block.line, "invalidValues needs to know what is valid", hint)
    if regex is not None:
        return ("pattern", regex)
    column, values = quality.column, values or ()
    typed = tuple(typed_value(column, v) for v in values if v not in (None, ""))
    if None in typed:
        raise quality.reader.error(
            quality.block, "arguments", f"{column.name}: a valid value is no {column.type}", None
        )
    return ("values", typed, any(v in (None, "") for v in values))

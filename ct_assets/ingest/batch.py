"""Batch rules: metrics of a delivery's good rows, measured block by block, compared at the end.

What goes here: rowCount, nullValues, missingValues, invalidValues, duplicateValues, SQL counts. What does not: rules of
one row (``rules.py``), other deliveries (a batch rule looks at this one alone).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import polars as pl

from ct_assets.contracts.model import ERROR, BatchRule, DatasetSchema, Rule
from ct_assets.ingest.duplicates import Seen, fingerprints, null_rows
from ct_assets.ingest.expressions import Compiler
from ct_assets.ingest.rules import invalid, missing

COMPARE: dict[str, Callable[[float, Any], bool]] = {
    "mustBe": lambda value, bound: value == bound,
    "mustNotBe": lambda value, bound: value != bound,
    "mustBeGreaterThan": lambda value, bound: value > bound,
    "mustBeGreaterOrEqualTo": lambda value, bound: value >= bound,
    "mustBeLessThan": lambda value, bound: value < bound,
    "mustBeLessOrEqualTo": lambda value, bound: value <= bound,
    "mustBeBetween": lambda value, bound: bound[0] <= value <= bound[1],
    "mustNotBeBetween": lambda value, bound: not bound[0] <= value <= bound[1],
}


class BatchMeter:
    """Adds up the metrics of one delivery."""

    def __init__(self, schema: DatasetSchema, day: date | None) -> None:
        """All metrics are 0."""
        self._schema, self._day = schema, day
        self._rules = schema.batch_rules
        self._counts = [0] * len(self._rules)
        self._seen = [Seen() for _ in self._rules]
        self._rows = 0

    def add(self, good: pl.DataFrame) -> None:
        """Measure one block's good rows."""
        self._rows += good.height
        for i, rule in enumerate(self._rules):
            if rule.metric != "rowCount" and good.height:
                self._counts[i] += self._measure(i, rule, good)

    def _measure(self, i: int, rule: BatchRule, good: pl.DataFrame) -> int:
        if rule.metric == "duplicateValues":
            columns = list(rule.columns)
            present = ~null_rows(good, columns)
            prints = fingerprints(good, columns)[present]
            return len(prints) - int(self._seen[i].first(prints).sum())
        return int(good.select(self._test(rule).fill_null(False).sum()).item())

    def _test(self, rule: BatchRule) -> pl.Expr:
        if rule.metric == "sqlCount":
            return Compiler(self._schema, self._day, local=False).expression(rule.limit)
        column = self._schema.column(rule.columns[0])
        name = pl.col(column.name)
        if rule.metric == "nullValues":
            return name.is_null()
        like = Rule(rule.name, rule.metric, rule.columns, limit=rule.limit)
        return (missing if rule.metric == "missingValues" else invalid)(like, column)

    def broken(self) -> Iterator[tuple[str, str, bool]]:
        """(rule, message, whether it blocks) of each batch rule that does not hold."""
        for i, rule in enumerate(self._rules):
            count = self._rows if rule.metric == "rowCount" else self._counts[i]
            value = 100 * count / self._rows if rule.percent and self._rows else count
            if not COMPARE[rule.operator](value, rule.bound):
                unit = " percent" if rule.percent else ""
                text = f"{rule.name}: {rule.metric} is {value:g}{unit}, {rule.operator} {rule.bound} (contract line {rule.line})"
                yield rule.name, text, rule.severity == ERROR

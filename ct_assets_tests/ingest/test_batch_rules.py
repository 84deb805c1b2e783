"""Batch rules and the budget: what is measured, when it rejects, when it only warns."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_assets_tests.ingest.judging import contract, judge

ROWS = "k,v\n" + "1,a\n2,a\n3,\n4,b\n"


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("{metric: rowCount, mustBe: 4}", True),
        ("{metric: rowCount, mustNotBe: 4}", False),
        ("{metric: rowCount, mustBeGreaterThan: 4}", False),
        ("{metric: rowCount, mustBeGreaterOrEqualTo: 4}", True),
        ("{metric: rowCount, mustBeLessThan: 4}", False),
        ("{metric: rowCount, mustBeLessOrEqualTo: 4}", True),
        ("{metric: rowCount, mustBeBetween: [1, 3]}", False),
        ("{metric: rowCount, mustNotBeBetween: [5, 9]}", True),
        ("{metric: duplicateValues, mustBeLessThan: 2, arguments: {properties: [v]}}", True),
        ("{metric: duplicateValues, mustBeGreaterThan: 1, arguments: {properties: [v]}}", False),
        ("{type: sql, query: \"SELECT COUNT(*) FROM t WHERE v = 'a'\", mustBe: 2}", True),
        ("{type: sql, query: \"SELECT COUNT(*) FROM t WHERE v = 'a'\", mustBe: 1}", False),
    ],
)
def test_operators(rule: str, holds: bool, tmp_path: Path) -> None:
    schema = contract(tmp_path, "{name: k}\n{name: v}", f"    quality: [{rule}]\n")
    assert (judge(ROWS, schema).verdict.rejected is None) == holds


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("{metric: nullValues, mustBeLessThan: 2}", True),
        ("{metric: nullValues, unit: percent, mustBeLessThan: 25}", False),
        ("{metric: nullValues, unit: percent, mustBeLessOrEqualTo: 25}", True),
        ("{metric: invalidValues, mustBeLessOrEqualTo: 1, arguments: {validValues: [a, null]}}", True),
        ("{metric: invalidValues, mustBeLessOrEqualTo: 1, arguments: {validValues: [a]}}", False),
        ("{metric: missingValues, mustBeBetween: [2, 9], arguments: {missingValues: [null, b, '']}}", True),
    ],
)
def test_column_metrics(rule: str, holds: bool, tmp_path: Path) -> None:
    schema = contract(tmp_path, f"{{name: k}}\n{{name: v, quality: [{rule}]}}")
    assert (judge(ROWS, schema).verdict.rejected is None) == holds


def test_a_metric_is_measured_across_blocks(tmp_path: Path) -> None:
    schema = contract(
        tmp_path,
        "{name: k}\n{name: v}",
        "    quality: [{metric: duplicateValues, mustBe: 1, arguments: {properties: [v]}}]\n",
    )
    assert judge(ROWS, schema, chunk_bytes=5).verdict.rejected is None


def test_a_batch_warning_does_not_reject(tmp_path: Path) -> None:
    schema = contract(
        tmp_path,
        "{name: k}\n{name: v}",
        "    quality: [{name: many, metric: rowCount, mustBeGreaterThan: 9, severity: warning}]\n",
    )
    judged = judge(ROWS, schema)
    assert judged.verdict.decision == "accepted"
    assert any("many" in warning for warning in judged.verdict.warnings)


@pytest.mark.parametrize(("fraction", "rejected"), [("0.25", False), ("0.24", True), ("0", True), (None, False)])
def test_the_budget_of_bad_rows(fraction: str | None, rejected: bool, tmp_path: Path) -> None:
    custom = f"    customProperties: [{{property: maxBadFraction, value: {fraction}}}]\n" if fraction else ""
    schema = contract(tmp_path, "{name: k}\n{name: v, required: true}", custom)
    judged = judge(ROWS, schema)
    assert (judged.rule == "max_bad_fraction") == rejected
    if rejected:
        assert judged.verdict.good == 0
        assert judged.verdict.read == 4

"""Must-reject examples of a contract, tried on the real path: a CSV is written and judged like any delivery.

What goes here: building the small files and comparing the verdict. What does not: the examples (they are in the contract).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ct_assets.contracts.model import DatasetSchema
from ct_assets.ingest.judge import Judgement
from ct_assets.ingest.verdict import FileVerdict


@dataclass(frozen=True)
class ExampleResult:
    """Whether one example did what the contract says: ``rule`` is "" for the row that must be accepted."""

    rule: str
    holds: bool
    message: str
    line: int = 0


def try_examples(schema: DatasetSchema) -> list[ExampleResult]:
    """The row of every column's first example must be accepted; each must-reject row must break its rule."""
    base = {column.name: column.example for column in schema.delivered}
    alone = replace(schema, max_bad_fraction=None, batch_rules=())  # one bad row of one would always break the budget
    verdict = _judge(alone, base)
    results = [ExampleResult("", verdict.good == 1, _said(verdict) + _without_example(schema, verdict), schema.line)]
    for example in schema.must_reject:
        verdict = _judge(alone, {**base, **example.row})
        broken = verdict.reasons.get(example.rule, 0) == 1 and verdict.quarantined == 1
        rejected = verdict.rejected is not None and verdict.rejected.rule == example.rule
        results.append(ExampleResult(example.rule, broken or rejected, _said(verdict), example.line))
    return results


def _without_example(schema: DatasetSchema, verdict: FileVerdict) -> str:
    """What most likely is missing when the examples are no row that the contract accepts."""
    names = [c.name for c in schema.delivered if not c.example and f"{c.name}.required" in verdict.reasons]
    return f"; give `examples:` to the required column{'s' * (len(names) > 1)} {', '.join(names)}" if names else ""


def _said(verdict: FileVerdict) -> str:
    if verdict.rejected:
        return f"rejected by {verdict.rejected.rule}: {verdict.rejected.message}"
    return f"{verdict.decision}, broken: {', '.join(verdict.reasons) or 'nothing'}"


def _judge(schema: DatasetSchema, row: Mapping[str, str]) -> FileVerdict:
    dialect = schema.dialect
    lines = [dialect.delimiter.join(_quoted(v, schema) for v in values) for values in (row.keys(), row.values())]
    data = ("\n".join(lines) + "\n").encode(dialect.encoding)
    if dialect.compression != "none":
        schema = replace(schema, dialect=replace(dialect, compression="none"))
    return Judgement(io.BytesIO(data), schema, name=schema.example_file).exhaust()


def _quoted(value: str, schema: DatasetSchema) -> str:
    quote, delimiter = schema.dialect.quote, schema.dialect.delimiter
    if not value and len(schema.delivered) == 1:
        return quote * 2  # an empty line would be no record
    if any(c in value for c in (quote, delimiter, "\n", "\r")):
        return quote + value.replace(quote, quote * 2) + quote
    return value

"""The typed contract: columns, rules, dialect, and what of the file is enforced.

What goes here: plain frozen dataclasses. What does not: reading YAML (``odcs.py``), evaluating rules (``ingest``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.predicate import Node
from ct_assets.errors import UsageError, did_you_mean

ERROR, WARN = "error", "warn"
KIND_OF_TYPE = {
    "string": "text",
    "integer": "number",
    "number": "number",
    "decimal": "number",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are printed in a column: decimal mark, grouping mark, a currency sign to drop."""

    decimal: str = "."
    group: str = ""
    currency: str = ""


@dataclass(frozen=True)
class Column:
    """One column of a dataset, as declared.

    ``type`` is string, integer (64 bit), number (IEEE double), decimal (exact, ``precision``/``scale``), boolean, date or
    timestamp (microseconds). ``time_zone`` set: local times of that zone are stored as UTC. ``derived`` set: the column
    is computed from others and never looked for in a file.
    """

    name: str
    type: str = "string"
    precision: int = 38
    scale: int = 9
    required: bool = False
    unique: bool = False
    physical_name: str = ""
    description: str = ""
    classification: str = ""
    pii: bool = False
    transforms: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    time_zone: str | None = None
    offsets: bool = False  # the text carries an offset (+01:00, Z)
    renamed_from: tuple[str, ...] = ()
    null_tokens: tuple[str, ...] = ()
    leading_zeros: bool = False
    number_format: NumberFormat = NumberFormat()
    derived: Node | None = None
    example: str = ""  # a text that is accepted, for trying the contract
    may_be_absent: bool = False  # a file without it is read as if the column were empty
    line: int = 0

    @property
    def kind(self) -> str:
        """text, number, boolean, date or timestamp: what the expression language compares."""
        return KIND_OF_TYPE[self.type]

    @property
    def postgres_type(self) -> str:
        """The PostgreSQL type of the published column."""
        if self.type == "decimal":
            return f"numeric({self.precision},{self.scale})"
        if self.type == "timestamp":
            return "timestamptz" if self.time_zone else "timestamp"
        return {"string": "text", "integer": "bigint", "number": "double precision"}.get(self.type, self.type)

    @property
    def arrow_type(self) -> str:
        """The Arrow type of the judged column, as pyarrow prints it."""
        if self.type == "decimal":
            return f"decimal128({self.precision}, {self.scale})"
        if self.type == "timestamp":
            return "timestamp[us, tz=UTC]" if self.time_zone else "timestamp[us]"
        return {"integer": "int64", "number": "double", "boolean": "bool", "date": "date32[day]"}.get(
            self.type, self.type
        )


@dataclass(frozen=True)
class Rule:
    """A rule that each row keeps or breaks; ``kind`` names its truth table (``ct_assets/ingest/rules.py``).

    ``limit`` is the kind's argument (a bound, a pattern, the allowed values, a predicate).
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    severity: str = ERROR
    limit: Any = None
    description: str = ""
    line: int = 0


@dataclass(frozen=True)
class BatchRule:
    """A rule about the delivery as a whole: a metric of its good rows compared with a bound."""

    name: str
    metric: str  # rowCount, nullValues, missingValues, invalidValues, duplicateValues, sqlCount
    columns: tuple[str, ...]
    operator: str  # mustBe, mustNotBe, mustBeGreaterThan, ...
    bound: Any
    percent: bool = False
    severity: str = ERROR
    limit: Any = None
    description: str = ""
    line: int = 0


@dataclass(frozen=True)
class Dialect:
    """How the bytes are written. Nothing is sniffed."""

    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    header_case: str = "exact"  # or insensitive
    compression: str = "none"  # or gzip, zip
    final_newline: bool = False  # True: a file whose last line has no newline is torn
    max_field_bytes: int = 131_072  # what Python's csv takes by default
    max_row_bytes: int = 1_048_576
    max_unpacked_bytes: int = 64 << 30
    max_ratio: int = 200


@dataclass(frozen=True)
class Clause:
    """One thing the contract says, and whether it is enforced on a delivery."""

    where: str
    text: str
    enforced: bool
    line: int = 0
    why: str = ""


@dataclass(frozen=True)
class Coverage:
    """Every clause of a schema, enforced or documentation-only."""

    clauses: tuple[Clause, ...] = ()

    @property
    def enforced(self) -> tuple[Clause, ...]:
        """The clauses that a delivery is held to."""
        return tuple(c for c in self.clauses if c.enforced)

    @property
    def documentation_only(self) -> tuple[Clause, ...]:
        """The clauses that are shown to people and hold nothing."""
        return tuple(c for c in self.clauses if not c.enforced)

    def __str__(self) -> str:
        """``N of M clauses enforced; documentation-only: ...``."""
        rest = ", ".join(f"{c.where} {c.text}" for c in self.documentation_only) or "none"
        return f"{len(self.enforced)} of {len(self.clauses)} clauses enforced; documentation-only: {rest}"


@dataclass(frozen=True)
class Example:
    """A row that must be rejected, by which rule; it is written to a CSV and goes through the real path."""

    rule: str
    row: Mapping[str, str]
    line: int = 0


@dataclass(frozen=True)
class DatasetSchema:
    """One dataset of a contract: what a delivery of it must look like. Row rules are bits: bit i is ``rules[i]``."""

    name: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    batch_rules: tuple[BatchRule, ...] = ()
    dialect: Dialect = Dialect()
    on_exact_duplicate: str = "keep"  # or collapse, quarantine
    max_bad_fraction: float | None = None
    delivery_day: str | None = None  # "fileName": the ISO date that begins the file's name
    closed: bool = False
    on_repeated_header: str = "reject"  # or quarantine
    primary_key: tuple[str, ...] = ()
    must_reject: tuple[Example, ...] = ()
    example_file: str = "example.csv"  # a file name that is accepted, for trying the contract
    coverage: Coverage = Coverage()
    digest: str = ""
    version: str = ""
    contract_id: str = ""
    owner: str | None = None
    time_zone: str | None = None
    physical_name: str = ""
    description: str = ""
    line: int = 0

    @property
    def delivered(self) -> tuple[Column, ...]:
        """The columns that a file must have (all but the derived ones)."""
        return tuple(c for c in self.columns if c.derived is None)

    @property
    def derived(self) -> tuple[Column, ...]:
        """The columns computed from others."""
        return tuple(c for c in self.columns if c.derived is not None)

    def column(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


@dataclass(frozen=True)
class Contract:
    """One ODCS file."""

    path: Path
    id: str
    name: str
    version: str
    status: str
    digest: str
    owner: str | None
    schemas: tuple[DatasetSchema, ...]
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def schema(self, name: str | None = None) -> DatasetSchema:
        """The schema object of that name; the only one when there is one. Raises UsageError otherwise."""
        names = [s.name for s in self.schemas]
        if name is None:
            if len(self.schemas) == 1:
                return self.schemas[0]
            if not self.schemas:
                raise ContractError(self.path, 1, "no schema object", "add `schema:` with one object")
            raise UsageError(
                f"{self.path} has several schema objects: {', '.join(names)}", hint="choose one with --schema NAME"
            )
        for schema in self.schemas:
            if name in (schema.name, schema.physical_name):
                return schema
        raise UsageError(
            f"{self.path} has no schema object {name!r}",
            hint=did_you_mean(name, names) or f"one of: {', '.join(names)}",
        )

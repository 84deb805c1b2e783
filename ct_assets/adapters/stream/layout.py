"""How an online table holds the events of one definition, so that any window can be finished at any moment.

What goes here: which filters, columns and summaries a definition needs, and their types. What does not: SQL (``online``,
``online_query``), folding events into rows (``online_rows``). Pure.

A row holds up to 511 events of one (entity, partition, tile) that at least one aggregate's filter keeps: arrays of their
times, which filters keep them (a bit mask), and the columns that aggregates read; beside them, per filter and column,
sums and extremes of the row. A window that holds a row whole takes its summaries; only rows that lie across an edge of a
window are unpacked. So a read costs rows, not events, also for the hottest user. Floats are added in order, and
first, last and distinct values need the events themselves: a definition that has those unpacks every row.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.errors import UsageError
from ct_assets.streaming.definition import Acceptance, Aggregate, Definition

ROW_EVENTS = 256  # a row is closed once it has this many: no row has more than 2 x 256 - 1
MAX_FILTERS = 31  # bits of an integer that are never its sign
_NARROW_DIGITS = 18  # a decimal of so many digits fits a bigint, scaled
_SAFE_DIGITS = 15  # 511 of them add up within a bigint
_WIDE_DIGITS = 35  # 511 of them add up within 38 digits, which is what a sum of decimals may have
_MERGED = {"count", "sum", "avg", "var", "std", "min", "max"}
Where = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Kept:
    """A column of the contract that is kept with the events: as array ``c<position>`` of ``items``."""

    name: str
    position: int
    kind: str  # integer, scaled, wide, number, text, boolean, date, time
    scale: int = 0
    small: bool = False  # sums of a row fit a bigint
    adds: bool = True  # sums of a row fit their type at all

    @property
    def items(self) -> str:
        """PostgreSQL type of the array's items."""
        types = {"integer": "bigint", "scaled": "bigint", "time": "bigint", "number": "double precision"}
        return types.get(self.kind) or {"date": "integer", "boolean": "integer"}.get(self.kind, "text")

    @property
    def exact(self) -> bool:
        """Whether sums do not depend on the order."""
        return self.kind in ("integer", "scaled", "wide")


@dataclass(frozen=True)
class Summary:
    """A summary column of a row: ``what`` is n, k (values there), s (sum), q (sum of squares), lo or hi."""

    what: str
    filter: int
    column: Kept | None = None

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.what}{self.filter}" + ("" if self.column is None else f"_{self.column.position}")

    @property
    def postgres_type(self) -> str:
        """Its type in the table."""
        if self.what in ("n", "k"):
            return "integer"
        if self.what == "q" or (self.what == "s" and not (self.column and self.column.small)):
            return "numeric"
        if self.what == "s":
            return "bigint"
        assert self.column is not None
        return "numeric" if self.column.kind == "wide" else self.column.items

    @property
    def required(self) -> bool:
        """Whether every row has one (extremes of no value are absent)."""
        return self.what not in ("lo", "hi")


@dataclass(frozen=True)
class Layout:
    """The form of one definition's online table."""

    definition: Definition

    @cached_property
    def filters(self) -> tuple[Where, ...]:
        """The distinct filters, in order of first use; bit i of the mask is filter i."""
        found = tuple(dict.fromkeys(a.where for a in self.definition.aggregates))
        if len(found) > MAX_FILTERS:
            raise UsageError(
                f"{self.definition.name} has {len(found)} different filters, at most {MAX_FILTERS} fit one table",
                hint="split the definition in two",
            )
        return found

    @cached_property
    def kept(self) -> tuple[Kept, ...]:
        """The columns kept with the events: those that an aggregate reads (filters are in the mask)."""
        read = {a.column for a in self.definition.aggregates if a.column is not None}
        columns = [c for c in self.definition.schema.columns if c.name in read]
        return tuple(self._kept(c, i) for i, c in enumerate(columns))

    @property
    def tile_us(self) -> int:
        """Width of a tile: twice the longest window, so that a read looks at two tiles at most."""
        return 2 * self.definition.max_window_us

    @cached_property
    def ordered(self) -> bool:
        """Whether offsets are kept: floats are added, and first and last chosen, in (time, partition, offset) order."""
        return any(self._needs_order(a) for a in self.definition.aggregates)

    @cached_property
    def summarised(self) -> bool:
        """Whether rows have summaries, that is, whether every aggregate can be merged from them."""
        return all(self._merges(a) for a in self.definition.aggregates)

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """The summary columns, in order of first use."""
        if not self.summarised:
            return ()
        return tuple(dict.fromkeys(s for a in self.definition.aggregates for s in self.needed(a)))

    def needed(self, aggregate: Aggregate) -> tuple[Summary, ...]:
        """The summaries from which an aggregate is merged."""
        f = self.filters.index(aggregate.where)
        if aggregate.column is None:
            return (Summary("n", f),)
        column = self.column(aggregate.column)
        whats = {"count": "k", "sum": "s", "avg": "ks", "var": "ksq", "std": "ksq"}.get(aggregate.function)
        if whats is None:
            return (Summary({"min": "lo", "max": "hi"}[aggregate.function], f, column),)
        return tuple(Summary(what, f, column) for what in whats)

    def column(self, name: str) -> Kept:
        """The kept column of that name."""
        return next(k for k in self.kept if k.name == name)

    def _kept(self, column: Column, position: int) -> Kept:
        if column.name == self.definition.acceptance.event_time:
            return Kept(column.name, position, "time")
        if column.type == "decimal":
            kind = "scaled" if column.precision <= _NARROW_DIGITS else "wide"
            small, adds = column.precision <= _SAFE_DIGITS, column.precision <= _WIDE_DIGITS
            return Kept(column.name, position, kind, column.scale, small, adds)
        kinds = {"integer": "integer", "number": "number", "boolean": "boolean", "date": "date", "timestamp": "time"}
        return Kept(column.name, position, kinds.get(column.type, "text"))

    def _needs_order(self, aggregate: Aggregate) -> bool:
        if aggregate.column is None:
            return False
        floats = self.column(aggregate.column).kind == "number"
        return aggregate.function in ("first", "last") or (
            floats and aggregate.function in ("sum", "avg", "var", "std")
        )

    def _merges(self, aggregate: Aggregate) -> bool:
        if aggregate.column is None:
            return True
        column = self.column(aggregate.column)
        if aggregate.function in ("var", "std"):
            return column.small  # squares of the others may not fit 38 digits
        if aggregate.function in ("sum", "avg"):
            return column.exact and column.adds
        return aggregate.function in _MERGED


def document(definition: Definition) -> str:
    """A definition as JSON: all that is needed to serve, fold or rebuild it without its file."""
    read = {*definition.columns, definition.entity, definition.acceptance.event_id, definition.acceptance.event_time}
    columns = [c for c in definition.schema.columns if c.name in read]
    return json.dumps(
        {
            "name": definition.name,
            "entity": definition.entity,
            "acceptance": asdict(definition.acceptance),
            "aggregates": [asdict(a) for a in definition.aggregates],
            "ttl_us": definition.ttl_us,
            "freshness_us": definition.freshness_us,
            "on_stale": definition.on_stale,
            "emit_hop_us": definition.emit_hop_us,
            "description": definition.description,
            "contract": {
                "id": definition.schema.contract_id,
                "name": definition.schema.name,
                "version": definition.schema.version,
            },
            "columns": [{"name": c.name, "type": c.type, "precision": c.precision, "scale": c.scale} for c in columns],
        }
    )


def from_document(found: dict[str, Any]) -> Definition:
    """The definition that :func:`document` wrote; its hash is the same. The schema has the columns it reads."""
    contract = found["contract"]
    schema = DatasetSchema(
        name=contract["name"],
        columns=tuple(Column(**c) for c in found["columns"]),
        version=contract["version"],
        contract_id=contract["id"],
    )
    return Definition(
        name=found["name"],
        entity=found["entity"],
        acceptance=Acceptance(**found["acceptance"]),
        aggregates=tuple(_aggregate(a) for a in found["aggregates"]),
        ttl_us=found["ttl_us"],
        freshness_us=found["freshness_us"],
        on_stale=found["on_stale"],
        schema=schema,
        path=Path(),
        emit_hop_us=found["emit_hop_us"],
        description=found["description"],
    )


def _aggregate(found: dict[str, Any]) -> Aggregate:
    where = tuple((name, tuple(values)) for name, values in found["where"])
    return Aggregate(**{**found, "where": where})

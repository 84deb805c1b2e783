"""The typed definition of rolling aggregates over one source, its acceptance and its hash.

What goes here: plain frozen dataclasses and what follows from them (hash, result types). What does not: reading YAML
(``reading.py``), anything that computes. No polars, numpy or pyarrow: the code location loads this module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ct_assets.contracts.model import ERROR, DatasetSchema
from ct_assets.errors import UsageError

FUNCTIONS = ("count", "sum", "avg", "var", "std", "min", "max", "first", "last", "count_distinct")
NUMERIC = ("integer", "decimal", "number")
ORDERED = (*NUMERIC, "date", "timestamp")
UNITS_OF_TIME = {"us": 1, "ms": 1_000, "s": 1_000_000}
EARLIEST_US = 946_684_800_000_000  # 2000-01-01T00:00:00Z
WHOLE_64 = range(-(2**63), 2**63)  # what a column of type integer holds
LATEST_US = 4_102_444_800_000_000  # 2100-01-01T00:00:00Z, the first moment outside


@dataclass(frozen=True)
class Aggregate:
    """One rolling value: ``function`` of ``column`` over the events of ``[t - window, t)`` that match ``where``.

    ``where`` is a conjunction of (column, allowed values). ``sawtooth``: the window's tail is rounded down to a multiple
    of ``hop_us``, so that it covers ``[floor((t - W) / hop) * hop, t)``.
    """

    name: str
    function: str
    column: str | None
    window_us: int
    where: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    mode: str = "exact"
    hop_us: int | None = None

    def tail(self, at: int) -> int:
        """The first moment of the window that ends before ``at`` (microseconds)."""
        tail = at - self.window_us
        return tail if self.hop_us is None else tail // self.hop_us * self.hop_us


@dataclass(frozen=True)
class Acceptance:
    """Everything that decides whether an event is accepted; definitions that share one worker share it.

    ``time_unit`` is ``iso`` (a timestamp column) or ``us``, ``ms``, ``s`` (an integer column with the custom property
    ``unit``). ``contract_digest`` covers what the contract enforces, not its descriptions.
    """

    contract_digest: str
    event_id: str
    event_time: str
    entity: str
    out_of_orderness_us: int
    allowed_lateness_us: int
    idle_timeout_us: int
    max_future_skew_us: int
    dedup_horizon_us: int
    time_unit: str = "iso"

    @property
    def digest(self) -> str:
        """SHA-256 of all fields."""
        return _digest(asdict(self))


@dataclass(frozen=True)
class Definition:
    """Rolling aggregates of one entity over one source, as one file declares them."""

    name: str
    entity: str
    acceptance: Acceptance
    aggregates: tuple[Aggregate, ...]
    ttl_us: int
    freshness_us: int | None
    on_stale: str  # flag or null
    schema: DatasetSchema
    path: Path
    emit_hop_us: int | None = None
    contract_path: Path = Path()
    description: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 of what decides a value: a comment, a path, a description or the order of aggregates does not."""
        return _digest(
            {
                "name": self.name,
                "entity": self.entity,
                "acceptance": self.acceptance.digest,
                "aggregates": [asdict(a) for a in sorted(self.aggregates, key=lambda a: a.name)],
                "ttl_us": self.ttl_us,
                "freshness_us": self.freshness_us,
                "on_stale": self.on_stale,
                "emit_hop_us": self.emit_hop_us,
            }
        )

    @property
    def max_window_us(self) -> int:
        """How far the longest window may look back, its sawtooth edge included."""
        return max(a.window_us + (a.hop_us or 0) for a in self.aggregates)

    @property
    def columns(self) -> tuple[str, ...]:
        """The contract's columns that the aggregates read, in the contract's order."""
        read = {a.column for a in self.aggregates} | {name for a in self.aggregates for name, _ in a.where}
        return tuple(c.name for c in self.schema.columns if c.name in read)

    def aggregate(self, name: str) -> Aggregate:
        """The aggregate of that name. Raises KeyError."""
        for aggregate in self.aggregates:
            if aggregate.name == name:
                return aggregate
        raise KeyError(name)

    def result_type(self, aggregate: Aggregate) -> str:
        """integer, number, decimal(38,s), or the column's own logical type (decimals as decimal(p,s))."""
        if aggregate.function in ("count", "count_distinct"):
            return "integer"
        if aggregate.function in ("avg", "var", "std"):
            return "number"
        column = self.schema.column(aggregate.column or "")
        if column.type != "decimal":
            return column.type
        return f"decimal({38 if aggregate.function == 'sum' else column.precision},{column.scale})"


def contract_digest(schema: DatasetSchema, time_unit: str) -> str:
    """SHA-256 of what a contract enforces on an event: typed columns and row rules of severity error."""
    columns = [
        (c.name, c.type, c.precision, c.scale, c.required, c.time_zone, c.offsets, c.transforms, c.null_tokens)
        for c in schema.columns
    ]
    derived = [(c.name, repr(c.derived)) for c in schema.derived]
    rules = sorted((r.kind, r.columns, repr(r.limit)) for r in schema.rules if r.severity == ERROR)
    return _digest([columns, derived, rules, time_unit])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def load_definition(path: Path | str) -> Definition:
    """Read a definition file and its contract. Raises ContractError (file:line and what to write) or UsageError."""
    from ct_assets.streaming.reading import read_definition

    return read_definition(Path(path))


def shared_acceptance(definitions: Sequence[Definition]) -> Acceptance:
    """The acceptance that all definitions of one worker share. Raises UsageError that names the differing key."""
    if not definitions:
        raise UsageError("no definition given", hint="add --definition FILE")
    first = definitions[0]
    for other in definitions[1:]:
        if other.acceptance == first.acceptance:
            continue
        mine, theirs = asdict(first.acceptance), asdict(other.acceptance)
        key = next(k for k in mine if mine[k] != theirs[k])
        raise UsageError(
            f"{other.path} and {first.path} differ in {key.removesuffix('_us')}: {theirs[key]} and {mine[key]}",
            hint="definitions that one worker runs must accept alike; run them in two workers or make them equal",
        )
    return first.acceptance

"""Which columns the built-in features and trainer read, and whether a pipeline's tables have them.

What goes here: the check, before anything runs. What does not: reading the tables (``training_data``), which names its
columns itself: an own pipeline maps its columns to these by the contract's ``physicalName`` and the rollup's SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import TYPE_CHECKING

from ct_assets.adapters.datasets import PublishedDataset
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.contracts.model import DatasetSchema
    from ct_assets.platform.spec import PipelineSpec

LINES = {
    "invoice_no": ("text",),
    "stock_code": ("text",),
    "quantity": ("bigint", "integer", "smallint"),
    "invoice_date": ("timestamptz", "timestamp"),
    "customer_id": ("text",),
    "is_product": ("boolean",),
}
"""Columns of the contract's table, by ``physicalName``, and the types they may have."""
ROLLUP = ("stock_code", "units", "revenue", "orders", "units_returned")
"""Columns of the first rollup."""
_HINT = "map them with physicalName in the contract, or derive them; docs/guides/own-csv.md shows the smallest pipeline"


def check_lines(spec: PipelineSpec, schema: DatasetSchema) -> None:
    """Raise :class:`UsageError` when ``spec`` asks for features and its contract or rollups cannot give them."""
    if not spec.features:
        return
    if not spec.rollups:
        raise UsageError(
            f"{spec.file}: `features` are computed from a rollup of sums per day, and there is none",
            hint=f"add `rollups: [sql/<table>.sql]` with the columns {', '.join(ROLLUP)}",
        )
    have = {c.physical_name or c.name: c.postgres_type for c in schema.columns}
    wrong = [
        f"{name} ({' or '.join(types)}) is {f'of type {have[name]}' if name in have else 'missing'}"
        for name, types in LINES.items()
        if have.get(name) not in types
    ]
    if wrong:
        raise UsageError(
            f"{spec.file}: `features: [{', '.join(spec.features)}]` reads columns that {spec.source.contract.name}"
            f" does not give: {'; '.join(wrong)}",
            hint=_HINT,
        )


def check_rollup(conn: psycopg.Connection, spec: PipelineSpec, dataset: PublishedDataset) -> None:
    """The same of the columns that the first rollup's SQL gives, asked of PostgreSQL; nothing is written."""
    if not spec.features or not dataset.rollups:
        return
    columns = _columns(conn, dataset)
    missing = [name for name in ROLLUP if columns is not None and name not in columns]
    if missing:
        raise UsageError(
            f"{spec.rollups[0]}: `features: [{', '.join(spec.features)}]` reads columns that this SELECT does not give:"
            f" {', '.join(missing)}",
            hint="add them to its SELECT; docs/guides/own-csv.md shows the smallest pipeline",
        )


def _columns(conn: psycopg.Connection, dataset: PublishedDataset) -> Collection[str] | None:
    """None where the SQL fails: the step that rolls up says why, with the rollup's name."""
    import psycopg

    from ct_assets.adapters.rollups import described
    from ct_assets.adapters.tables import TableConflict, ensure_tables

    try:
        with conn.transaction(force_rollback=True):
            ensure_tables(conn, dataset)
            return described(conn, dataset.rollups[0], dt.date(2000, 1, 1))
    except (psycopg.Error, TableConflict):
        return None

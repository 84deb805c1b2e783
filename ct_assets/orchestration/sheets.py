"""Sheets for people: a checked DataFrame leaves as CSV in storage under `reports/`.

What goes here: the frame planners get, and the IO manager that writes it, escaped against formula injection (F26). What does not: published
tables (consumers that are programs read those).
"""
# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

import io
from typing import Any

import dagster as dg

from ct_assets.orchestration.resources import RESOURCE, Installation

SHEETS = "sheets"


class SheetWriter(dg.IOManager):
    """Writes the DataFrame of an output to storage; nothing reads it back here."""

    def __init__(self, installation: Installation) -> None:
        """``installation`` says where storage is."""
        self.installation = installation

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write one CSV, whole or not at all; its key is the output's metadata `key`."""
        from ct_assets.adapters.quarantine import harmless
        from ct_assets.adapters.storage import open_storage

        key = str((context.output_metadata or {})["key"].value)
        texts = obj.select_dtypes(exclude="number").columns
        safe = obj.assign(**{name: obj[name].map(lambda cell: harmless(str(cell))) for name in texts})
        out = io.StringIO()
        safe.to_csv(out, index=False, lineterminator="\r\n")
        open_storage(self.installation.settings).put(key, out.getvalue().encode())
        context.add_output_metadata({"rows": len(obj), "sheet": key})

    def load_input(self, context: dg.InputContext) -> Any:
        """Sheets are for people."""
        raise dg.DagsterInvariantViolationError("a sheet is not an input: read the published table instead")


@dg.io_manager(required_resource_keys={RESOURCE})
def sheet_writer(context: dg.InitResourceContext) -> SheetWriter:
    """The writer of this installation."""
    return SheetWriter(getattr(context.resources, RESOURCE))


def planner_frame(installation: Installation, model: str) -> tuple[Any, str]:
    """The published totals of the coming week as a pandas DataFrame, and the key of its sheet. Raises :class:`CtError`."""
    import pandas as pd
    from psycopg import sql

    from ct_assets.adapters import forecasts
    from ct_assets.errors import CtError

    columns = ("stock_code", "open_days", "mean", "p50", "p90")
    with installation.ledger() as conn:
        current = forecasts.current(conn, model)
        if current is None:
            raise CtError(f"no forecast of {model} is published yet", hint="`ct model show` says why no version leads")
        query = sql.SQL("select {} from prediction.{} order by stock_code").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(f"{model}_total")
        )
        rows = conn.execute(query).fetchall()
    return pd.DataFrame(rows, columns=pd.Index(columns)), f"reports/{model}/forecast_{current['as_of']}.csv"

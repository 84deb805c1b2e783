"""Judging small texts in tests: schemas in one line, the whole table back.

What goes here: the shortest way from bytes to a verdict. What does not: assertions.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import polars as pl

from ct_assets.contracts.model import Column, DatasetSchema
from ct_assets.contracts.odcs import load_contract
from ct_assets.ingest.judge import Judgement
from ct_assets.ingest.verdict import FileVerdict

SALES = "ct_assets/defs/merchandising/sales/contracts/sales_lines.odcs.yaml"


@dataclass
class Judged:
    """Everything that a judgement gives."""

    verdict: FileVerdict
    good: pl.DataFrame
    quarantined: pl.DataFrame

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """Good rows without ``_line``; none for a file that was rejected before its first block."""
        return self.good.drop("_line", strict=False).rows()

    @property
    def reasons(self) -> dict[int, list[str]]:
        """Reasons by physical line."""
        return dict(self.quarantined.select("_line", "_reasons").iter_rows())

    @property
    def rule(self) -> str | None:
        """The rule that rejects the file."""
        return self.verdict.rejected.rule if self.verdict.rejected else None


def texts(*names: str, **options: Any) -> DatasetSchema:
    """A schema of optional text columns."""
    return DatasetSchema("t", tuple(Column(name) for name in names), **options)


def judge(data: bytes | str, schema: DatasetSchema, name: str = "t.csv", chunk_bytes: int = 4 << 20) -> Judged:
    """Judge bytes (or text as UTF-8) to the end."""
    raw = data.encode() if isinstance(data, str) else data
    judgement = Judgement(io.BytesIO(raw), schema, name=name, chunk_bytes=chunk_bytes)
    chunks = list(judgement)
    good = pl.concat([c.good for c in chunks]) if chunks else pl.DataFrame()
    bad = pl.concat([c.quarantined for c in chunks]) if chunks else pl.DataFrame()
    return Judged(judgement.verdict, good, bad)


def contract(tmp_path: Any, properties: str, more: str = "", head: str = "") -> DatasetSchema:
    """A schema from the YAML of its properties (one flow mapping a line) and other keys of the schema object."""
    lines = [f"      - {line.strip()}" for line in properties.strip().splitlines()]
    text = (
        f"apiVersion: v3.1.0\nkind: DataContract\nid: t\nversion: 1.0.0\nstatus: active\n{head}schema:\n  - name: t\n"
    )
    text += more + "    properties:\n" + "\n".join(lines) + "\n"
    path = tmp_path / "t.odcs.yaml"
    path.write_text(text, encoding="utf-8")
    return load_contract(path).schema()


def sales() -> DatasetSchema:
    """The sales contract of the project."""
    from ct_assets_tests.conftest import ROOT

    return load_contract(ROOT / SALES).schema()


HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LINE = "536365,85123A,HEART HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom"


def sales_line(**changes: str) -> str:
    """A sound sales line with some fields replaced."""
    row = dict(zip(HEADER.split(","), LINE.split(","), strict=True)) | changes
    return ",".join(row[name] for name in HEADER.split(","))


def sales_file(*lines: str) -> str:
    """A sales file of the lines, with header."""
    return "\n".join([HEADER, *lines]) + "\n"

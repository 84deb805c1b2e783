"""What ``ct verdict --out`` writes: the good and the quarantined rows of a file as Parquet.

What goes here: opening the input, writing both outputs atomically. What does not: the command (``verdict.py``).
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.cli.output import writing
from ct_assets.contracts.model import DatasetSchema
from ct_assets.ingest.judge import JudgedChunk, Judgement
from ct_assets.ingest.verdict import FileVerdict

ROW_GROUP = 100_000
FEW = 0.05  # share of unlike values below which a text column is written with a dictionary


def judge_file(path: Path, schema: DatasetSchema, out: Path | None = None) -> FileVerdict:
    """Judge a file; with ``out`` also write its rows. A rejected file leaves no output, not even an older one."""
    with path.open("rb") as stream:
        judgement = Judgement(stream, schema, name=str(path))
        if out is None:
            return judgement.exhaust()
        with writing("--out", out, "a folder, or a place to make one"):
            out.mkdir(parents=True, exist_ok=True)
        with _Table(out / f"{path.name}.good.parquet") as good, _Table(out / f"{path.name}.quarantine.parquet") as bad:
            for chunk in judgement:
                _write(chunk, good, bad)
            good.keep = bad.keep = judgement.verdict.rejected is None
    return judgement.verdict


def _write(chunk: JudgedChunk, good: _Table, bad: _Table) -> None:
    good.add(chunk.good)
    bad.add(chunk.quarantined)


class _Table:
    """A Parquet file that appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keep = False
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pl.DataFrame] = []
        self._rows = 0

    def __enter__(self) -> _Table:
        return self

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows; they are written a row group at a time."""
        if frame.height or not self._held:
            self._held.append(frame)
            self._rows += frame.height
        if self._rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        table = _arrow(pl.concat(self._held))
        if self._writer is None:
            options: Any = {"compression": "snappy", "use_dictionary": _repetitive(table)}
            self._writer = pq.ParquetWriter(self._part, table.schema, **options)
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._held, self._rows = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.keep:
                self._flush()
            if self._writer is not None:
                self._writer.close()
        finally:
            if kind is None and self.keep and self._part.exists():
                os.replace(self._part, self.path)
            else:
                self._part.unlink(missing_ok=True)
                if kind is None:
                    self.path.unlink(missing_ok=True)


def _repetitive(table: Any) -> list[str]:
    """Text columns worth a dictionary, judged on the first rows: encoding one for keys costs half of the writing."""
    head = table.slice(0, 20_000)
    texts = [field.name for field in table.schema if field.type == pa.string()]
    return [name for name in texts if len(head[name].unique()) <= FEW * max(head.num_rows, 1)]


def _arrow(frame: pl.DataFrame) -> Any:
    """Arrow with the plainest types, so that any reader opens it (string, list<string>)."""
    table = frame.to_arrow()
    fields = []
    for field in table.schema:
        plain = {pa.large_string(): pa.string(), pa.string_view(): pa.string()}.get(field.type, field.type)
        if pa.types.is_large_list(field.type):
            plain = pa.list_(pa.string())
        fields.append(pa.field(field.name, plain))
    return table.cast(pa.schema(fields))

"""The judgement of one delivered file: bytes in, good rows, quarantined rows and a verdict out.

What goes here: the order in which things happen to a block of rows. What does not: how each is done (the other modules
of this package), where rows go afterwards (callers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import PurePath
from typing import BinaryIO

import polars as pl

from ct_assets.contracts.errors import ContractError
from ct_assets.contracts.model import DatasetSchema
from ct_assets.ingest.batch import BatchMeter
from ct_assets.ingest.frontdoor import FrontDoor, TextRows
from ct_assets.ingest.quarantine import QuarantineRows
from ct_assets.ingest.rowjudge import RowJudge
from ct_assets.ingest.source import Source
from ct_assets.ingest.verdict import FileRejected, FileVerdict

CHUNK_BYTES = 2 << 20  # small enough for the caches, large enough that the calls per block do not count


@dataclass(frozen=True)
class JudgedChunk:
    """A stretch of a file, judged.

    ``good``: the contract's columns, typed, derived ones included, and ``_line`` (int64). ``quarantined``: ``_line``,
    ``_raw`` (the record's text), ``_reasons`` (names of the rules it breaks). Both in file order; either may be empty.
    """

    good: pl.DataFrame
    quarantined: pl.DataFrame


class Judgement:
    """Judges a stream once. Iterate to get the chunks; then ``verdict`` is complete.

    A rejection may come at the very end (budget, open quote, batch rule): whoever staged chunks must then discard them.
    Memory is bounded by a few chunks, whatever the file's size. No exception leaves the iteration for what is wrong with
    the data: that is in ``verdict.rejected``.
    """

    def __init__(self, stream: BinaryIO, schema: DatasetSchema, *, name: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        """``name`` is the delivery's file name; a contract may take the delivery's day from it."""
        if not schema.columns:
            raise ContractError(
                "contract", schema.line, f"schema object {schema.name!r} has no properties", "list its columns"
            )
        self.schema = schema
        self.verdict = FileVerdict(file=name, contract_digest=schema.digest)
        self._source = Source(stream, schema.dialect)
        self._chunk_bytes = chunk_bytes

    def __iter__(self) -> Iterator[JudgedChunk]:
        """Yield the chunks in file order."""
        try:
            yield from self._chunks()
        except FileRejected as rejected:
            self.verdict.rejected = rejected.rejection
            self.verdict.good = 0
        self._source.drain()
        self.verdict.sha256 = self._source.sha256

    def exhaust(self) -> FileVerdict:
        """Judge to the end for the verdict alone."""
        for _ in self:
            pass
        return self.verdict

    def _chunks(self) -> Iterator[JudgedChunk]:
        verdict, schema = self.verdict, self.schema
        verdict.day = _delivery_day(schema, verdict.file)
        rows = RowJudge(schema, verdict.day)
        door = FrontDoor(self._source, schema, self._chunk_bytes)
        meter = BatchMeter(schema, verdict.day)
        for text in door.rows():
            chunk = self._judge(text, rows, door)
            meter.add(chunk.good)
            yield chunk
        verdict.warnings += door.warnings
        _close(verdict, schema, meter)

    def _judge(self, text: TextRows, rows: RowJudge, door: FrontDoor) -> JudgedChunk:
        verdict = self.verdict
        held = QuarantineRows(text)
        if text.height:
            judged = rows.judge(text)
            for rule, count in judged.counts.items():
                verdict.reasons[rule] = verdict.reasons.get(rule, 0) + count
            held.add_rows(judged.bad, judged.reasons)
            verdict.duplicates += judged.duplicates
            verdict.read += text.height
            good = judged.good
        else:
            good = rows.nothing()
        quarantined = held.frame()
        for rule, count in held.structural.items():
            verdict.reasons[rule] = verdict.reasons.get(rule, 0) + count
            verdict.read += count
        verdict.quarantined += quarantined.height
        verdict.good += good.height
        return JudgedChunk(good, quarantined)


_ISO_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?![0-9])")


def _delivery_day(schema: DatasetSchema, name: str) -> date | None:
    if schema.delivery_day is None:
        return None
    match = _ISO_DAY.match(PurePath(name).name)
    try:
        return date.fromisoformat(match.group(1)) if match else _no_day(name)
    except ValueError:
        return _no_day(name)


def _no_day(name: str) -> date:
    text = f"the name {PurePath(name).name!r} does not begin with an ISO date; the contract takes the delivery's day from it (2011-01-04*.csv)"
    raise FileRejected("no_delivery_day", 0, text)


def _close(verdict: FileVerdict, schema: DatasetSchema, meter: BatchMeter) -> None:
    """What can only be said at the end: nothing there, too much of it bad, batch rules."""
    if not verdict.read:
        raise FileRejected("header_only", 0, "the file has a header and no rows")
    share = verdict.quarantined / verdict.read
    if schema.max_bad_fraction is not None and share > schema.max_bad_fraction:
        worst = sorted(verdict.reasons.items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{rule} {count:,}" for rule, count in worst)
        text = f"{verdict.quarantined:,} of {verdict.read:,} rows are bad ({share:.1%}), more than maxBadFraction {schema.max_bad_fraction:.1%}: {shown}"
        raise FileRejected("max_bad_fraction", 0, text)
    for rule, message, blocks in meter.broken():
        if blocks:
            raise FileRejected(rule, 0, message)
        verdict.warnings.append(message)

"""Text rows become typed rows and a bitmask of broken rules each.

What goes here: casts, row rules, then rules that need other rows, in that order, for one block. What does not: structure
(``frontdoor.py``), truth tables (``casts.py``, ``rules.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.contracts.model import ERROR, DatasetSchema, Rule
from ct_assets.ingest.casts import LOCAL, dtype
from ct_assets.ingest.columns import ColumnReader, Read
from ct_assets.ingest.duplicates import Seen, fingerprints, null_rows
from ct_assets.ingest.expressions import Compiler
from ct_assets.ingest.frontdoor import TextRows
from ct_assets.ingest.rules import ABSENT, DIRECT, broken_directly, row_rules

Bits = npt.NDArray[np.uint64]
WORD = 64


@dataclass
class JudgedRows:
    """Good rows; indices of the bad ones with their reasons; how often each rule was broken; repeats that collapsed."""

    good: pl.DataFrame
    bad: npt.NDArray[np.int64]
    reasons: pl.Series
    counts: dict[str, int]
    duplicates: int


class RowJudge:
    """Judges the blocks of one file in order; remembers keys and rows where the contract asks for it."""

    def __init__(self, schema: DatasetSchema, day: date | None) -> None:
        """``day`` is the delivery's day, for rules that compare with it."""
        self.schema = schema
        self._readers = [ColumnReader(column) for column in schema.delivered]
        self._direct = [(bit, rule) for bit, rule in enumerate(schema.rules) if rule.kind in DIRECT]
        self._exprs = [broken.alias(str(bit)) for bit, broken in row_rules(schema, day)]
        self._asked = {name for expr in self._exprs for name in expr.meta.root_names()}
        compiler = Compiler(schema, day)
        self._derived = [compiler.expression(c.derived).alias(c.name) for c in schema.derived if c.derived]
        self._keys = [(bit, rule, Seen()) for bit, rule in enumerate(schema.rules) if rule.kind == "unique"]
        self._rows_seen = Seen() if schema.on_exact_duplicate != "keep" else None
        self._words = max((len(schema.rules) + WORD - 1) // WORD, 1)
        self._error_bits = self._mask(rule.severity == ERROR for rule in schema.rules)
        self._names = [c.name for c in schema.columns]
        self._places: dict[bytes, int] = {}  # of each combination of rules in ``_named``
        self._named = pl.Series([], dtype=pl.List(pl.String))

    def _mask(self, flags: object) -> Bits:
        mask = np.zeros((self._words, 1), np.uint64)
        for bit, flag in enumerate(flags):  # pyright: ignore[reportArgumentType]
            if flag:
                mask[bit // WORD] |= np.uint64(1 << (bit % WORD))
        return mask

    def nothing(self) -> pl.DataFrame:
        """A good frame without rows."""
        return pl.DataFrame(schema={**{c.name: dtype(c) for c in self.schema.columns}, "_line": pl.Int64})

    def judge(self, text: TextRows) -> JudgedRows:
        """Judge the rows of a block."""
        reads = {reader.column.name: reader.read(text.fields(reader.column.name)) for reader in self._readers}
        frame = self._frame(reads)
        bits = np.zeros((self._words, text.height), np.uint64)
        counts: dict[str, int] = {}
        for bit, rule in self._direct:
            broken = broken_directly(rule, reads[rule.columns[0]])
            if broken is not None:
                self._set(bits, bit, broken, counts)
        if self._exprs:
            for series in frame.select_seq(self._exprs):
                if series.any():
                    self._set(bits, int(series.name), series.to_numpy(), counts)
        good = ~self._bad(bits)
        duplicates = self._judge_repeats(frame, bits, good, counts)
        bad = np.flatnonzero(self._bad(bits))
        return JudgedRows(self._kept(frame, text, good), bad, self._reasons(bits[:, bad]), counts, duplicates)

    def _frame(self, reads: dict[str, Read]) -> pl.DataFrame:
        series: dict[str, pl.Series] = {name: read.values for name, read in reads.items()}
        for name, read in reads.items():
            if read.local is not None and name + LOCAL in self._asked:
                series[name + LOCAL] = read.local
            if name + ABSENT in self._asked:
                absent = read.absent if read.absent is not None else np.zeros(len(read.values), bool)
                series[name + ABSENT] = pl.Series(absent)
        return pl.DataFrame(series)

    def _kept(self, frame: pl.DataFrame, text: TextRows, good: npt.NDArray[np.bool_]) -> pl.DataFrame:
        found = {series.name: series for series in frame.get_columns()}
        found["_line"] = pl.Series("_line", text.line)
        if self._derived:
            found |= {series.name: series for series in frame.with_columns_seq(self._derived).get_columns()}
        columns = [found[name] for name in (*self._names, "_line")]
        if not good.all():  # column by column: half the time of filtering the frame
            where = pl.Series(good)
            columns = [column.filter(where) for column in columns]
        return pl.DataFrame(columns)

    def _set(self, bits: Bits, bit: int, broken: npt.NDArray[np.bool_], counts: dict[str, int]) -> None:
        bits[bit // WORD] |= broken.astype(np.uint64) << np.uint64(bit % WORD)
        name = self.schema.rules[bit].name
        counts[name] = counts.get(name, 0) + int(np.count_nonzero(broken))

    def _bad(self, bits: Bits) -> npt.NDArray[np.bool_]:
        return np.asarray((bits & self._error_bits).any(axis=0))

    def _judge_repeats(
        self, frame: pl.DataFrame, bits: Bits, good: npt.NDArray[np.bool_], counts: dict[str, int]
    ) -> int:
        """Exact repeats of good rows, then keys met before. Clears ``good`` where a row falls; returns what collapsed."""
        collapsed = 0
        if self._rows_seen is not None:
            columns = [c.name for c in self.schema.delivered]
            repeats = self._repeats(frame, columns, good, self._rows_seen)
            if self.schema.on_exact_duplicate == "collapse":
                collapsed = len(repeats)
            elif len(repeats):
                bit = next(i for i, rule in enumerate(self.schema.rules) if rule.kind == "duplicate")
                self._fall(bits, bit, repeats, counts)
            good[repeats] = False
        for bit, rule, seen in self._keys:
            repeats = self._repeats(frame, list(rule.columns), good, seen)
            if len(repeats):
                self._fall(bits, bit, repeats, counts)
                if rule.severity == ERROR:
                    good[repeats] = False
        return collapsed

    def _fall(self, bits: Bits, bit: int, rows: npt.NDArray[np.int64], counts: dict[str, int]) -> None:
        broken = np.zeros(bits.shape[1], bool)
        broken[rows] = True
        self._set(bits, bit, broken, counts)

    def _repeats(
        self, frame: pl.DataFrame, columns: list[str], good: npt.NDArray[np.bool_], seen: Seen
    ) -> npt.NDArray[np.int64]:
        """Indices of good rows whose values in ``columns`` were met before (a NULL in a key is never met)."""
        rows = np.flatnonzero(good)
        if len(columns) < len(self.schema.delivered):
            rows = rows[~null_rows(frame, columns)[rows]]
        prints = fingerprints(frame, columns)
        return rows[~seen.first(prints[rows] if len(rows) < frame.height else prints)]

    def _reasons(self, bits: Bits) -> pl.Series:
        """The names of the rules that each row breaks, as a list column."""
        if not bits.shape[1]:
            return pl.Series([], dtype=pl.List(pl.String))
        if self._words == 1:  # as plain integers: sorting columns of words is thirty times dearer
            unlike, which = np.unique(bits[0], return_inverse=True)
            unlike = unlike[None]
        else:
            unlike, which = np.unique(bits, axis=1, return_inverse=True)
        at = np.array([self._combination(column) for column in unlike.T])
        return self._named.gather(at[np.ravel(which)])

    def _combination(self, words: Bits) -> int:
        """The place of a combination of rules among those met so far: making lists a block is dear."""
        key = words.tobytes()
        if key not in self._places:
            self._places[key] = len(self._places)
            names = [rule.name for bit, rule in enumerate(self.schema.rules) if _has(words, bit)]
            self._named = pl.concat([self._named, pl.Series([names], dtype=pl.List(pl.String))])
        return self._places[key]


def _has(words: Bits, bit: int) -> bool:
    return bool(int(words[bit // WORD]) >> (bit % WORD) & 1)


def rule_bits(rules: tuple[Rule, ...]) -> dict[str, int]:
    """The bit of each rule, by name."""
    return {rule.name: bit for bit, rule in enumerate(rules)}

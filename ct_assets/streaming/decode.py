"""Messages become typed events, or dead letters with a reason.

What goes here: the order of the steps for a batch, and the JSON decoder. What does not: the truth table of one value
(``values.py``), rules (``rules.py``), Avro (``avro.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ct_assets.contracts.model import DatasetSchema
from ct_assets.json_values import shown
from ct_assets.streaming.definition import Acceptance
from ct_assets.streaming.fields import Fields
from ct_assets.streaming.form_columns import LEAST, FormColumns
from ct_assets.streaming.messages import I64, Messages
from ct_assets.streaming.rules import cleaned, derived, dtype, row_rules
from ct_assets.streaming.scanner import Scanner
from ct_assets.streaming.values import Reading, Refused

INDEX = "_i"
BLOCK = 16_384  # messages scanned at a time: their buffers stay in the cache
FEW = 200  # one in so many is put between the others' rows instead of sorting them all
SCAN_FROM = 256  # fewer messages are read one by one: learning layouts costs some milliseconds


@dataclass(frozen=True)
class DeadLetter:
    """A message that does not count: its index in the Messages, the first reason that applies, what was wrong."""

    index: int
    reason: str
    error: str


@dataclass
class Decoded:
    """``frame``: the contract's columns plus ``_i`` (index into the Messages, ascending); the rest has no row."""

    frame: pl.DataFrame
    dead: list[DeadLetter] = field(default_factory=list)
    tombstones: I64 = field(default_factory=lambda: np.empty(0, np.int64))


def frame_schema(schema: DatasetSchema, acceptance: Acceptance) -> dict[str, pl.DataType]:
    """The columns of a decoded frame, ``_i`` last."""
    return {**{c.name: dtype(c, acceptance) for c in schema.columns}, INDEX: pl.Int64()}


class EventFrames:
    """Typed rows to frames: transforms, derived columns, then the contract's rules."""

    def __init__(self, schema: DatasetSchema, acceptance: Acceptance) -> None:
        """Compile once; a decoder holds one of these."""
        self.schema, self.acceptance = schema, acceptance
        self.names = [c.name for c in schema.delivered]
        self.types = frame_schema(schema, acceptance)
        self._cleaned = cleaned(schema)
        self._derived = derived(schema)
        self._rules = row_rules(schema, acceptance)

    def from_rows(self, rows: list[tuple[Any, ...]], index: list[int]) -> pl.DataFrame:
        """A frame of the delivered columns and ``_i`` from typed values (times as microseconds)."""
        series = []
        for position, name in enumerate(self.names):
            values = [row[position] for row in rows]
            kind = self.types[name]
            if isinstance(kind, pl.Datetime):
                series.append(pl.Series(name, values, pl.Int64).cast(kind))
            else:
                series.append(pl.Series(name, values, kind, strict=True))
        return pl.DataFrame([*series, pl.Series(INDEX, index, pl.Int64)])

    def judged(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[DeadLetter]]:
        """The events that keep every rule, with derived columns; a dead letter ``contract`` for each other."""
        if self._cleaned:
            frame = frame.with_columns(self._cleaned)
        if self._derived:
            frame = frame.with_columns(self._derived)
        frame = frame.select(*self.types)
        if not self._rules or not frame.height:
            return frame, []
        broken = frame.select(any_=pl.any_horizontal([e for _, e in self._rules])).to_series()
        if not broken.any():
            return frame, []
        return frame.filter(~broken), self._letters(frame.filter(broken))

    def _letters(self, bad: pl.DataFrame) -> list[DeadLetter]:
        """Which rules each of these events breaks; an entity that a transform emptied is a null key."""
        flags = bad.select(
            pl.col(INDEX),
            pl.col(self.acceptance.entity).is_null().alias("key"),
            *[e.alias(f"rule{n}") for n, (_, e) in enumerate(self._rules)],
        )
        letters = []
        for index, null_key, *rules in flags.iter_rows():
            names = [name for (name, _), hit in zip(self._rules, rules, strict=True) if hit]
            letters.append(DeadLetter(index, "null_key" if null_key else "contract", "breaks " + ", ".join(names)))
        return letters


def decode_each(
    messages: Messages, wanted: Iterable[int], parse: Callable[[bytes], Any], frames: EventFrames, reading: Reading
) -> tuple[pl.DataFrame, list[DeadLetter]]:
    """Message by message, exactly: ``parse`` gives an object or raises Refused."""
    rows: list[tuple[Any, ...]] = []
    index: list[int] = []
    dead: list[DeadLetter] = []
    for i in wanted:
        try:
            rows.append(reading.row(parse(messages.payload(i) or b"")))
            index.append(i)
        except Refused as wrong:
            dead.append(DeadLetter(i, wrong.reason, wrong.error))
    return frames.from_rows(rows, index), dead


def parse_json(payload: bytes) -> dict[str, Any]:
    """One JSON object, strictly (RFC 8259): numbers exact, no NaN, no lone surrogates, no key twice. Raises Refused."""
    try:
        found = _JSON.decode(payload.decode("utf-8"))
        if isinstance(found, dict):
            if b"\\u" in payload:
                json.dumps(found, ensure_ascii=False, default=str).encode("utf-8")  # a lone surrogate has no UTF-8
            return found
    except (ValueError, RecursionError) as wrong:
        raise Refused("poison", f"no JSON: {str(wrong)[:200]}") from None
    raise Refused("poison", f"no JSON object but {shown(found)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_JSON = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_object)


class JsonDecoder:
    """JSON messages, one object each: those of a common layout at once, the others one by one, with equal results."""

    def __init__(self, schema: DatasetSchema, acceptance: Acceptance, *, scan_from: int = SCAN_FROM) -> None:
        """``schema`` types the columns and gives the rules; ``acceptance`` names id, time and entity."""
        self._scan_from = scan_from
        self._frames = EventFrames(schema, acceptance)
        self._reading = Reading(schema, acceptance)
        self._scanner = Scanner()
        self._fields = Fields(schema, acceptance)
        self._forms = FormColumns(schema, acceptance, min(LEAST, scan_from))

    def decode(self, messages: Messages) -> Decoded:
        """Typed events in the order of the messages, dead letters, tombstones."""
        open_ = messages.length >= 0
        parts: list[pl.DataFrame] = []
        if np.count_nonzero(open_) >= self._scan_from:
            formed = self._forms.frame(messages, open_)
            parts += [] if formed is None else [formed]
        if np.count_nonzero(open_) >= self._scan_from:
            parts += self._layouts(messages, open_)
        rest = np.flatnonzero(open_)
        frame, dead = decode_each(messages, rest.tolist(), parse_json, self._frames, self._reading)
        frame = _in_place([*parts, frame]) if parts else frame
        frame, broken = self._frames.judged(frame)
        dead = sorted([*dead, *broken], key=lambda d: d.index)
        return Decoded(frame, dead, np.flatnonzero(messages.length < 0).astype(np.int64))

    def _layouts(self, messages: Messages, open_: npt.NDArray[np.bool_]) -> list[pl.DataFrame]:
        """Frames of the open messages that share a layout, block by block; they are closed in ``open_``."""
        rows = np.flatnonzero(open_)
        few = not messages.packed or 2 * len(rows) < len(messages)  # the scanner reads a buffer whole
        left = messages.take(rows) if few else messages
        still = np.ones(len(left), np.bool_) if few else open_
        parts: list[pl.DataFrame] = []
        for begin in range(0, len(left), BLOCK):
            parts += self._scanned(left, slice(begin, min(begin + BLOCK, len(left))), still)
        if few:
            open_[rows] = still
            parts = [part.with_columns(pl.Series(INDEX, rows[part[INDEX].to_numpy()])) for part in parts]
        return parts

    def _scanned(self, messages: Messages, block: slice, open_: npt.NDArray[np.bool_]) -> list[pl.DataFrame]:
        """Frames of the open messages of one block that share a layout; they are closed in ``open_``."""
        part = messages.slice(block.start, block.stop)
        here = np.flatnonzero(open_[block])
        if not len(here) or not _in_order(part, here):
            return []
        frames = []
        data, found = self._scanner.scan(part, here)
        for match in found:
            if self._fields.can_read(match):
                frame, unsure = self._fields.frame(data, match, block.start)
                open_[match.rows + block.start] = False
                open_[unsure + block.start] = True
                frames.append(frame)
        return frames


def _in_order(messages: Messages, here: I64) -> bool:
    """Payloads follow each other in the buffer, as the scanner's searches need."""
    start = messages.start[here]
    return bool((start[1:] > (start + messages.length[here])[:-1]).all())


def _in_place(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """One frame in the order of the messages."""
    parts = [p for p in parts if p.height] or parts[-1:]
    if len(parts) == 1:
        return parts[0]
    rest = pl.concat(parts[1:])
    if rest.height <= parts[0].height // FEW:
        return _put_between(parts[0], rest.sort(INDEX))
    whole = pl.concat(parts)
    return whole[np.argsort(whole[INDEX].to_numpy(), kind="stable")]


def _put_between(most: pl.DataFrame, few: pl.DataFrame) -> pl.DataFrame:
    """Both in order: runs of rows are copied whole, which takes a tenth of picking every row."""
    before = np.searchsorted(most[INDEX].to_numpy(), few[INDEX].to_numpy()).tolist()
    pieces: list[pl.DataFrame] = []
    for begin, end, number in zip([0, *before], [*before, most.height], range(few.height + 1), strict=True):
        pieces += [most[begin:end], few[number : number + 1]]
    return pl.concat(pieces, rechunk=True)

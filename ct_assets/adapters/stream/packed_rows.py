"""Accepted events folded into packed rows for Redis: vectorised, no Python per event or per row.

What goes here: events and sums as bytes, rows cut into messages. What does not: which events make a row
(``online_rows``), the bytes' form (``packed_form``), sending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ct_assets.adapters.stream.layout import Kept, Summary
from ct_assets.adapters.stream.online_rows import grouped
from ct_assets.adapters.stream.packed_form import ITEM_HEAD, LIMB, Packing, summary_width

_MASK = (1 << LIMB) - 1
Bytes = npt.NDArray[np.uint8]
Sizes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Range:
    """What a delta covers of one partition: versions before and after it; rows that end before ``below`` may go."""

    begin: float
    end: float
    below: float = -np.inf


@dataclass(frozen=True)
class Packed:
    """Rows in order of their entity: the bytes, where each ends, and whether the next row is of another entity."""

    rows: int
    events: int
    data: Bytes
    ends: Sizes
    is_last: npt.NDArray[np.bool_]

    def messages(self, size: int) -> Iterator[bytes]:
        """The bytes in parts of about ``size``, an entity never in two."""
        cuts = self.ends[self.is_last]
        start = 0
        while start < len(self.data):
            place = min(int(np.searchsorted(cuts, start + size)), len(cuts) - 1)
            yield self.data[start : cuts[place]].tobytes()
            start = int(cuts[place])


def pack(packing: Packing, events: pl.DataFrame, ranges: Mapping[int, Range]) -> Packed | None:
    """The rows that ``events`` (as committed) add, for the delta of ``ranges`` (by partition); None when there is none."""
    found = grouped(packing.layout, events)
    if found is None:
        return None
    frame = found.rows
    event_bytes, sizes = _events(packing, found.events)
    row_sizes = np.add.reduceat(sizes, np.searchsorted(found.row, np.arange(len(frame))))
    keys = frame["entity"].cast(pl.String)
    key_bytes, key_sizes = _text(keys)
    head = np.zeros(len(frame), ITEM_HEAD)
    parts = frame["part"].to_numpy()
    for name, column in (("n", "n"), ("first", "first_t"), ("last", "last_t"), ("part", "part"), ("tile", "tile")):
        head[name] = frame[column].to_numpy()
    for name in ("begin", "end", "below"):
        known = {p: getattr(r, name) for p, r in ranges.items()}
        head[name] = [known[p] for p in parts.tolist()] if len(known) > 1 else next(iter(known.values()))
    sums = _sums(packing, frame)
    head["key"] = keys.str.len_bytes().to_numpy()
    head["size"] = ITEM_HEAD.itemsize + sums.shape[1] * 8 + key_sizes + row_sizes
    fixed = np.concatenate([head.view(np.uint8).reshape(len(frame), -1), sums.view(np.uint8)], axis=1)
    fixed_sizes = np.full(len(frame), fixed.shape[1], np.int64)
    data = interleaved([(fixed.reshape(-1), fixed_sizes), (key_bytes, key_sizes), (event_bytes, row_sizes)])
    is_last = np.ones(len(frame), bool)
    is_last[:-1] = (frame["entity"] != frame["entity"].shift(-1)).to_numpy()[:-1]
    return Packed(len(frame), len(found.events), data, np.cumsum(head["size"], dtype=np.int64), is_last)


def interleaved(segments: Sequence[tuple[Bytes, Sizes]]) -> Bytes:
    """Row i is its piece of every segment, one after the other; a segment is (bytes back to back, length of each piece).

    Lengths are multiples of four: words are moved, which takes a quarter of the indices that bytes would.
    """
    sizes = np.sum([lengths for _, lengths in segments], axis=0) // 4
    starts = np.cumsum(sizes) - sizes
    data = np.empty(int(sizes.sum()), np.uint32)
    for found, lengths in segments:
        words = lengths // 4
        before = np.cumsum(words) - words
        moved = np.ascontiguousarray(found).view(np.uint32)
        data[np.repeat(starts - before, words) + np.arange(len(moved))] = moved
        starts = starts + words
    return data.view(np.uint8)


def _events(packing: Packing, kept: pl.DataFrame) -> tuple[Bytes, Sizes]:
    """Events back to back, and the bytes of each."""
    fixed = np.zeros(len(kept), packing.event)
    fixed["t"], fixed["m"] = kept["t"].to_numpy(), kept["m"].to_numpy()
    for bit, column in enumerate(packing.layout.kept):
        fixed["z"] |= kept[f"c{column.position}"].is_null().to_numpy().astype(np.uint32) << np.uint32(bit)
    texts = []
    for column in packing.valued:
        series = kept[f"c{column.position}"]
        if column.kind == "text":
            fixed[f"c{column.position}"] = series.str.len_bytes().fill_null(0).to_numpy()
            texts.append(series.fill_null(""))
        else:
            fixed[f"c{column.position}"] = _items(column, series)
    flat, width = fixed.view(np.uint8).reshape(-1), packing.event.itemsize
    if packing.summarised:
        return flat, np.full(len(kept), width, np.int64)
    text_bytes, text_sizes = _text(pl.select(pl.concat_str(texts)).to_series()) if texts else _nothing(len(kept))
    fixed["o"], fixed["size"] = kept["o"].to_numpy(), width + text_sizes
    return interleaved([(flat, np.full(len(kept), width, np.int64)), (text_bytes, text_sizes)]), width + text_sizes


def _nothing(rows: int) -> tuple[Bytes, Sizes]:
    return np.empty(0, np.uint8), np.zeros(rows, np.int64)


def _items(column: Kept, series: pl.Series) -> npt.NDArray[np.generic]:
    """Values as they lie in an event, 0 where null."""
    if column.kind == "wide":
        return _int128(series.cast(pl.Decimal(38, column.scale))).view("V16").reshape(-1)
    kind = pl.Float64 if column.kind in ("number", "date", "boolean") else pl.Int64
    return series.cast(kind).fill_null(0).to_numpy()


def _text(series: pl.Series) -> tuple[Bytes, Sizes]:
    """The bytes of texts without null, back to back, each filled up with zeros to a multiple of four."""
    text = pl.col("text")
    lack = (4 - text.str.len_bytes() % 4) % 4
    filled = text
    for count in (1, 2, 3):
        filled = pl.when(lack == count).then(text + pl.lit("\0" * count)).otherwise(filled)
    found = series.to_frame("text").select(filled.alias("text")).to_series()
    found = found.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_binary())
    if not len(found):
        return _nothing(0)
    edges = np.frombuffer(found.buffers()[1], np.int64)[found.offset : found.offset + len(found) + 1]
    data = found.buffers()[2]
    flat = np.frombuffer(data, np.uint8)[edges[0] : edges[-1]] if data is not None else np.empty(0, np.uint8)
    return flat, np.diff(edges)


def _int128(series: pl.Series) -> npt.NDArray[np.int64]:
    """Decimals or 128-bit integers as pairs (low, high) of 64 bits, little-endian; 0 where null."""
    decimal = series if isinstance(series.dtype, pl.Decimal) else series.cast(pl.Decimal(38, 0))
    found = decimal.fill_null(0).to_arrow()
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    return np.frombuffer(found.buffers()[1], "<i8").reshape(-1, 2)[found.offset : found.offset + len(found)].copy()


def _sums(packing: Packing, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
    """The summaries of each row, as doubles."""
    found = np.zeros((len(frame), packing.sums), np.float64)
    for summary, (at, width) in packing.slots.items():
        series = frame[summary.name]
        if width == 1:
            found[:, at] = series.to_numpy()
        elif summary.what in ("lo", "hi"):
            found[:, at] = series.is_not_null().to_numpy()
            found[:, at + 1 : at + width] = _limbs(summary, series, width - 1)
        else:
            found[:, at : at + width] = _limbs(summary, series, width)
    assert all(summary_width(s) == w for s, (_, w) in packing.slots.items())
    return found


def _limbs(summary: Summary, series: pl.Series, width: int) -> npt.NDArray[np.float64]:
    """A value as limbs; those of a double are the double itself."""
    if width == 1:
        return series.cast(pl.Float64).fill_null(0).to_numpy().reshape(-1, 1)
    if width == 3:
        low = series.cast(pl.Int64).fill_null(0).to_numpy()
        return np.stack([low & _MASK, (low >> 24) & _MASK, low >> 48], axis=1).astype(np.float64)
    pairs = _int128(series)
    low, high = pairs[:, 0].view(np.uint64), pairs[:, 1]
    joined = ((low >> np.uint64(48)).astype(np.int64) & 0xFFFF) | ((high & 0xFF) << 16)
    first = [(low & np.uint64(_MASK)).astype(np.int64), ((low >> np.uint64(24)) & np.uint64(_MASK)).astype(np.int64)]
    return np.stack([*first, joined, (high >> 8) & _MASK, (high >> 32) & _MASK, high >> 56], axis=1).astype(np.float64)

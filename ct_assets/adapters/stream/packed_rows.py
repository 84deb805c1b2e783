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
from ct_assets.adapters.stream.online_rows import Grouped, grouped, summed
from ct_assets.adapters.stream.packed_form import FULL, ITEM_HEAD, LIMB, ROW_FOOT, Packing, summary_width

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
    """What is sent, in order of entity and partition: the bytes, and where each item ends (see ``packed_form``)."""

    rows: int
    events: int
    data: Bytes
    ends: Sizes

    def messages(self, size: int) -> Iterator[bytes]:
        """The bytes in parts of about ``size``, an item never in two."""
        start = 0
        while start < len(self.data):
            place = min(int(np.searchsorted(self.ends, start + size)), len(self.ends) - 1)
            yield self.data[start : self.ends[place]].tobytes()
            start = int(self.ends[place])


def pack(
    packing: Packing, events: pl.DataFrame, ranges: Mapping[int, Range], *, by_replays: bool = False
) -> Packed | None:
    """The rows that ``events`` (as committed) add, for the delta of ``ranges`` (by partition); None when there is none."""
    found = grouped(packing.layout, events)
    if found is None:
        return None
    kept, counts, is_full = found.events, found.counts, found.is_full
    starts = np.cumsum(counts) - counts
    rows = kept.select("entity", "part", "tile")[starts]
    parts = rows["part"].to_numpy()
    event_bytes, sizes = _events(packing, kept)
    event_sizes = np.add.reduceat(sizes, starts)
    sum_bytes, sum_sizes = _full_sums(packing, found)
    foot = np.zeros(len(rows), ROW_FOOT)
    times = kept["t"].to_numpy()
    foot["n"], foot["first"], foot["last"] = counts, times[starts], times[starts + counts - 1]
    foot["part"], foot["tile"] = parts, rows["tile"].to_numpy()
    foot["offset"] = foot["replays"] = -1
    ends = {p: r.end for p, r in ranges.items()}
    foot["replays" if by_replays else "offset"] = _of_partition(ends, parts)
    foot["id"][is_full] = FULL
    foot["size"] = sum_sizes + event_sizes + ROW_FOOT.itemsize
    opens = np.ones(len(rows), bool)  # whether a row is the first of its entity and partition
    opens[1:] = (parts[1:] != parts[:-1]) | (rows["entity"] != rows["entity"].shift(1)).to_numpy()[1:]
    head, key_bytes, key_sizes = _heads(rows.filter(opens), foot, is_full, np.flatnonzero(opens))
    data = interleaved(
        [
            (head.view(np.uint8), np.where(opens, ITEM_HEAD.itemsize, 0)),
            (key_bytes, _at(opens, key_sizes)),
            (sum_bytes, sum_sizes),
            (event_bytes, event_sizes),
            (foot.view(np.uint8), np.full(len(rows), ROW_FOOT.itemsize, np.int64)),
        ]
    )
    return Packed(len(rows), len(kept), data, np.cumsum(head["size"], dtype=np.int64))


def _heads(
    items: pl.DataFrame, foot: npt.NDArray[np.void], is_full: npt.NDArray[np.bool_], starts: Sizes
) -> tuple[npt.NDArray[np.void], Bytes, Sizes]:
    """The heads of items, which begin at rows ``starts``; their entities as bytes."""
    keys = items["entity"].cast(pl.String)
    key_bytes, key_sizes = _text(keys)
    head = np.zeros(len(items), ITEM_HEAD)
    head["key"] = keys.str.len_bytes().to_numpy()
    head["part"] = items["part"].to_numpy()
    head["row"] = foot["size"][starts]
    for name in ("tile", "last", "first", "n"):
        head[name] = foot[name][starts]
    head["full"] = np.maximum.reduceat(is_full.astype(np.uint32), starts)
    head["size"] = ITEM_HEAD.itemsize + key_sizes + np.add.reduceat(foot["size"].astype(np.int64), starts)
    return head, key_bytes, key_sizes


def _of_partition(known: Mapping[int, float], parts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64] | float:
    if len(known) == 1:
        return next(iter(known.values()))
    numbers = np.array(sorted(known))
    return np.array([known[n] for n in numbers.tolist()])[np.searchsorted(numbers, parts)]


def _at(places: npt.NDArray[np.bool_], values: Sizes) -> Sizes:
    """``values`` at the true places, 0 elsewhere."""
    found = np.zeros(len(places), np.int64)
    found[places] = values
    return found


def _full_sums(packing: Packing, found: Grouped) -> tuple[Bytes, Sizes]:
    """The sums of rows that are full from birth (of others Lua makes them when it closes them), and the bytes of each."""
    is_full = found.is_full
    if not packing.summarised or not is_full.any():
        return np.empty(0, np.uint8), np.zeros(len(is_full), np.int64)
    keyed = found.events.with_columns(pl.Series("_row", found.row)).filter(is_full[found.row])
    frame = keyed.group_by("_row", maintain_order=True).agg(summed(s).alias(s.name) for s in packing.layout.summaries)
    return _sums(packing, frame).view(np.uint8).reshape(-1), np.where(is_full, packing.sums * 8, 0)


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

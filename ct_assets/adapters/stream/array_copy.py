"""Array columns for PostgreSQL's binary COPY, built column-wise: no Python code runs per row or per item.

What goes here: the wire form of arrays whose items lie back to back in one flat series. What does not: the other fields
of a row (``postgres.copy``), which rows there are (``online_rows``).

Format: ``array_recv`` in src/backend/utils/adt/arrayfuncs.c: dimensions, has-null flag, element type, length, lower
bound, then each element after its length (-1: null).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

# element type of an array column -> (its oid, form on the wire; None: widths vary)
ELEMENTS: dict[str, tuple[int, str | None]] = {
    "bigint[]": (20, ">i8"),
    "integer[]": (23, ">i4"),
    "double precision[]": (701, ">f8"),
    "text[]": (25, None),
}
_HEAD = 5  # words before the first element
Counts = npt.NDArray[np.int64]


def arrays(flat: pl.Series, counts: Counts, postgres_type: str) -> pl.Series:
    """One array a row as ``array_recv`` reads it: row i has the next ``counts[i]`` (at least 1) items of ``flat``."""
    oid, wire = ELEMENTS[postgres_type]
    items, offsets = _text_items(flat) if wire is None else _fixed_items(flat, wire)
    unit = items.dtype.itemsize  # 1 or 4 bytes
    head = np.empty((len(counts), _HEAD), ">i4")
    head[:, 0], head[:, 1], head[:, 2], head[:, 3], head[:, 4] = 1, int(flat.null_count() > 0), oid, counts, 1
    edges = offsets[np.concatenate([[0], np.cumsum(counts)])]
    width = _HEAD * 4 // unit
    starts = edges[:-1] + width * np.arange(len(counts), dtype=np.int64)
    whole = np.empty(len(items) + width * len(counts), items.dtype)
    is_item = np.ones(len(whole), bool)
    places = (starts[:, None] + np.arange(width)).reshape(-1)
    is_item[places] = False
    whole[places] = head.view(items.dtype).reshape(-1)
    whole[is_item] = items
    ends = np.concatenate([starts, [len(whole)]]) * unit
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(whole)]
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(pa.large_binary(), len(counts), buffers)))


def _fixed_items(flat: pl.Series, wire: str) -> tuple[np.ndarray, Counts]:
    """Elements after their lengths in words of 4 bytes, and the word at which each begins."""
    words = np.dtype(wire).itemsize // 4
    block = np.empty(len(flat), np.dtype([("length", ">i4"), ("value", wire)]))
    block["length"] = words * 4
    block["value"] = flat.fill_null(0).to_numpy()
    raw = block.view(np.int32).reshape(len(flat), 1 + words)
    if not flat.null_count():
        return raw.reshape(-1), np.arange(len(flat) + 1, dtype=np.int64) * (1 + words)
    present = flat.is_not_null().to_numpy()
    block["length"][~present] = -1
    keep = np.ones(raw.shape, bool)
    keep[~present, 1:] = False
    return raw[keep], np.concatenate([[0], np.cumsum(np.where(present, 1 + words, 1), dtype=np.int64)])


def _text_items(flat: pl.Series) -> tuple[np.ndarray, Counts]:
    """Elements after their lengths in bytes, and the byte at which each begins."""
    lengths = flat.str.len_bytes().cast(pl.Int64)
    widths = lengths.fill_null(0).to_numpy() + 4
    offsets = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
    text = flat.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_binary())
    begin = np.frombuffer(text.buffers()[1], np.int64)[text.offset]
    size = int(offsets[-1]) - 4 * len(flat)
    whole = np.empty(int(offsets[-1]), np.uint8)
    is_text = np.ones(len(whole), bool)
    places = (offsets[:-1, None] + np.arange(4)).reshape(-1)
    is_text[places] = False
    whole[places] = lengths.fill_null(-1).to_numpy().astype(">i4").view(np.uint8)
    if size:
        whole[is_text] = np.frombuffer(text.buffers()[2], np.uint8)[begin : begin + size]
    return whole, offsets

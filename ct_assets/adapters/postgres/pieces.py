"""Rows made of pieces, written back to back by one cast of string views.

What goes here: views over blocks, values and texts, and their cast to bytes. What does not: what the bytes mean
(``copy.py``).

A view (Arrow columnar format 1.4, "variable-size binary view layout") is two words: the length in the low half of the
first; then up to 12 bytes in place, or, for longer ones, the first four bytes, the buffer's number and the offset in it.
The four bytes serve comparisons; nothing compares these views, so they stay zero in those made here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
IN_PLACE = 12
PREFIX = 4  # bytes of a field's length
_LOW, _HALF, _BYTE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(255)
_ABSENT = np.uint64(0xFFFFFFFF << 32)  # length -1


class Pieces:
    """The pieces of ``rows`` rows, in order."""

    def __init__(self, rows: int) -> None:
        """No piece yet."""
        self._rows = rows
        self._views: list[tuple[Words, Words]] = []
        self._buffers: list[pa.Buffer] = []

    def add_block(self, records: np.ndarray) -> None:
        """Bytes of one width in every row."""
        width = records.dtype.itemsize
        if width > IN_PLACE:
            offsets = np.arange(self._rows, dtype=np.uint64) * np.uint64(width)
            self._views.append((np.full(self._rows, width, np.uint64), self._place(records, offsets)))
        else:
            self._views.append(_in_place(records, np.uint64(width)))

    def add_values(self, values: np.ndarray, present: Flags | None) -> None:
        """A field of one width where ``present`` (None: everywhere), NULL elsewhere; ``values`` holds those present."""
        width = values.dtype.itemsize
        records = np.zeros(len(values), np.dtype([("width", ">i4"), ("value", values.dtype)]))
        records["width"], records["value"] = width, values
        if PREFIX + width > IN_PLACE:
            offsets = np.arange(len(values), dtype=np.uint64) * np.uint64(PREFIX + width)
            low, high = np.full(len(values), PREFIX + width, np.uint64), self._place(records, offsets)
        else:
            low, high = _in_place(records, np.uint64(PREFIX + width))
        if present is not None:
            whole_low, whole_high = np.full(self._rows, np.uint64(PREFIX) | _ABSENT), np.zeros(self._rows, np.uint64)
            whole_low[present], whole_high[present] = low, high
            low, high = whole_low, whole_high
        self._views.append((low, high))

    def add_texts(self, series: pl.Series) -> None:
        """A field of texts or bytes, each after its length."""
        array = series.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
        valid, views, *buffers = array.buffers()
        words = np.frombuffer(views, np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
        first, second = words[:, 0], words[:, 1]
        length = first & _LOW
        absent = None
        if valid is not None and array.null_count:
            bits = np.unpackbits(np.frombuffer(valid, np.uint8), count=array.offset + len(array), bitorder="little")
            absent = bits[array.offset :] == 0
        if absent is not None:
            length[absent] = 0
        prefix = _swapped(length) << _HALF
        if absent is not None:
            prefix[absent] = _ABSENT
        longest = int(length.max(initial=0))
        if longest <= IN_PLACE - PREFIX:
            self._views.append((length + np.uint64(PREFIX) | prefix, first >> _HALF | second << _HALF))
            return
        self._views.append((np.uint64(PREFIX) | prefix, np.zeros(len(length), np.uint64)))
        if longest > IN_PLACE:  # the buffer's number is in the low half of the second word
            second = np.where(length > IN_PLACE, second + np.uint64(len(self._buffers)), second)
            self._buffers += buffers
        self._views.append((length | first & ~_LOW, second))

    def joined(self) -> memoryview:
        """All pieces of all rows."""
        views = np.empty((self._rows, len(self._views), 2), np.uint64)
        pair = np.empty((self._rows, 2), np.uint64)
        wide = np.complex128  # 16 bytes moved at once, whatever they are: half the time of two words
        for i, (low, high) in enumerate(self._views):
            pair[:, 0], pair[:, 1] = low, high
            views.view(wide)[:, i, 0] = pair.view(wide)[:, 0]
        count = self._rows * len(self._views)
        array = pa.Array.from_buffers(pa.binary_view(), count, [None, pa.py_buffer(views), *self._buffers], 0)
        written = array.cast(pa.large_binary())
        _, offsets, data = written.buffers()
        end = int(np.frombuffer(offsets, np.int64)[count])
        return memoryview(data)[:end]

    def _place(self, records: np.ndarray, offsets: Words) -> Words:
        """Second words of views into ``records``, which become a buffer."""
        self._buffers.append(pa.py_buffer(records))
        return offsets << _HALF | np.uint64(len(self._buffers) - 1)


def _in_place(records: np.ndarray, width: np.uint64) -> tuple[Words, Words]:
    """Views that hold records of at most 12 bytes themselves."""
    padded = np.zeros(
        len(records), np.dtype([("length", "<u4"), ("bytes", records.dtype), ("rest", f"V{12 - int(width)}")])
    )
    padded["length"], padded["bytes"] = width, records
    words = padded.view(np.uint64).reshape(-1, 2)
    return words[:, 0], words[:, 1]


def _swapped(length: Words) -> Words:
    """The low four bytes in the other order: a length as COPY wants it."""
    return length.astype(np.uint32).byteswap().astype(np.uint64)

"""Blocks of bytes become rows of text with their line numbers; what is no row is set aside.

What goes here: carrying the incomplete record over to the next block, header, line numbers, proof of UTF-8.
What does not: types and rules (``rowjudge.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ct_assets.contracts.model import DatasetSchema
from ct_assets.ingest.broken import split_strictly
from ct_assets.ingest.fastcasts import Fields
from ct_assets.ingest.header import Header, header_end, read_header
from ct_assets.ingest.records import Records, scan, set_aside
from ct_assets.ingest.source import Source
from ct_assets.ingest.structure import PAD, Shape
from ct_assets.ingest.text import Block, is_utf8
from ct_assets.ingest.verdict import FileRejected

MAX_RECORD_BYTES = 64 << 20  # a record longer than this is no record; memory stays bounded


@dataclass
class TextRows:
    """Rows of one block: where their fields stand, their physical lines, and the block they point into."""

    positions: dict[str, int]
    line: npt.NDArray[np.int64]
    block: Block
    records: Records
    first_line: int
    begin: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self.line)

    def fields(self, name: str) -> Fields:
        """The fields of a contract column; empty ones where the file has no such column."""
        at = self.positions.get(name)
        if at is None:
            nothing = np.zeros_like(self.records.starts[0])
            return Fields(self.block.text, nothing, nothing)
        return Fields(self.block.text, self.records.starts[at], self.records.ends[at])


class FrontDoor:
    """Reads a source once, block by block."""

    def __init__(self, source: Source, schema: DatasetSchema, chunk_bytes: int) -> None:
        """Nothing is read yet."""
        self._source = source
        self._schema = schema
        self._chunk_bytes = chunk_bytes
        self._header: Header | None = None
        self._line = 1  # physical line of the first byte not yet consumed
        self._offset = 0  # its offset in the decoded file
        self.warnings: list[str] = []

    def rows(self) -> Iterator[TextRows]:
        """The blocks' rows. Raises FileRejected."""
        carry = b""
        for block, final in _marking_last(self._source.blocks(self._chunk_bytes)):
            text = carry + block + bytes(PAD)
            size, begin = len(text) - PAD, 0
            if self._header is None:
                begin = self._read_header(text, size, final)
            if self._header is None:
                carry = self._keep(text, 0, size)
                continue
            found = self._read(text, begin, size, final)
            carry = self._keep(text, found.records.consumed, size)
            yield found
        if self._header is None:
            raise FileRejected("empty_file", 0, "the file is empty: expected a header and rows")

    def _keep(self, text: bytes, consumed: int, size: int) -> bytes:
        if size - consumed > MAX_RECORD_BYTES:
            message = (
                f"the record that begins here is longer than {MAX_RECORD_BYTES:,} bytes: an unclosed quote, or no CSV"
            )
            raise FileRejected("record_too_long", self._line, message)
        return text[consumed:size]

    # -- header
    def _read_header(self, text: bytes, size: int, final: bool) -> int:
        """Match the header when it is complete; returns where rows begin."""
        at = 0
        while text.startswith((b"\n", b"\r\n"), at) and at < size:
            at = text.index(b"\n", at) + 1
        if at >= size:
            return 0
        end = header_end(text, at, size, self._schema)
        if (end is None or end == size) and not final:
            return 0
        line = 1 + text.count(b"\n", 0, at)
        if end is None:
            raise FileRejected("unterminated_quote", line, "a quote in the header is never closed")
        self._prove_utf8(text, 0, end)
        self._header = read_header(text[at:end], line, self._schema)
        self.warnings += self._header.warnings
        begin = min(end + 1, size)
        self._line += text.count(b"\n", 0, begin)
        self._offset += begin
        return begin

    # -- rows
    def _read(self, text: bytes, begin: int, size: int, final: bool) -> TextRows:
        header, dialect = self._named(), self._schema.dialect
        shape = Shape(
            len(header.names),
            ord(dialect.delimiter),
            ord(dialect.quote),
            dialect.max_field_bytes,
            dialect.max_row_bytes,
        )
        records = scan(text, shape, final, begin)
        if records.unterminated is not None:
            line = self._line + text.count(b"\n", begin, records.unterminated)
            raise FileRejected(
                "unterminated_quote", line, f"the record that begins on line {line} opens a quote that is never closed"
            )
        self._prove_utf8(text, begin, records.consumed)
        if final and size > begin and text[size - 1] != 10:
            self._check_tail(records, size, self._line + text.count(b"\n", begin, size))
        block = Block(text, records, dialect.quote.encode())
        rows = TextRows(header.positions, records.line + self._line, block, records, self._line, begin)
        self._refuse_headers(rows)
        self._line += records.lines
        self._offset += records.consumed - begin
        return rows

    def _named(self) -> Header:
        if self._header is None:
            raise RuntimeError("rows before the header")
        return self._header

    def _prove_utf8(self, text: bytes, begin: int, end: int) -> None:
        if is_utf8(text, begin, end):
            return
        stretch = text[begin:end]
        try:
            stretch.decode("utf-8")
        except UnicodeDecodeError as error:
            at = self._offset + error.start
            line = self._line + stretch.count(b"\n", 0, error.start)
            byte = stretch[error.start]
            message = (
                f"byte {at} (0x{byte:02x}) is not UTF-8; declare dialect.encoding (latin-1? cp1252?) or deliver UTF-8"
            )
            raise FileRejected("encoding", line, message) from None

    def _check_tail(self, records: Records, size: int, line: int) -> None:
        """A last line without line feed: torn where its record is not whole, or where the contract wants the line feed."""
        torn = any(
            len(b.finish) and int(b.finish.max()) >= size and b.reason in ("field_count", "broken_quoting")
            for b in records.broken
        )
        if torn or self._schema.dialect.final_newline:
            raise FileRejected(
                "torn_tail",
                line,
                "the last line has no line end and is not whole: still being written, or cut off; deliver it again",
            )
        self.warnings.append("no line end after the last record: it cannot be told whether the file is whole")

    def _refuse_headers(self, rows: TextRows) -> None:
        """A later record equal to the header: two files in one, or an export that began again."""
        name, at = next(iter(self._named().positions.items()))
        fields, wanted = rows.fields(name), self._named().names[at].encode()
        suspects = np.flatnonzero(fields.ends - fields.starts == len(wanted))
        same = [
            i
            for i in suspects
            if fields.text.startswith(wanted, fields.starts[i])
            and self._fields(rows, int(i)) == list(self._named().names)
        ]
        if not same:
            return
        if self._schema.on_repeated_header == "quarantine":
            repeated = np.zeros(rows.height, bool)
            repeated[same] = True
            rows.line = rows.line[~repeated]
            set_aside(rows.records, repeated, "repeated_header")
            return
        line = int(rows.line[same[0]])
        raise FileRejected(
            "repeated_header",
            line,
            f"line {line} repeats the header: two files in one? (onRepeatedHeader: quarantine keeps the rest)",
        )

    def _fields(self, rows: TextRows, i: int) -> list[str] | None:
        dialect = self._schema.dialect
        raw = rows.block.text[rows.records.begin[i] : rows.records.finish[i]].removesuffix(b"\r")
        return split_strictly(raw.decode("utf-8"), dialect.delimiter, dialect.quote)


def _marking_last(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each block with whether it is the last one."""
    held = next(blocks, None)
    while held is not None:
        following = next(blocks, None)
        yield held, following is None
        held = following

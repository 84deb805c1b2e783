"""A stream of bytes, as UTF-8 blocks: digest, decompression with caps, declared encodings, byte order mark.

What goes here: everything before the first record is looked for. What does not: records.

The digest is that of the bytes as delivered. Nothing is sniffed: a compressed file is opened only where the contract
declares it, otherwise its bytes are judged as text, and refused.
"""

from __future__ import annotations

import codecs
import hashlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ct_assets.contracts.model import Dialect
from ct_assets.ingest.verdict import FileRejected

BOM_UTF8 = b"\xef\xbb\xbf"
_OTHER_MARKS = ((b"\xff\xfe", "UTF-16 (little endian)"), (b"\xfe\xff", "UTF-16 (big endian)"), (b"\x1f\x8b", "gzip"))
_OTHER_MARKS += ((b"PK\x03\x04", "zip"), (b"\x28\xb5\x2f\xfd", "zstd"))
READ_BYTES = 1 << 20


class Source:
    """Reads a stream once; ``sha256`` is complete when it is drained."""

    def __init__(self, stream: BinaryIO, dialect: Dialect) -> None:
        """Nothing is read yet."""
        self._stream = stream
        self._dialect = dialect
        self._digest = hashlib.sha256()
        self.delivered = 0

    @property
    def sha256(self) -> str:
        """Digest of the bytes read so far, hexadecimal."""
        return self._digest.hexdigest()

    def drain(self) -> None:
        """Read what is left, for the digest only."""
        for _ in self._delivered(READ_BYTES):
            pass

    def blocks(self, size: int) -> Iterator[bytes]:
        """Blocks of UTF-8 without byte order mark; about ``size`` bytes each. Raises FileRejected."""
        blocks = self._text(self._unpacked(size))
        first = next(blocks, b"")
        while len(first) < 4 and (more := next(blocks, b"")):
            first += more
        if self._utf8:
            _refuse_other_marks(first)
        yield first.removeprefix(BOM_UTF8)
        yield from blocks

    @property
    def _utf8(self) -> bool:
        return codecs.lookup(self._dialect.encoding).name in ("utf-8", "utf-8-sig", "ascii")

    def _delivered(self, size: int) -> Iterator[bytes]:
        while block := self._stream.read(size):
            self._digest.update(block)
            self.delivered += len(block)
            yield block

    def _unpacked(self, size: int) -> Iterator[bytes]:
        if self._dialect.compression == "gzip":
            return self._capped(_gunzip(self._delivered(READ_BYTES), size))
        if self._dialect.compression == "zip":
            from ct_assets.ingest.archives import unzip

            return self._capped(unzip(self._stream, self._delivered(READ_BYTES), size))
        return self._delivered(size)

    def _capped(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Refuse a bomb before it is unpacked: bytes and ratio are checked block by block."""
        total = 0
        for block in blocks:
            total += len(block)
            if total > self._dialect.max_unpacked_bytes:
                raise FileRejected(
                    "archive_too_large",
                    0,
                    f"unpacks to more than {self._dialect.max_unpacked_bytes:,} bytes (dialect.maxUnpackedBytes)",
                )
            if total > READ_BYTES and total > self._dialect.max_ratio * max(self.delivered, 1):
                raise FileRejected(
                    "archive_ratio",
                    0,
                    f"unpacks to more than {self._dialect.max_ratio} times its size (dialect.maxRatio): a bomb?",
                )
            yield block

    def _text(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        if self._utf8:
            yield from blocks
            return
        decoder = codecs.getincrementaldecoder(self._dialect.encoding)(errors="strict")
        offset = 0
        for block in _with_end(blocks):
            try:
                text = decoder.decode(block or b"", final=block is None)
            except UnicodeDecodeError as error:
                raise FileRejected(
                    "encoding",
                    0,
                    f"not {self._dialect.encoding} near byte {offset + error.start} (declared by the contract)",
                ) from None
            offset += len(block or b"")
            yield text.removeprefix("\ufeff").encode() if offset <= len(block or b"") else text.encode()


def _with_end(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    yield from blocks
    yield None


def _refuse_other_marks(first: bytes) -> None:
    for mark, name in _OTHER_MARKS:
        if first.startswith(mark):
            text = f"byte 0 begins a {name} mark; the contract declares plain UTF-8 (see dialect.encoding, dialect.compression)"
            raise FileRejected("encoding", 1, text)


def _gunzip(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    engine = zlib.decompressobj(wbits=31)
    started = False
    for block in blocks:
        data = block
        while data:
            started = True
            yield _inflate(engine, data, size)
            data = engine.unconsumed_tail
            if engine.eof:
                data = engine.unused_data
                if data:
                    engine = zlib.decompressobj(wbits=31)
    while started and not engine.eof and (rest := _inflate(engine, engine.unconsumed_tail, size)):
        yield rest
    if started and not engine.eof:
        raise FileRejected(
            "archive_torn", 0, "the gzip stream ends before its end mark: still being written, or cut off"
        )


def _inflate(engine: zlib._Decompress, data: bytes, size: int) -> bytes:
    try:
        return engine.decompress(data, size)
    except zlib.error as error:
        raise FileRejected("archive_broken", 0, f"not a gzip stream ({error}); the contract declares gzip") from None

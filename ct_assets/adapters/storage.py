"""One storage port with two implementations: a local folder, and an S3-compatible store through pyarrow.

What goes here: bytes under keys, written all or not at all. What does not: what the bytes mean (landing, models).

Keys are relative POSIX paths (``raw/ab/abcd...``): letters, digits and ``._=-`` between slashes, no part of dots only.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from ct_assets.errors import CtError
from ct_assets.settings import Settings, redact

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

BLOCK = 1 << 20
_KEY = re.compile(r"[A-Za-z0-9._=+-]+(/[A-Za-z0-9._=+-]+)*")


class StorageError(CtError):
    """A key is not a key, there is nothing under it, or the store refused."""


class Storage(Protocol):
    """Bytes under keys. ``put`` is atomic: a reader sees the old bytes or all of the new ones, also after a crash."""

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        """Write ``data`` under ``key``, replacing what was there."""
        ...

    def get(self, key: str) -> bytes:
        """All bytes under ``key``; :class:`StorageError` when there are none."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A stream over the bytes under ``key``; :class:`StorageError` when there are none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether something lies under ``key``."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys below the folder ``prefix``, sorted; a write under way is not listed."""
        ...

    def delete(self, key: str) -> None:
        """Remove ``key``; nothing happens when it is absent."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The file behind ``key`` where there is one, for programs that need a path; None otherwise."""
        ...


def open_storage(settings: Settings | str) -> Storage:
    """The storage that ``settings`` (or a bare URL) name."""
    url = settings if isinstance(settings, str) else settings.storage_url
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)))
    if parts.scheme == "s3" and isinstance(settings, Settings):
        return S3Storage(_s3(settings), parts.netloc, parts.path.strip("/"))
    raise StorageError(f"cannot open storage {redact(url)!r}", hint="file:///folder, or s3://bucket/prefix by settings")


def checked(key: str) -> str:
    """``key`` when it is one; anything that could leave the store's root is refused."""
    if not _KEY.fullmatch(key) or any(set(part) <= {"."} for part in key.split("/")) or len(key) > 900:
        raise StorageError(f"{key!r} is not a storage key", hint="letters, digits and ._=+- between single slashes")
    return key


class LocalStorage:
    """A folder. Written as temporary file, fsync, rename, fsync of the folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, which is made with the first write."""
        self.root = root

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        """See :class:`Storage`. A full disk leaves the old bytes and no temporary file."""
        target = self.root / checked(key)
        self._make(target.parent)
        try:
            handle, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)
        except OSError as error:
            raise _failed("write", key, error) from error
        try:
            with os.fdopen(handle, "wb") as out:
                shutil.copyfileobj(io.BytesIO(data) if isinstance(data, bytes) else data, out, BLOCK)
                out.flush()
                os.fsync(out.fileno())
            os.replace(name, target)
        except OSError as error:
            raise _failed("write", key, error) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        _sync_folder(target.parent)

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        try:
            return (self.root / checked(key)).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise StorageError(f"nothing is stored under {key!r} in {self.root}") from None

    def exists(self, key: str) -> bool:
        return (self.root / checked(key)).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        start = self.root / checked(prefix) if prefix else self.root
        for folder, folders, names in os.walk(start):
            folders.sort()
            here = PurePosixPath(Path(folder).relative_to(self.root).as_posix())
            for name in sorted(names):
                if not name.startswith(".part-"):
                    yield str(here / name)

    def delete(self, key: str) -> None:
        (self.root / checked(key)).unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        path = self.root / checked(key)
        return path if path.is_file() else None

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _failed("make", str(folder), error) from error


class S3Storage:
    """A bucket. An upload becomes visible when it is complete; one that broke off leaves no object."""

    def __init__(self, filesystem: S3FileSystem, bucket: str, prefix: str = "") -> None:
        """Use ``prefix`` inside ``bucket``, which must exist."""
        self._fs = filesystem
        self._base = f"{bucket}/{prefix}".rstrip("/")

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        target = self._path(key)
        try:
            with _complete_or_nothing(self._fs, target) as out:
                shutil.copyfileobj(stream, out, BLOCK)
        except OSError as error:
            raise _failed("write", key, error) from error

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        if not self.exists(key):
            raise StorageError(f"nothing is stored under {key!r} in {self._base}")
        return io.BufferedReader(_Raw(self._fs.open_input_stream(self._path(key))), BLOCK)

    def exists(self, key: str) -> bool:
        from pyarrow.fs import FileType

        return self._info(self._path(key)).type == FileType.File

    def list(self, prefix: str = "") -> Iterator[str]:
        from pyarrow.fs import FileSelector, FileType

        start = self._path(prefix) if prefix else self._base
        found = self._fs.get_file_info(FileSelector(start, allow_not_found=True, recursive=True))
        cut = len(self._base) + 1
        yield from sorted(entry.path[cut:] for entry in found if entry.type == FileType.File)

    def delete(self, key: str) -> None:
        if self.exists(key):
            self._fs.delete_file(self._path(key))

    def local_path(self, key: str) -> Path | None:
        checked(key)

    def _path(self, key: str) -> str:
        return f"{self._base}/{checked(key)}"

    def _info(self, path: str):
        try:
            return self._fs.get_file_info(path)
        except OSError as error:
            raise _failed("reach", path, error) from error


@contextlib.contextmanager
def _complete_or_nothing(filesystem: S3FileSystem, target: str) -> Iterator[BinaryIO]:
    """An upload that is finished only when the block ends well.

    pyarrow completes an upload on ``close`` and on collection, also when the block failed half-way; its ``abort`` is
    not in the Python API. So the bytes go through a local spool first, and S3 sees whole objects only.
    """
    with tempfile.SpooledTemporaryFile(max_size=64 * BLOCK) as spool:
        yield spool  # pyright: ignore[reportReturnType]
        spool.seek(0)
        with filesystem.open_output_stream(target) as out:
            shutil.copyfileobj(spool, out, BLOCK)


class _Raw(io.RawIOBase):
    """pyarrow's input stream as a raw stream of :mod:`io`."""

    def __init__(self, stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _s3(settings: Settings) -> S3FileSystem:
    from pyarrow.fs import S3FileSystem

    options: dict[str, object] = {"region": settings.s3_region, "connect_timeout": 10, "request_timeout": 60}
    if settings.s3_endpoint:
        scheme, _, rest = settings.s3_endpoint.rpartition("://")
        options |= {"endpoint_override": rest, "scheme": scheme or "https"}
    if settings.s3_access_key and settings.s3_secret_key:
        options |= {"access_key": settings.s3_access_key.reveal(), "secret_key": settings.s3_secret_key.reveal()}
    return S3FileSystem(**options)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failed(verb: str, key: str, error: OSError) -> StorageError:
    full = error.errno == 28  # ENOSPC
    hint = "the disk is full: free space and run again; nothing half-written was left" if full else None
    return StorageError(f"cannot {verb} {key!r}: {error.strerror or error}", hint=hint)

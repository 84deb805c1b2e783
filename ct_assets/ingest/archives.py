"""A zip delivery: exactly one member, read without ever using its name as a path.

What goes here: the checks before a zip is opened. What does not: caps on size (``source.py`` counts for all archives).
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from ct_assets.ingest.verdict import FileRejected

MAX_ZIP_BYTES = 1 << 30  # a zip's directory is at its end: a stream that cannot seek is held in memory up to here


def unzip(stream: BinaryIO, delivered: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Blocks of the one member. Raises FileRejected for paths, links, encryption and several members."""
    held = io.BytesIO()
    for block in delivered:
        if held.tell() + len(block) > MAX_ZIP_BYTES:
            raise FileRejected(
                "archive_too_large", 0, f"a zip of more than {MAX_ZIP_BYTES:,} bytes; deliver gzip instead"
            )
        held.write(block)
    try:
        with zipfile.ZipFile(held) as archive, archive.open(_only_member(archive)) as member:
            while block := member.read(size):
                yield block
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise FileRejected("archive_broken", 0, f"not a readable zip ({error}); the contract declares zip") from None


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [m for m in archive.infolist() if not m.is_dir()]
    if len(members) != 1:
        raise FileRejected("archive_members", 0, f"a zip must hold one file, this one holds {len(members)}")
    member = members[0]
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.filename:
        raise FileRejected(
            "archive_path", 0, f"the zip's member is named {member.filename!r}: a path out of the archive"
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise FileRejected("archive_link", 0, f"the zip's member {member.filename!r} is a link")
    return member

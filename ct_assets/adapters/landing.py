"""The landing area: files become deliveries, copied whole, in order, known by their digest.

What goes here: taking a file in, whether what is kept of it is sound, letting a delivery be judged again. What does
not: when a file in an inbox is complete (``inbox``), what it contains (``ingest``), storage itself.

Bytes go to storage under their sha256 first, then one ledger row says that they arrived: a crash in between leaves
bytes nobody refers to, and delivering again is safe. Order is the order of ledger rows.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ct_assets.adapters import ledger
from ct_assets.adapters.ledger import Delivery
from ct_assets.adapters.postgres.connect import connect, url_for, with_retry
from ct_assets.adapters.postgres.migrate import prepared_url
from ct_assets.adapters.storage import BLOCK, Storage, open_storage
from ct_assets.errors import CtError, UsageError
from ct_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_ISO_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?![0-9])")


class NotDelivered(CtError):
    """A file that cannot be taken in; nothing of it was kept."""


@dataclass(frozen=True)
class Delivered:
    """One file that was taken in. ``new`` is False for bytes that this day had already (the name is an alias).

    ``repaired``: the bytes were known, but what was stored of them was damaged or gone; it is right again.
    ``in_front``: what readers see of the day instead of these bytes, which were published once.
    """

    delivery_id: int
    name: str
    sha256: str
    bytes: int
    day: dt.date | None
    new: bool
    state: str
    repaired: bool = False
    in_front: InFront | None = None


@dataclass(frozen=True)
class InFront:
    """The revision of a day that readers see, the file it came from, and the revision of an older delivery behind it."""

    revision: int
    file: str
    behind: int


def deliver(settings: Settings, pipeline: str, paths: Iterable[Path]) -> list[Delivered]:
    """Copy files into storage and write them down in the given order; a path may come twice.

    Raises :class:`NotDelivered` for the first path that is no regular file or changes while it is read: those before
    it are delivered, it and those after it are not.
    """
    with Landing(settings, pipeline) as landing:
        return [landing.take_in(Path(path)) for path in paths]


class Landing:
    """The landing area of one pipeline, with one connection that is opened again when it broke."""

    def __init__(self, settings: Settings, pipeline: str) -> None:
        """Opens nothing yet."""
        self.settings, self.pipeline, self.storage = settings, pipeline, open_storage(settings)
        self._conn: psycopg.Connection | None = None

    def __enter__(self) -> Landing:
        """Connect, so that a database that cannot be reached is said before the first file."""
        self._connection()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()

    def take_in(self, path: Path) -> Delivered:
        """Take in one file: see :func:`deliver`. Repeated when the connection broke: a file counts once by its digest."""
        return with_retry(lambda: take_in(self._connection(), self.storage, self.pipeline, path))

    def _connection(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            prepared_url(self.settings)
            # asked again each time: an embedded server that was killed is started by asking for its URL
            self._conn = connect(url_for(self.settings), autocommit=True)
        return self._conn


def take_in(conn: psycopg.Connection, storage: Storage, pipeline: str, path: Path) -> Delivered:
    """Take in one file: see :func:`deliver`."""
    name = delivery_name(path)
    with _regular(path) as stream:
        before = os.fstat(stream.fileno())
        sha256 = _digest(stream)
        again, sound = sha256, stored_digest(storage, sha256) == sha256
        if not sound:
            stream.seek(0)
            storage.put(ledger.raw_key(sha256), stream)
            stream.seek(0)
            again = _digest(stream)
        after = os.fstat(stream.fileno())
    if again != sha256 or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise NotDelivered(f"{path} changed while it was being copied", hint="deliver it when it is completely written")
    taken = _write_down(conn, pipeline, name, sha256, after.st_size)
    if taken.new:
        return taken
    return replace(taken, repaired=not sound, in_front=in_front(conn, taken.delivery_id))


def stored_digest(storage: Storage, sha256: str) -> str | None:
    """The digest of what lies in storage as the bytes of digest ``sha256``; None when nothing does."""
    if not storage.exists(ledger.raw_key(sha256)):
        return None
    with storage.open(ledger.raw_key(sha256)) as stream:
        return _digest(stream)


def damaged(
    conn: psycopg.Connection, storage: Storage, *, objects: int, total_bytes: int
) -> tuple[int, list[tuple[str, str]]]:
    """Read some stored deliveries again, chosen by chance and within the bounds.

    Returns how many objects were read, and (pipeline, file name) of those whose bytes are not the delivered ones.
    """
    chosen = conn.execute(
        "select pipeline, name, sha256, bytes from (select distinct on (sha256) * from ledger.delivery) d"
        " order by random() limit %s",
        (objects,),
    ).fetchall()
    read, left, wrong = 0, total_bytes, []
    for pipeline, name, sha256, size in chosen:
        if size > left:
            continue
        read, left = read + 1, left - size
        if stored_digest(storage, sha256) != sha256:
            wrong.append((pipeline, name))
    return read, sorted(wrong)


def business_day(name: str) -> dt.date | None:
    """The ISO date that begins a file's name, if it is one (``2011-01-04*.csv``)."""
    match = _ISO_DAY.match(name)
    try:
        return dt.date.fromisoformat(match.group(1)) if match else None
    except ValueError:
        return None


def pending(conn: psycopg.Connection, pipeline: str) -> list[Delivery]:
    """Deliveries that the ledger has not decided yet, in order: what a run has to do, also after a crash (F40)."""
    return ledger.deliveries(conn, pipeline, "pending")


def tries(conn: psycopg.Connection, pipeline: str) -> dict[int, int]:
    """Of each pending delivery that was tried before: how often it was decided (and taken again) or a run of it failed."""
    rows = conn.execute(
        """select d.delivery_id, d.fence + coalesce(sum(p.attempts), 0)::bigint from ledger.delivery d
           left join ledger.run_plan p on p.plan_id = d.pipeline || '/publish' and p.partition like '%% #' || d.delivery_id
           where d.pipeline = %s and d.state = 'pending' group by d.delivery_id, d.fence""",
        (pipeline,),
    ).fetchall()
    return {delivery_id: count for delivery_id, count in rows if count}


def rejected(conn: psycopg.Connection, pipeline: str) -> list[Delivery]:
    """Rejected deliveries that nothing newer has replaced, in order: what a mended contract may accept."""
    replaced = {
        (d.day, None if d.day else d.name): d.delivery_id
        for d in ledger.deliveries(conn, pipeline)
        if d.state != "rejected"
    }
    found = ledger.deliveries(conn, pipeline, "rejected")
    newest = {(d.day, None if d.day else d.name): d for d in found}
    return sorted(
        (d for place, d in newest.items() if replaced.get(place, -1) < d.delivery_id), key=lambda d: d.delivery_id
    )


def take_again(conn: psycopg.Connection, chosen: Iterable[Delivery]) -> int:
    """Let rejected deliveries be judged again, from the bytes that are kept; returns how many wait now."""
    ids = [d.delivery_id for d in chosen]
    return conn.execute(
        "update ledger.delivery set state = 'pending' where delivery_id = any(%s) and state = 'rejected'", (ids,)
    ).rowcount


def in_front(conn: psycopg.Connection, delivery_id: int) -> InFront | None:
    """What readers see instead of a delivery that was published; None when they see it, it waits, or it never was."""
    own = ledger.publication_of(conn, delivery_id)
    current = ledger.current(conn, own.dataset, own.day, own.part) if own else None
    if own is None or current is None or current.delivery_id == delivery_id:
        return None
    if own.state == "held" and own.revision > current.revision:  # it waits for approval
        return None
    other = ledger.delivery(conn, current.delivery_id)
    return InFront(current.revision, other.name if other else "", own.revision)


def restorable(conn: psycopg.Connection, pipeline: str, delivery_id: int) -> tuple[Delivery, InFront]:
    """A delivery that something else replaced, and what did; raises :class:`UsageError` for any other."""
    found = ledger.delivery(conn, delivery_id)
    if found is None or found.pipeline != pipeline:
        raise UsageError(
            f"no delivery {delivery_id} of pipeline {pipeline}",
            hint="`ct deliver` prints the number first, also of known bytes",
        )
    instead = in_front(conn, delivery_id)
    waiting = [d for d in pending(conn, pipeline) if (d.day, d.day or d.name) == (found.day, found.day or found.name)]
    if waiting:
        raise UsageError(
            f"delivery {waiting[0].delivery_id} ({waiting[0].name}) of the same day is not decided yet",
            hint=f"ct run --pipeline {pipeline}, then look again",
        )
    if instead is None:
        does = "is what readers see" if found.state == "published" else f"is {found.state} and was never published"
        raise UsageError(f"delivery {delivery_id} ({found.name}) {does}: nothing to put back")
    return found, instead


def restore(conn: psycopg.Connection, pipeline: str, delivery_id: int) -> None:
    """Let the next run publish an older delivery of a day as its new revision; checks as :func:`restorable` does."""
    with conn.transaction():
        ledger.delivery(conn, delivery_id, lock=True)
        restorable(conn, pipeline, delivery_id)
        conn.execute("update ledger.delivery set state = 'pending' where delivery_id = %s", (delivery_id,))


def delivery_name(path: Path) -> str:
    """The base name under which a file is known; refused when it cannot be shown or stored."""
    name = unicodedata.normalize("NFC", path.name)
    if (
        name.startswith(".")
        or not name
        or any(unicodedata.category(c) in ("Cc", "Cs") for c in name)
        or len(name) > 200
    ):
        raise NotDelivered(
            f"{name!a} is not a name for a delivery",
            hint="at most 200 visible characters of valid UTF-8, not beginning with a dot: rename the file",
        )
    return name


@contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """The file, opened without following a symlink (F25)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise NotDelivered(
                f"{path} is a symbolic link", hint=f"deliver the file itself: {path.resolve()}"
            ) from None
        raise NotDelivered(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotDelivered(f"{path} is not a regular file", hint="deliver files; a folder is given as folder/*.csv")
    with os.fdopen(handle, "rb") as stream:
        yield stream


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := stream.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _write_down(conn: psycopg.Connection, pipeline: str, name: str, sha256: str, size: int) -> Delivered:
    """A new delivery, or an alias of one that is known; a rejected one is looked at again (the contract may differ)."""
    day = business_day(name)
    with conn.transaction():
        row = conn.execute(
            "insert into ledger.delivery (pipeline, name, sha256, bytes, day) values (%s, %s, %s, %s, %s)"
            " on conflict do nothing returning delivery_id, state",
            (pipeline, name, sha256, size, day),
        ).fetchone()
        if row is not None:
            return Delivered(row[0], name, sha256, size, day, True, row[1])
        row = conn.execute(
            "update ledger.delivery set state = case state when 'rejected' then 'pending' else state end"
            " where pipeline = %s and sha256 = %s and day is not distinct from %s returning delivery_id, state",
            (pipeline, sha256, day),
        ).fetchone()
        assert row is not None
        conn.execute("insert into ledger.delivery_alias (delivery_id, name) values (%s, %s)", (row[0], name))
    return Delivered(row[0], name, sha256, size, day, False, row[1])

"""The rows of one delivery on their way into the open transaction: judged, encoded, copied.

What goes here: the overlap of cleaning and COPY, and what is done with quarantined rows meanwhile. What does not: the
encoding itself (``postgres.copy``), rules (``ingest``), the transaction (``publish``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from ct_assets.adapters import tables
from ct_assets.adapters.attempt import Attempt, AuditFailed, Rejected
from ct_assets.adapters.overlap import ahead
from ct_assets.adapters.postgres.copy import SIGNATURE, TRAILER, CopyColumn, copy_order, encode
from ct_assets.adapters.storage import Storage

if TYPE_CHECKING:
    from ct_assets.ingest.judge import JudgedChunk, Judgement
    from ct_assets.ingest.verdict import FileVerdict

# Four chunks are in memory at a time: judged, encoded, waiting, sent. 1 MiB takes 7 % more CPU time.
CHUNK_BYTES = 2 << 20
SPOOL_BYTES = 8 << 20  # quarantined rows beyond this wait on disk, not in memory
QUARANTINE_COLUMNS = (  # of ledger.quarantined, under the names of a judged chunk
    CopyColumn("_revision_id", "bigint", True),
    CopyColumn("_line", "bigint", True),
    CopyColumn("_raw", "text", True),
    CopyColumn("_reasons", "text[]", True),
)


def copy_rows(attempt: Attempt, storage: Storage) -> FileVerdict:
    """Judge the stored bytes and stage good and quarantined rows under the attempt's revision id.

    Cleaning and encoding run on one thread while this one feeds the COPY; at most four chunks are in memory. A connection
    carries one COPY at a time, so quarantined rows are spooled until the good ones are through. Raises
    :class:`Rejected` for a rejected file and :class:`AuditFailed` when counts or bytes do not agree.
    """
    from psycopg import sql

    from ct_assets.ingest.judge import Judgement

    columns = copy_order([*tables.SYSTEM, *tables.contract_columns(attempt.dataset)])
    statement = sql.SQL("copy store.{} ({}) from stdin (format binary)").format(
        sql.Identifier(attempt.dataset.name), sql.SQL(", ").join(sql.Identifier(c.name) for c in columns)
    )
    with (
        storage.open(attempt.delivery.key) as stream,
        tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool,
        attempt.conn.cursor() as cursor,
    ):
        judgement = Judgement(stream, attempt.dataset.schema, name=attempt.delivery.name, chunk_bytes=CHUNK_BYTES)
        with _prepared(judgement, attempt, columns) as chunks, cursor.copy(statement) as out:
            out.write(SIGNATURE)
            point = "first_rows"
            for good, bad in chunks:
                out.write(good)
                spool.write(bad)
                attempt.crash(point)
                point = "more_rows"
            _same_bytes(attempt, judgement.verdict)  # damaged bytes are no reason to reject a delivery
            if judgement.verdict.decision == "rejected":
                raise Rejected(judgement.verdict)
            out.write(TRAILER)
        attempt.crash("copied")
        _audit(attempt, judgement.verdict, cursor.rowcount)
        _copy_quarantined(attempt, spool)
        attempt.crash("quarantined")
    return judgement.verdict


def _audit(attempt: Attempt, verdict: FileVerdict, written: int) -> None:
    if written != verdict.good:
        raise AuditFailed(f"{attempt.delivery.name}: {written} rows were written, {verdict.good} were judged good")


def _same_bytes(attempt: Attempt, verdict: FileVerdict) -> None:
    if verdict.sha256 != attempt.delivery.sha256:
        raise AuditFailed(
            f"{attempt.delivery.name}: the stored bytes have sha256 {verdict.sha256}, delivered {attempt.delivery.sha256}",
            hint="the storage was changed behind the ledger; deliver the file again, which repairs it",
        )


@contextmanager
def _prepared(
    judgement: Judgement, attempt: Attempt, columns: list[CopyColumn]
) -> Iterator[Iterator[tuple[memoryview, memoryview]]]:
    """Chunks ready to be sent, made on another thread while this one waits for the server.

    One, not two: judging on one and encoding on another took 3 to 8 % more CPU time, as both want the interpreter's lock.
    """
    with ahead(_encoded(judgement, attempt, columns), depth=1) as encoded:
        yield encoded


def _encoded(
    judged: Iterable[JudgedChunk], attempt: Attempt, columns: list[CopyColumn]
) -> Iterator[tuple[memoryview, memoryview]]:
    """Good and quarantined rows of each chunk as COPY bytes."""
    import polars as pl

    renamed = {c.name: c.physical_name for c in attempt.dataset.schema.columns if c.physical_name not in ("", c.name)}
    revision = pl.lit(attempt.revision_id, pl.Int64).alias("_revision_id")
    for chunk in judged:
        good = encode(chunk.good.rename(renamed).with_columns(revision), columns)
        bad = encode(chunk.quarantined.with_columns(revision), QUARANTINE_COLUMNS)
        yield good, bad


def _copy_quarantined(attempt: Attempt, spool: IO[bytes]) -> None:
    if spool.tell() == 0:
        return
    spool.seek(0)
    statement = "copy ledger.quarantined (revision_id, line, raw, reasons) from stdin (format binary)"
    with attempt.conn.cursor() as cursor, cursor.copy(statement) as out:
        out.write(SIGNATURE)
        while block := spool.read(1 << 20):
            out.write(block)
        out.write(TRAILER)

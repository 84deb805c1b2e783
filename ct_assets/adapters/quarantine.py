"""Quarantined rows: counted, shown, exported so that a spreadsheet cannot run them.

What goes here: reading ``ledger.quarantined``. What does not: replay (``publish.replay``), printing (``cli``).
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

COLUMNS = ("day", "file", "sha256", "line", "reasons", "raw")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # OWASP, "CSV Injection"


@dataclass(frozen=True)
class QuarantinedRow:
    """One row that broke a rule, of the current revision of its day."""

    day: dt.date
    file: str
    sha256: str
    line: int
    reasons: list[str]
    raw: str


def summary(conn: psycopg.Connection, dataset: str) -> list[dict[str, Any]]:
    """Per day of the current revisions: rows quarantined, and rows per rule."""
    rows = conn.execute(
        "select p.day, p.part, p.revision, d.name, count(q.*), ("
        "   select jsonb_object_agg(reason, n) from (select reason, count(*) n from ledger.quarantined z,"
        "   unnest(z.reasons) reason where z.revision_id = p.revision_id group by reason) r)"
        " from ledger.publication p join ledger.delivery d using (delivery_id)"
        " join ledger.quarantined q on q.revision_id = p.revision_id"
        " where p.dataset = %s and p.state = 'published' and p.superseded_at is null"
        " group by p.revision_id, p.day, p.part, p.revision, d.name order by p.day, p.part",
        (dataset,),
    ).fetchall()
    names = ("day", "part", "revision", "file", "rows", "reasons")
    return [dict(zip(names, row, strict=True)) for row in rows]


def rows(
    conn: psycopg.Connection,
    dataset: str,
    *,
    day: dt.date | None = None,
    rule: str | None = None,
    limit: int | None = None,
) -> Iterator[QuarantinedRow]:
    """Quarantined rows of the current revisions in order of day and line, streamed from the server."""
    query = (
        "select p.day, d.name, p.sha256, q.line, q.reasons, q.raw from ledger.quarantined q"
        " join ledger.publication p using (revision_id) join ledger.delivery d using (delivery_id)"
        " where p.dataset = %s and p.state = 'published' and p.superseded_at is null"
        " and (%s::date is null or p.day = %s) and (%s::text is null or %s = any(q.reasons))"
        " order by p.day, p.part, q.line limit %s"
    )
    with conn.transaction(), conn.cursor(name="quarantined") as cursor:
        cursor.itersize = 5000
        cursor.execute(query.encode(), (dataset, day, day, rule, rule, limit))
        for row in cursor:
            yield QuarantinedRow(*row)


def export(found: Iterator[QuarantinedRow], out: IO[str]) -> int:
    """Write rows as CSV; every cell that a spreadsheet would run is made text by a leading apostrophe (F26)."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    count = 0
    for row in found:
        cells = (row.day.isoformat(), row.file, row.sha256, row.line, " ".join(row.reasons), row.raw)
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in cells])
        count += 1
    return count


def harmless(cell: str) -> str:
    """``cell`` so that a spreadsheet shows it and does not calculate it; the apostrophe is the only change."""
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) or cell.startswith(_FORMULA) else cell

"""One attempt to publish one delivery: what its steps share.

What goes here: the attempt and the exceptions that end it. What does not: the steps (``rows``, ``revision``) and their
order (``publish``).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ct_assets.adapters.crash import Crash
from ct_assets.adapters.datasets import PublishedDataset
from ct_assets.adapters.ledger import Delivery, Judge, Publication
from ct_assets.errors import CtError

if TYPE_CHECKING:
    import psycopg

    from ct_assets.ingest.verdict import FileVerdict


class AuditFailed(CtError):
    """What was written is not what was judged: nothing is published."""


class Rejected(Exception):
    """Ends the transaction of a delivery that is rejected, so that what it staged disappears."""

    def __init__(self, verdict: FileVerdict) -> None:
        """Keep the verdict for the ledger."""
        super().__init__(verdict.decision)
        self.verdict = verdict


class Unchanged(Exception):
    """Ends the transaction of a delivery judged again whose revision would be the one that readers see already."""

    def __init__(self, verdict: FileVerdict, publication: Publication) -> None:
        """Keep the verdict and the revision that stays."""
        super().__init__(publication.revision_id)
        self.verdict, self.publication = verdict, publication


@dataclass
class Attempt:
    """One attempt, on one connection. ``revision_id`` is given inside the transaction."""

    conn: psycopg.Connection
    dataset: PublishedDataset
    delivery: Delivery
    crash: Crash
    revision_id: int = 0
    day: dt.date = field(init=False)

    def __post_init__(self) -> None:
        """An undated file counts for the day (UTC) on which it arrived."""
        self.day = self.delivery.day or self.delivery.received_at.astimezone(dt.UTC).date()

    @property
    def judge(self) -> Judge:
        """The contract and code of this attempt."""
        return Judge(self.dataset.schema.digest, self.dataset.code_version)

    @property
    def part(self) -> str:
        """Undated files add up under their names; dated ones replace each other."""
        return "" if self.dataset.dated else self.delivery.name

    @property
    def place(self) -> tuple[str, dt.date, str]:
        """Dataset, day and part: at most one publication is current for it."""
        return self.dataset.name, self.day, self.part

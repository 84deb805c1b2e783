"""What is said about one delivered file.

What goes here: the verdict's data and its JSON form (design: one line a file). What does not: how it is reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

ACCEPTED, WITH_QUARANTINE, REJECTED = "accepted", "accepted_with_quarantine", "rejected"


@dataclass(frozen=True)
class Rejection:
    """Why a whole file is refused: the rule, the physical line (0: the file as such) and a message that teaches."""

    rule: str
    line: int
    message: str


class FileRejected(Exception):
    """Raised inside the judgement to end it with a rejection; callers see it as a verdict, never as an exception."""

    def __init__(self, rule: str, line: int, message: str) -> None:
        """Keep the three parts of the rejection."""
        super().__init__(message)
        self.rejection = Rejection(rule, line, message)


@dataclass
class FileVerdict:
    """The verdict on one file; complete when the judgement is exhausted."""

    file: str
    sha256: str = ""
    read: int = 0
    good: int = 0
    quarantined: int = 0
    duplicates: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    rejected: Rejection | None = None
    warnings: list[str] = field(default_factory=list)
    day: date | None = None
    contract_digest: str = ""

    @property
    def decision(self) -> str:
        """accepted, accepted_with_quarantine or rejected."""
        if self.rejected:
            return REJECTED
        return WITH_QUARANTINE if self.quarantined else ACCEPTED

    @property
    def rows(self) -> dict[str, int]:
        """Rows read, good, quarantined and duplicates; ``read`` is their sum unless the file is rejected."""
        return {"read": self.read, "good": self.good, "quarantined": self.quarantined, "duplicates": self.duplicates}

    def as_json(self) -> dict[str, Any]:
        """The one line a file of ``ct verdict --json``."""
        rejected = self.rejected
        return {
            "file": self.file,
            "sha256": self.sha256,
            "decision": self.decision,
            "rows": self.rows,
            "reasons": dict(self.reasons),
            "rejected": None
            if rejected is None
            else {"rule": rejected.rule, "line": rejected.line, "message": rejected.message},
        }

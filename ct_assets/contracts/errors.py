"""The error of a contract that cannot be used, with the file and line to edit.

What goes here: that error. What does not: errors about data (those are verdicts, not exceptions).
"""

from __future__ import annotations

from pathlib import Path

from ct_assets.errors import CtError


class ContractError(CtError):
    """A contract file is wrong: says where (``file:line``), what was found and what to do."""

    def __init__(self, file: Path | str, line: int, message: str, hint: str | None = None) -> None:
        """Keep the parts, so that a caller can show them its own way."""
        super().__init__(f"{file}:{line}: {message}", hint=hint)
        self.file = str(file)
        self.line = line
        self.reason = message

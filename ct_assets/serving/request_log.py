"""What was asked, seen and answered: JSON lines of bounded size, one a score.

What goes here: writing and rolling over. What does not: reading them back, training on them.

A file of 32 MB and three older ones, by the standard library's handler; then the oldest goes.
A disk that is full costs log lines, which are counted, and no answer.
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_assets.json_values import json_text

if TYPE_CHECKING:
    from ct_assets.serving.scorer import Scored

MAX_BYTES, OLDER_FILES = 32_000_000, 3


class RequestLog:
    """The log of one server. Safe to share between threads; use one file a process."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, older_files: int = OLDER_FILES) -> None:
        """The folder is made; the file is opened with the first line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.lines, self.lost = path, 0, 0
        self._handler = _Counting(self, path, max_bytes, older_files)

    def write(self, scored: Scored) -> None:
        """One line for each score. Never raises."""
        about = scored.about()
        for row in scored.rows():
            self._line({**about, **row})

    def _line(self, values: dict[str, Any]) -> None:
        text = json_text(values)
        self.lines += 1
        self._handler.handle(logging.LogRecord("scores", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Counting(RotatingFileHandler):
    """Counts the lines that could not be written instead of printing a traceback for each."""

    def __init__(self, log: RequestLog, path: Path, max_bytes: int, older_files: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=older_files, encoding="utf-8", delay=True)
        self._log = log

    def handleError(self, record: logging.LogRecord) -> None:
        self._log.lost += 1

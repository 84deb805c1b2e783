"""The clock as a port, so that nothing else asks the machine for the time.

What goes here: the wall clock and its twin for tests. What does not: database time, which ledgers take from
PostgreSQL itself (a stepping or skewed machine clock must not reorder publications).
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> dt.datetime:
        """The present, aware, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> dt.datetime:
        """The present, aware, in UTC."""
        return dt.datetime.now(dt.UTC)

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        time.sleep(seconds)


@dataclass
class FixedClock:
    """A clock that stands still until told otherwise; ``sleep`` moves it on at once."""

    at: dt.datetime

    def now(self) -> dt.datetime:
        """The time it was set to."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Move on without waiting."""
        self.at += dt.timedelta(seconds=seconds)

"""What asset bodies reach the outside world through: one resource, replaced as a whole in tests.

What goes here: :class:`Installation`. What does not: anything opened at load time (a code location loads without a
database and without secrets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ct_assets import settings as _settings
from ct_assets.adapters.clock import Clock, SystemClock

if TYPE_CHECKING:
    import psycopg

RESOURCE = "installation"


class Installation:
    """One installation: its settings (read on first use) and connections to its ledger."""

    def __init__(self, settings: _settings.Settings | None = None, clock: Clock | None = None) -> None:
        """``settings`` given: those; else the environment's, read when first needed. ``clock`` None: the system's."""
        self._given, self.clock = settings, clock or SystemClock()
        self.kept: dict[str, Any] = {}  # what the steps of one process share; never needed for correctness

    @cached_property
    def settings(self) -> _settings.Settings:
        """The settings."""
        return self._given or _settings.load()

    @cached_property
    def ledger_url(self) -> str:
        """The ledger's URL; its schema is migrated once per process, a newer schema is refused."""
        from ct_assets.adapters.postgres.migrate import prepared_url

        return prepared_url(self.settings)

    @cached_property
    def stream_url(self) -> str:
        """The stream database's URL, its schema migrated as the ledger's is."""
        from ct_assets.adapters.postgres.migrate import prepared_url

        return prepared_url(self.settings, "stream")

    @contextmanager
    def stream(self) -> Iterator[psycopg.Connection]:
        """A connection to the streams' state; each statement is a transaction of its own."""
        from ct_assets.adapters.postgres.connect import connect

        with connect(self.stream_url, autocommit=True) as conn:
            yield conn

    @contextmanager
    def ledger(self) -> Iterator[psycopg.Connection]:
        """A connection to the ledger and the published tables; committed on success."""
        from ct_assets.adapters.postgres.connect import connect

        with connect(self.ledger_url) as conn:
            yield conn


def published_days_of(dataset: str) -> Callable[[], list[str]]:
    """Asks the ledger, when called, which ISO days of ``dataset`` readers see (for automation conditions)."""

    def ask() -> list[str]:
        from ct_assets.orchestration.facts import published_days

        with Installation().ledger() as conn:
            return published_days(conn, dataset)

    return ask

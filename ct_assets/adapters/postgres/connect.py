"""Connections: which URL belongs to which part, and retry that is bounded.

What goes here: opening connections and repeating a transaction whose connection broke. What does not: SQL of any table.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.errors import CtError
from ct_assets.settings import Settings, redact

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Part = Literal["dagster", "ledger", "stream", "registry"]


class DatabaseUnreachable(CtError):
    """No connection could be made, or it kept breaking."""


def url_for(settings: Settings, part: Part = "ledger") -> str:
    """The PostgreSQL URL of one part; starts the embedded server when that is what answers."""
    given = getattr(settings, f"{part}_url")
    if given is not None:
        return given
    from ct_assets.adapters.postgres.server import Server

    return Server(settings.home).ensure("dagster" if part == "dagster" else "ct")


def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection:
    """A connection whose session speaks UTC; raises :class:`DatabaseUnreachable` with the password left out."""
    import psycopg

    try:
        # keepalives: a vanished server is noticed within about 30 s instead of hours
        return psycopg.connect(
            url,
            autocommit=autocommit,
            application_name="ct-assets",
            connect_timeout=10,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=4,
            options="-c timezone=UTC",
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(
            f"cannot connect to {redact(url)}: {_first_line(error)}",
            hint="`ct doctor` says which part is unreachable; for the embedded server `ct url` starts it",
        ) from error


def with_retry(work: Callable[[], T], *, attempts: int = 5, first_wait: float = 0.2, clock: Clock | None = None) -> T:
    """Call ``work`` until it passes, at most ``attempts`` times, when the connection broke or transactions collided.

    ``work`` opens its own connection and is one transaction, so a repeat starts from nothing. Waits grow
    exponentially with full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
    """
    import psycopg

    clock = clock or SystemClock()
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except (psycopg.OperationalError, DatabaseUnreachable) as error:
            if attempt == attempts or not _passes(error):
                raise
            clock.sleep(random.uniform(0.05, first_wait * 2**attempt))  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable")


def _passes(error: Exception) -> bool:
    """Whether trying again can help: the connection broke, the server restarts, two transactions collided.

    A full disk (53100) or a wrong password (28xxx) is not mended by trying again.
    """
    state = getattr(error, "sqlstate", None)
    if state is None:
        return True
    return state[:2] in ("08", "40") or state in ("57P01", "57P02", "57P03", "55P03")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

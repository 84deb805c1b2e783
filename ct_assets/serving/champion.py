"""Following the champion: the model that leads, loaded, exchanged within seconds of a promotion, kept when all else is away.

What goes here: polling the pointer, loading, what is known of both. What does not: promoting (``adapters.champion``),
scoring (``scorer``).

A version is loaded whole (artefact checked, features of its definition version readable) before it replaces the one that
answers; when that fails the last good one stays and says why it is stale.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ct_assets.adapters import champion as pointer
from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.adapters.postgres.connect import DatabaseUnreachable, connect
from ct_assets.adapters.propensity import load_version
from ct_assets.errors import CtError, first_line
from ct_assets.serving.features import PinnedFeatures

if TYPE_CHECKING:
    import datetime as dt

    from ct_assets.adapters.storage import Storage
    from ct_assets.training.propensity import FittedPropensity

POLL_SECONDS = 2.0
STALE_POLLS = 5  # so many polls without an answer from the ledger, and the model may no longer be the champion


class NoModel(CtError):
    """No champion could be loaded yet."""


@dataclass(frozen=True)
class Loaded:
    """A champion that answers."""

    model: str
    version: int
    generation: int
    fitted: FittedPropensity
    features: PinnedFeatures
    loaded_at: dt.datetime


@dataclass(frozen=True)
class Places:
    """Where the ledger, the events' state and the artefacts are."""

    ledger_url: str
    stream_url: str
    storage: Storage


class Follower:
    """Holds the champion of one model up to date in a thread of its own."""

    def __init__(
        self, places: Places, model: str, say: Callable[[str], None], poll_seconds: float = POLL_SECONDS
    ) -> None:
        """Nothing is opened before :meth:`poll` or :meth:`start`."""
        self._places, self._model, self._say, self._poll_seconds = places, model, say, poll_seconds
        self._clock: Clock = SystemClock()
        self._conn: Any = None
        self._loaded: Loaded | None = None
        self._checked_at: dt.datetime | None = None
        self._problem: str | None = "not asked yet"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champion", daemon=True)

    def start(self) -> None:
        """Load now if possible, then follow."""
        self.poll()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, close the connection to the ledger."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)
        self._drop_connection()

    @property
    def current(self) -> Loaded:
        """The model that answers. Raises :class:`NoModel` before the first was loaded."""
        if self._loaded is None:
            raise NoModel(
                f"no champion of {self._model} is loaded: {self._problem}", hint=f"`ct model show {self._model}`"
            )
        return self._loaded

    @property
    def is_stale(self) -> bool:
        """Whether another version may lead: the ledger does not answer, or the champion of now could not be loaded."""
        if self._problem is not None or self._checked_at is None:
            return True
        return (self._clock.now() - self._checked_at).total_seconds() > STALE_POLLS * self._poll_seconds + 10

    def status(self) -> dict[str, Any]:
        """What is loaded, when the ledger last answered, what is wrong."""
        found = self._loaded
        return {
            "model": self._model,
            "version": found.version if found else None,
            "generation": found.generation if found else None,
            "definition": found.features.definition if found else None,
            "definition_hash": found.features.hash if found else None,
            "loaded_at": found.loaded_at.isoformat() if found else None,
            "checked_at": self._checked_at.isoformat() if self._checked_at else None,
            "is_stale": self.is_stale,
            "problem": self._problem,
        }

    def poll(self) -> None:
        """Look at the pointer once; load what it names when that is another version. Never raises."""
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001 - the last good model stays, whatever is wrong
            self._drop_connection()
            told = f"{type(error).__name__}: {first_line(error)}"
            cause = f" ({first_line(error.__cause__)})" if error.__cause__ else ""
            self._trouble("the ledger's database is away" if _is_away(error) else told, told + cause)

    def _run(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            self.poll()

    def _follow(self) -> None:
        if self._conn is None:
            self._conn = connect(self._places.ledger_url, autocommit=True)
        leads = pointer.champion(self._conn, self._model)
        if leads is None:
            self._trouble("no version has passed its gates yet")
        elif self._loaded is None or (leads.version, leads.generation) != (
            self._loaded.version,
            self._loaded.generation,
        ):
            self._load(leads)
        else:
            self._well()

    def _load(self, leads: pointer.Champion) -> None:
        version = pointer.versions(self._conn, self._model, leads.version)[0]
        fitted = load_version(self._places.storage, version)
        seen, before = fitted.seen, self._loaded
        if before is not None and (before.features.definition, before.features.hash) == (seen.definition, seen.hash):
            features = before.features
        else:
            features = PinnedFeatures(self._places.stream_url, seen.definition, seen.hash)
            features.probe(seen.columns)
        self._loaded = Loaded(self._model, leads.version, leads.generation, fitted, features, self._clock.now())
        self._say(f"{self._model}: version {leads.version} answers ({leads.reason})")
        self._well()

    def _well(self) -> None:
        self._checked_at, self._problem = self._clock.now(), None

    def _trouble(self, problem: str, detail: str = "") -> None:
        """``problem`` is answered over HTTP; ``detail`` is said instead where the server's own people read it."""
        if problem != self._problem:
            kept = f"; version {self._loaded.version} goes on" if self._loaded else ""
            self._say(f"{self._model}: {detail or problem}{kept}")
        self._problem = problem

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def _is_away(error: Exception) -> bool:
    """Whether a connection failed: such an error names the database's address, which no answer shows."""
    import psycopg

    return isinstance(error, DatabaseUnreachable | psycopg.OperationalError)

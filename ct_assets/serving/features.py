"""Features of one definition version for many entities now, read through Feast's ``FeatureStore``, with their freshness.

What goes here: a private Feast registry that holds exactly the pinned version, the read, how old the state is. What does
not: the online store (``adapters.feast``), which model asks (``champion``).

The registry is a file of this process, written from the definition that the database holds: no other process's
`feast apply` changes what a model reads, and Feast's shared registry may be away. The version pinned stays readable as
long as `ct stream` keeps a table of it; when it answers over another topic, values and freshness follow within
``FOLLOW_SECONDS`` of each other.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.adapters.postgres.connect import DatabaseUnreachable, connect
from ct_assets.adapters.stream.followed import FollowedTables
from ct_assets.errors import CtError, UsageError
from ct_assets.streaming.definition import WHOLE_64

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from ct_assets.adapters.stream.online import OnlineTable


RETRY_SECONDS = 1.0
T = TypeVar("T")


class FeaturesAway(CtError):
    """Features cannot be read now: the database or the version's table is away.

    Its message goes to whoever asked over HTTP, so it holds no address; the cause has it, for the log.
    """


@dataclass(frozen=True)
class Freshness:
    """How current the state is. ``is_stale``: older than the view's objective (None: it has none, or nothing was fed)."""

    at_us: int
    watermark_us: int | None
    staleness_us: int | None
    is_stale: bool | None


@dataclass(frozen=True)
class FeatureRows:
    """``frame``: a column a feature, a row an entity in the order asked."""

    frame: pl.DataFrame
    freshness: Freshness


class PinnedFeatures:
    """The features of one version of a definition. Safe to share between threads."""

    def __init__(self, stream_url: str, definition: str, hash_: str, clock: Clock | None = None) -> None:
        """Look the version up and register it with Feast. Raises UsageError when there is no such version."""
        self._url, self._clock = stream_url, clock or SystemClock()
        self._lock, self._conn, self._away_until = threading.Lock(), None, 0.0
        self.definition, self.hash = definition, hash_
        with connect(stream_url, autocommit=True) as conn:
            self._tables = FollowedTables()
            self._table = self._tables.table(conn, definition, hash_)
        self._folder = tempfile.TemporaryDirectory(prefix="ct-serve-")  # removed with this object
        self._store = _store(Path(self._folder.name), self._table)

    @property
    def entity(self) -> str:
        """Name of the entity's column."""
        return self._table.definition.entity

    @property
    def nulls_when_stale(self) -> bool:
        """The view's policy: stale values are null instead of flagged."""
        return self._table.definition.on_stale == "null"

    def probe(self, columns: Sequence[str]) -> None:
        """Read somebody, to see that all is there. Raises :class:`FeaturesAway`."""
        self.read([0 if self.is_integer else ""], columns)

    @property
    def is_integer(self) -> bool:
        """Whether the key is a whole number (else a text)."""
        return self._table.definition.schema.column(self.entity).type == "integer"

    def checked(self, entities: Sequence[Any]) -> list[Any]:
        """The entities when they have the key's type. Raises UsageError naming the first that does not."""
        wanted, example = (int, "42") if self.is_integer else (str, '"42"')
        for entity in entities:
            if not isinstance(entity, wanted) or isinstance(entity, bool):
                raise UsageError(
                    f"{self.entity} {entity!r} is {type(entity).__name__}, the contract says {wanted.__name__}",
                    hint=f'for example {{"user_ids": [{example}]}}; 42 and "42" are not the same',
                )
            if self.is_integer and entity not in WHOLE_64:
                raise UsageError(f"{self.entity} {entity} does not fit 64 bits", hint='for example {"user_ids": [42]}')
        return list(entities)

    def read(self, entities: Sequence[Any], columns: Sequence[str]) -> FeatureRows:
        """Values now. Raises :class:`FeaturesAway`."""
        import polars as pl

        fresh = self.freshness()  # first: it fails at once when the database is away
        try:
            refs = [f"{self.definition}:{name}" for name in columns]
            asked = [{self.entity: entity} for entity in entities]
            rows = self._store.get_online_features(refs, asked).to_dict() if asked else {name: [] for name in columns}
        except Exception as error:  # whatever Feast or the driver throws
            raise FeaturesAway(
                f"features of {self.definition} cannot be read ({type(error).__name__})",
                hint="the server's log has the cause; `ct doctor` examines the databases",
            ) from error
        frame = pl.DataFrame({name: pl.Series(rows[name], dtype=pl.Float64, strict=False) for name in columns})
        return FeatureRows(frame, fresh)

    def freshness(self) -> Freshness:
        """Watermark and age of the state behind the values. Raises :class:`FeaturesAway`."""
        import psycopg

        definition, acceptance = self._table.definition, self._table.definition.acceptance
        at = round(self._clock.now().timestamp() * 1e6)
        judged_by = (at, acceptance.out_of_orderness_us, acceptance.idle_timeout_us)
        try:
            watermark, fresh = self._with_connection(lambda conn: self._progress(conn, judged_by))
        except UsageError as error:
            raise FeaturesAway(
                f"the table of this version of {self.definition} is gone",
                hint=f"`ct stream deploy --no-switch` with the definition file of version {self.hash[:12]} builds it again;"
                " or promote a model that was trained with the version that answers",
            ) from error
        except (psycopg.Error, CtError) as error:
            raise FeaturesAway(
                "the stream database is away", hint="`ct doctor` examines it; scores come back with it"
            ) from error
        staleness = None if fresh is None else max(at - fresh, 0)
        stale = None
        if definition.freshness_us is not None:
            stale = staleness is None or staleness > definition.freshness_us
        return Freshness(at, watermark, staleness, stale)

    def _progress(self, conn: psycopg.Connection, judged_by: tuple[int, ...]) -> tuple[int | None, int | None]:
        """Watermark and moment of the state of the topic over which the version answers by now."""
        table = self._tables.table(conn, self.definition, self.hash)
        row = conn.execute(
            "select watermark, fresh_as_of from stream.progress(%s, %s, %s, %s)", (table.stream_id, *judged_by)
        ).fetchone()
        assert row is not None
        return row

    def _with_connection(self, work: Callable[[psycopg.Connection], T]) -> T:
        """``work`` over a connection that is opened again when it broke."""
        import psycopg

        with self._lock:
            for again in (True, False):
                if self._conn is None or self._conn.closed:
                    self._conn = self._connected()
                try:
                    return work(self._conn)
                except psycopg.OperationalError:
                    self._conn.close()
                    if not again:
                        raise
        raise AssertionError("unreachable")

    def _connected(self) -> psycopg.Connection:
        """A new connection. A server that was away a moment ago is not asked again: a host that is gone lets each try
        wait for seconds, and requests would queue up behind it."""
        if time.monotonic() < self._away_until:
            raise DatabaseUnreachable("the stream database did not answer a moment ago")
        try:
            return connect(self._url, autocommit=True)
        except DatabaseUnreachable:
            self._away_until = time.monotonic() + RETRY_SECONDS
            raise


def _store(folder: Path, table: OnlineTable) -> Any:
    """A FeatureStore whose registry, a file in ``folder``, knows the view of this version and nothing else."""
    os.environ.setdefault("FEAST_USAGE", "False")
    from feast import FeatureStore, RepoConfig

    from ct_assets.adapters.feast.projection import entity_of, view_of

    config = RepoConfig.model_validate(
        {
            "project": "serving",
            "provider": "local",
            "registry": {"path": str(folder / "registry.db"), "cache_ttl_seconds": 0},  # nobody else writes it
            "online_store": {"type": "ct_assets.adapters.feast.online_store.CtOnlineStore"},
            "entity_key_serialization_version": 3,
            "repo_path": str(folder),
        }
    )
    store = FeatureStore(config=config)
    entity = entity_of(table.definition)
    store.apply([entity, view_of(table.definition, entity)])
    return store

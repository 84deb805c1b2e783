"""Feast's online store on this installation's PostgreSQL, or Redis by setting: live stream views finished at read time, other views versioned.

What goes here: Feast's interface over ``adapters.stream.online_reads`` and ``entity_rows`` or
``redis_entity_rows``. What does not: SQL, semantics.
Feast imports this module (``online_store.type`` in feature_store.yaml).

A live stream view is written by its worker alone. ``write_to_online_store`` on it is refused with the reason, ``push`` by
Feast itself (it has no push source);
``materialize`` has nothing to write there (the offline store gives it no rows), so it makes nothing older.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from feast import Entity, FeatureView  # noqa: TID253 - only Feast imports this module
from feast.infra.key_encoding_utils import serialize_entity_key  # noqa: TID253
from feast.infra.online_stores.online_store import OnlineStore  # noqa: TID253
from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # noqa: TID253
from feast.protos.feast.types.Value_pb2 import Value  # noqa: TID253
from feast.repo_config import FeastConfigBaseModel, RepoConfig  # noqa: TID253

import ct_assets.adapters.feast.registry  # noqa: F401 - registers the plug-in that feature_store.yaml names
from ct_assets.adapters.clock import SystemClock
from ct_assets.adapters.feast import entity_rows, redis_entity_rows
from ct_assets.adapters.feast.connection import database_url, online_url
from ct_assets.adapters.feast.entity_rows import EntityRow, EntityTable
from ct_assets.adapters.feast.projection import HASH_TAG, NAME_TAG
from ct_assets.adapters.stream.followed import FollowedTables
from ct_assets.errors import UsageError

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
clock = SystemClock()


class LiveView(UsageError):
    """Someone but its worker tried to write a live stream view."""


class CtOnlineStoreConfig(FeastConfigBaseModel):
    """No address here: the settings say where the rows are (CT_ONLINE_URL; else CT_STREAM_URL, CT_DATABASE_URL, embedded)."""

    type: str = "ct_assets.adapters.feast.online_store.CtOnlineStore"
    sample: float = 0.0  # share of reads of live views that are kept, to be recomputed offline (determinism)


class CtOnlineStore(OnlineStore):
    """Reads finished values of live views and versioned rows of others; one connection a thread, reopened when it broke."""

    def __init__(self) -> None:
        """Nothing is opened before the first read."""
        self._local = threading.local()
        self._tables = FollowedTables()

    # -- reads ---------------------------------------------------------------------------------------------------

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """Values now, per entity in order; the event timestamp of a live view is its watermark."""
        features = requested_features or [f.name for f in table.features]
        if NAME_TAG in table.tags:
            return self._with_connection(lambda conn: self._live(conn, table, entity_keys, (features, _sample(config))))
        keys = [_key(config, key) for key in entity_keys]
        not_before = clock.now() - table.ttl if table.ttl else None
        place = _place(config, table, features)
        rows = self._ordinary(entity_rows.read, redis_entity_rows.read, place, keys, not_before)
        return [(None, None) if row is None else (row[0], _parsed(row[1])) for row in rows]

    def _live(
        self, conn: Any, view: FeatureView, keys: Sequence[EntityKey], what: tuple[Sequence[str], float]
    ) -> list[Read]:
        from ct_assets.adapters.stream.consistency import keep_reads

        table = self._tables.table(conn, view.tags[NAME_TAG], view.tags[HASH_TAG])  # exactly the version projected
        now = round(clock.now().timestamp() * 1e6)
        features, share = what
        entities = [_entity(key) for key in keys]
        kept = share > 0 and random.random() < share  # noqa: S311 - a sample, no secret
        found = self._reads.read(conn, table, entities, now, version=kept)
        if kept:
            keep_reads(conn, table, entities, now, found)
        watermark = _EPOCH + timedelta(microseconds=found.watermark_us or 0)
        return [(watermark, {name: value_proto(values[name]) for name in features}) for values in found.values]

    # -- writes --------------------------------------------------------------------------------------------------

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Written], progress: Callable[[int], Any] | None
    ) -> None:
        """Upsert rows of an ordinary view; an older version never wins. Raises :class:`LiveView` for a live one."""
        if NAME_TAG in table.tags:
            if data:
                raise LiveView(
                    f"the view {table.name} is live: its worker writes it from events, {len(data)} rows were refused",
                    hint="send events to its topic (`ct events produce`), or push to an ordinary view",
                )
            return
        names = sorted({f.name for f in table.features})
        rows = [
            EntityRow(_key(config, key), _aware(event), _aware(created) if created else None, _serialised(values))
            for key, values, event, created in data
        ]
        place = _place(config, table, names)
        self._ordinary(entity_rows.write, redis_entity_rows.write, place, rows)
        if progress:
            progress(len(data))

    # -- infrastructure ------------------------------------------------------------------------------------------

    def update(  # noqa: PLR0913 - Feast's interface
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make, change and drop tables of ordinary views. A live view's tables belong to `ct stream`."""
        for view in tables_to_keep:
            if NAME_TAG not in view.tags:
                place = _place(config, view, sorted(f.name for f in view.features))
                self._ordinary(entity_rows.ensure, redis_entity_rows.ensure, place)
        self.teardown(config, tables_to_delete, entities_to_delete)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop tables of ordinary views."""
        for view in tables:
            if NAME_TAG not in view.tags:
                place = _place(config, view, [])
                self._ordinary(entity_rows.drop, redis_entity_rows.drop, place)

    def _ordinary(self, postgres: Callable[..., Any], redis: Callable[..., Any], *what: Any) -> Any:
        """Do one thing with rows of ordinary views, in the store that the settings name."""
        if self._redis is not None:
            return redis(self._redis, *what)
        return self._with_connection(lambda conn: postgres(conn, *what))

    @cached_property
    def _redis(self) -> Any:
        """The client of Redis; None when PostgreSQL has the rows."""
        from ct_assets.adapters.stream.redis_online import connect

        url = online_url()
        return connect(url) if url else None

    @cached_property
    def _reads(self) -> Any:
        from ct_assets.adapters.stream.online_reads import OnlineReads

        return OnlineReads(online_url())

    def _with_connection(self, work: Callable[[Any], Any]) -> Any:
        """Run ``work`` on this thread's connection; once more on a new one when the server went away in between."""
        import psycopg

        from ct_assets.adapters.stream.online_read import reader

        conn = getattr(self._local, "conn", None)
        if conn is not None and not conn.closed:
            try:
                return work(conn)
            except psycopg.OperationalError:
                conn.close()
        self._local.conn = reader(database_url("stream"))
        return work(self._local.conn)


def value_proto(value: Any) -> Value:
    """A value as Feast carries it; None is an empty one."""
    if value is None:
        return Value()
    if isinstance(value, bool):
        return Value(bool_val=value)
    if isinstance(value, int):
        return Value(int64_val=value)
    if isinstance(value, datetime):
        return Value(unix_timestamp_val=(value - _EPOCH) // timedelta(seconds=1))  # Feast's times are whole seconds
    if isinstance(value, str):
        return Value(string_val=value)
    return Value(string_val=value.isoformat()) if hasattr(value, "isoformat") else Value(double_val=float(value))


def _sample(config: RepoConfig) -> float:
    return config.online_store.sample if isinstance(config.online_store, CtOnlineStoreConfig) else 0.0


def _entity(key: EntityKey) -> Any:
    value = key.entity_values[0]
    kind = value.WhichOneof("val")
    if kind is None:
        raise UsageError(f"the key {key.join_keys[0]!r} is null in a row", hint="leave that row out")
    return getattr(value, kind)


def _key(config: RepoConfig, key: EntityKey) -> bytes:
    return serialize_entity_key(key, entity_key_serialization_version=config.entity_key_serialization_version)


def _place(config: RepoConfig, view: FeatureView, features: Sequence[str]) -> EntityTable:
    """Feast's project and view as a table name: PostgreSQL cuts names at 63 bytes, so long ones end in a digest."""
    import hashlib

    name = f"{config.project}_{view.name}"
    if len(name.encode()) > 63:
        name = f"{name.encode()[:50].decode(errors='ignore')}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return EntityTable(name.replace('"', ""), tuple(features))


def _serialised(values: dict[str, Value]) -> dict[str, bytes]:
    return {name: value.SerializeToString() for name, value in values.items()}


def _parsed(values: dict[str, bytes | None]) -> dict[str, Value]:
    found = {}
    for name, raw in values.items():
        found[name] = Value()
        if raw is not None:
            found[name].ParseFromString(raw)
    return found


def _aware(moment: datetime) -> datetime:
    """Feast takes a time without zone as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment

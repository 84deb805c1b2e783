"""Feast's offline store on this installation: live stream views from their events, other views as Feast's own store does.

What goes here: Feast's interface over ``adapters.stream.training_frames``. What does not: the computation.
Feast imports this module (``offline_store.type`` in feature_store.yaml).

A label row never disappears and never doubles. Stream features are read as they were known at the row's moment, which is
what serving would have answered; ``reading: corrected`` in feature_store.yaml sees late events too, and Feast's
``filter_by_created_timestamp=True`` asks for as-known whatever the file says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView  # noqa: TID253 - only Feast imports this module
from feast.infra.offline_stores import offline_utils  # noqa: TID253
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (  # noqa: TID253
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource  # noqa: TID253
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata  # noqa: TID253
from feast.infra.registry.base_registry import BaseRegistry  # noqa: TID253
from feast.infra.utils.postgres.connection_utils import _get_conn  # noqa: TID253
from feast.repo_config import RepoConfig  # noqa: TID253
from pydantic import model_validator

import ct_assets.adapters.feast.registry  # noqa: F401 - registers the plug-in that feature_store.yaml names
from ct_assets.adapters.feast.connection import completed, database_url
from ct_assets.adapters.feast.entity_frames import entities, moments
from ct_assets.adapters.feast.online_store import LiveView
from ct_assets.adapters.feast.source import CREATED, TIMESTAMP, StreamEventsSource
from ct_assets.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

_ROW = "__ct_row"  # the label row's number, while ordinary views are joined
_PUBLISHED = re.compile(r'select \* from (feature\."[^"]+")')  # what feature_repo reads of a published table


class CtOfflineStoreConfig(PostgreSQLOfflineStoreConfig):
    """Feast's PostgreSQL configuration, completed from the settings; what feature_store.yaml says comes first."""

    reading: Literal["as_known", "corrected"] = "as_known"

    @model_validator(mode="before")
    @classmethod
    def from_settings(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in where the published feature tables are."""
        return completed(given, "ledger", "feast_offline")


class Ready(RetrievalJob):
    """A result that is computed when it is asked for, once."""

    def __init__(
        self,
        compute: Callable[[], pa.Table],
        full_names: bool,
        on_demand: list[OnDemandFeatureView],
        about: RetrievalMetadata | None,
    ) -> None:
        """``compute`` gives the whole table."""
        self._compute, self._full_names, self._on_demand, self._about = compute, full_names, on_demand, about
        self._table: pa.Table | None = None

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are called ``view__feature``."""
        return self._full_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Transformations that Feast runs over the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked."""
        return self._about

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        if self._table is None:
            self._table = self._compute()
        return self._table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Saved datasets need a table behind them; write the result where you want it instead."""
        raise UsageError(
            "a result with live stream views is not saved through Feast",
            hint="use to_arrow() and write it, or `ct features`",
        )


class CtOfflineStore(PostgreSQLOfflineStore):
    """Live stream views computed from their events; the rest is Feast's PostgreSQL store."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(  # noqa: PLR0913 - Feast's interface
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Features at each row's moment; every row of ``entity_df`` stays, in its order, also with equal keys."""
        live = [view for view in feature_views if isinstance(view.batch_source, StreamEventsSource)]
        rest = [view for view in feature_views if view not in live]
        _refuse_unpublished(config, rest)

        def ordinary(frame: Any, refs: list[str]) -> RetrievalJob:
            return PostgreSQLOfflineStore.get_historical_features(
                config, rest, refs, frame, registry, project, full_feature_names, filter_by_created_timestamp, **kwargs
            )

        if not live:
            return ordinary(entity_df, feature_refs)
        if entity_df is None:
            raise UsageError(
                f"{live[0].name} is live: values exist at any moment",
                hint="give an entity_df with the moments you want",
            )
        names = {view.projection.name_to_use() for view in live}
        live_refs = [ref for ref in feature_refs if ref.split(":")[0] in names]
        rest_refs = [ref for ref in feature_refs if ref.split(":")[0] in {v.projection.name_to_use() for v in rest}]
        reading = "as_known" if filter_by_created_timestamp else _store(config).reading

        def compute() -> pa.Table:
            labels = _labels(config, entity_df)
            at = moments(labels, offline_utils.infer_event_timestamp_from_entity_df(dict(labels.dtypes)))
            # first: what they refuse would be an error of Arrow's or of SQL's in what follows
            columns = [c for view in live for c in _live(labels, at, view, (live_refs, full_feature_names, reading))]
            found = pa.Table.from_pandas(labels, preserve_index=False)
            if rest:
                found = _joined(labels, ordinary(labels.assign(**{_ROW: range(len(labels))}), rest_refs))
            for name, column in columns:
                found = found.append_column(name, column)
            return found

        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return Ready(
            compute,
            full_feature_names,
            on_demand,
            RetrievalMetadata(features=feature_refs, keys=[v.entity_columns[0].name for v in live]),
        )

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0913 - Feast's interface
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """What `feast materialize` reads: nothing for a live view, whose online side is always newer, and nothing for a
        published table that no day was published to yet."""
        given = (config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        columns = [*join_key_columns, *feature_name_columns, TIMESTAMP, CREATED]
        if _is_unpublished(config, data_source):
            return Ready(lambda: _untyped(columns), False, [], None)
        if not isinstance(data_source, StreamEventsSource):
            return PostgreSQLOfflineStore.pull_latest_from_table_or_query(*given, start_date, end_date)
        return Ready(lambda: _empty(data_source, columns), False, [], None)

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0913 - Feast's interface
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The same: this too is what `feast materialize` reads. Values in the past: ``get_historical_features``."""
        columns = [*join_key_columns, *feature_name_columns, TIMESTAMP, CREATED]
        if _is_unpublished(config, data_source):
            return Ready(lambda: _untyped(columns), False, [], None)
        if not isinstance(data_source, StreamEventsSource):
            return PostgreSQLOfflineStore.pull_all_from_table_or_query(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_timestamp_column,
                start_date,
                end_date,
            )
        return Ready(lambda: _empty(data_source, columns), False, [], None)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Refused for a live view: its history is the events that its worker accepted."""
        if isinstance(feature_view.batch_source, StreamEventsSource):
            raise LiveView(
                f"the history of {feature_view.name} is its events",
                hint="send events to its topic (`ct events produce`)",
            )
        PostgreSQLOfflineStore.offline_write_batch(config, feature_view, table, progress)


def _store(config: RepoConfig) -> CtOfflineStoreConfig:
    assert isinstance(config.offline_store, CtOfflineStoreConfig)
    return config.offline_store


def _labels(config: RepoConfig, entity_df: pd.DataFrame | str) -> pd.DataFrame:
    if not isinstance(entity_df, str):
        return entity_df.reset_index(drop=True)
    with _get_conn(_store(config)) as conn, conn.cursor() as cursor:
        cursor.execute(entity_df.encode())
        return pd.DataFrame.from_records(cursor.fetchall(), columns=[c.name for c in cursor.description or ()])


def _joined(labels: pd.DataFrame, job: RetrievalJob) -> pa.Table:
    """Ordinary features beside their label rows, in the labels' order."""
    found = job._to_arrow_internal()  # transformations come once all columns are there
    if len(found) != len(labels):
        raise UsageError(
            f"Feast's join gave {len(found)} rows for {len(labels)} label rows",
            hint="a source has two rows of equal entity and timestamps; make them unique",
        )
    return found.sort_by(_ROW).drop_columns([_ROW])


def _live(
    labels: pd.DataFrame, at: pl.Series, view: FeatureView, how: tuple[list[str], bool, Any]
) -> list[tuple[str, pa.ChunkedArray | pa.Array]]:
    """The columns of one live view for the labels at their moments."""
    import polars as pl

    from ct_assets.adapters.stream.training_frames import Request, training_frame

    refs, full_names, reading = how
    name = view.projection.name_to_use()
    features = [ref.split(":")[1] for ref in refs if ref.split(":")[0] == name]
    source = view.batch_source
    with _stream() as (conn, storage, table_of):
        table = table_of(source)
        key = view.projection.join_key_map.get(table.definition.entity, table.definition.entity)
        asked = pl.DataFrame([entities(labels, key, table.definition), at])
        values = training_frame(conn, table, asked, Request(reading, storage=storage))
    return [
        (
            f"{name}__{feature}" if full_names else feature,
            _carried(values[feature]).to_arrow(compat_level=pl.CompatLevel.oldest()),
        )
        for feature in features
    ]


def _carried(series: Any) -> Any:
    """Decimals as doubles, dates as text and times in whole seconds: what Feast can carry online too."""
    import polars as pl

    if isinstance(series.dtype, pl.Decimal):
        return series.cast(pl.Float64)
    if isinstance(series.dtype, pl.Datetime):
        return series.dt.truncate("1s")
    return series.cast(pl.String) if series.dtype == pl.Date else series


def _stream():
    """A connection to the stream database, the storage of compacted chunks, and a way to find a source's table."""
    from contextlib import contextmanager

    @contextmanager
    def opened():
        from ct_assets import settings
        from ct_assets.adapters.postgres.connect import connect
        from ct_assets.adapters.storage import open_storage
        from ct_assets.adapters.stream.versions import find_table

        with connect(database_url("stream"), autocommit=True) as conn:
            storage = open_storage(settings.load())
            yield conn, storage, lambda source: find_table(conn, source.definition, source.definition_hash)

    return opened()


def _empty(source: StreamEventsSource, columns: list[str]) -> pa.Table:
    """No rows, in the right types: what materialize takes as nothing to do. A view that no worker has fed yet has no
    table to take types from; `materialize` of all views must not stop at it."""
    import polars as pl

    from ct_assets.adapters.stream.training_frames import training_frame

    with _stream() as (conn, _, table_of):
        try:
            table = table_of(source)
        except UsageError:
            return _untyped(columns)
        is_integer = table.definition.schema.column(table.definition.entity).type == "integer"
        stamp = pl.Datetime("us", "UTC")
        none = pl.DataFrame(schema={table.definition.entity: pl.Int64 if is_integer else pl.String, TIMESTAMP: stamp})
        values = training_frame(conn, table, none.with_columns(pl.col(TIMESTAMP).alias("at")))
    values = values.with_columns(pl.col(TIMESTAMP).alias(CREATED))
    return pl.DataFrame([_carried(values[c]) for c in columns]).to_arrow(compat_level=pl.CompatLevel.oldest())


def _untyped(columns: list[str]) -> pa.Table:
    """No rows of a table that is not there."""
    stamp = pa.timestamp("us", "UTC")
    return pa.table({c: pa.array([], stamp if c in (TIMESTAMP, CREATED) else pa.null()) for c in columns})


def _refuse_unpublished(config: RepoConfig, views: list[FeatureView]) -> None:
    """There is no value to join yet, and no table to join it from."""
    for view in views:
        if _is_unpublished(config, view.batch_source):
            raise UsageError(
                f"{view.name} has no values: no day was published to its table yet",
                hint="`ct deliver FILE...` and `ct run` publish days; leave the view out until then",
            )


def _is_unpublished(config: RepoConfig, source: Any) -> bool:
    """Whether ``source`` reads a published feature table that the platform has not made yet: nobody published a day."""
    query = source._postgres_options._query if isinstance(source, PostgreSQLSource) else ""
    found = _PUBLISHED.fullmatch(query)
    if found is None:
        return False
    with _get_conn(_store(config)) as conn, conn.cursor() as cursor:
        cursor.execute("select to_regclass(%s)", (found[1],))
        return cursor.fetchone() == (None,)

"""Feast's data source of a live stream view: the accepted events of a stream, which only our offline store reads.

What goes here: the source as Feast registers it. What does not: reading (``offline_store``). Feast imports this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from feast import ValueType  # noqa: TID253 - only Feast imports this module
from feast.data_source import DataSource  # noqa: TID253
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto  # noqa: TID253
from feast.repo_config import RepoConfig  # noqa: TID253

TIMESTAMP, CREATED = "event_timestamp", "created_timestamp"


class StreamEventsSource(DataSource):
    """Accepted events of the version ``definition_hash`` of a definition; values are computed from them at any moment."""

    def __init__(
        self,
        *,
        name: str,
        definition: str,
        definition_hash: str,
        columns: Sequence[str] = (),
        description: str = "",
        **more: Any,
    ) -> None:
        """``definition`` and its hash say which version, ``columns`` what it has (entity and values); the rest is Feast's."""
        super().__init__(
            name=name,
            timestamp_field=TIMESTAMP,
            created_timestamp_column=CREATED,
            description=description,
            tags=more.get("tags"),
            owner=more.get("owner", ""),
        )
        self.definition, self.definition_hash, self.columns = definition, definition_hash, tuple(columns)

    def source_type(self) -> Any:
        """A source that Feast itself does not know."""
        return DataSourceProto.CUSTOM_SOURCE

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, StreamEventsSource)
            and super().__eq__(other)
            and (self.definition, self.definition_hash) == (other.definition, other.definition_hash)
        )

    def __hash__(self) -> int:
        return super().__hash__()

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> StreamEventsSource:
        """Back from the registry."""
        options = json.loads(data_source.custom_options.configuration)
        return StreamEventsSource(
            name=data_source.name,
            definition=options["definition"],
            definition_hash=options["hash"],
            columns=options["columns"],
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        options = json.dumps({"definition": self.definition, "hash": self.definition_hash, "columns": self.columns})
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{__name__}.StreamEventsSource",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=options.encode()),
            timestamp_field=TIMESTAMP,
            created_timestamp_column=CREATED,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def validate(self, config: RepoConfig) -> None:
        """Nothing to ask: the version may be deployed after `feast apply`."""

    def get_table_query_string(self) -> str:
        """There is no table of values: they are computed at the moments asked for."""
        raise NotImplementedError(f"values of {self.definition} are computed from events: use get_historical_features")

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """The types are declared by the projection, never inferred."""
        return lambda _: ValueType.UNKNOWN

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """The columns; their types are declared by the projection."""
        return [(name, "declared") for name in (*self.columns, TIMESTAMP, CREATED)]

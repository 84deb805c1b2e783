"""Feast's PostgreSQL stores and registry, connected to wherever this installation's settings point.

What goes here: connection parameters, resolved when Feast reads `feature_store.yaml`. What does not: any change of Feast's
own behaviour; feature views (``features``).

Feast imports the classes named in `feature_store.yaml`, so Feast itself is imported at module level here and this module
is imported by nobody else. The registry is reached through SQLAlchemy's engine plug-in hook, because Feast has none for
registries (https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (  # noqa: TID253
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.online_stores.postgres_online_store.postgres import (  # noqa: TID253
    PostgreSQLOnlineStore,
    PostgreSQLOnlineStoreConfig,
)
from pydantic import model_validator
from sqlalchemy import URL, make_url
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

Part = Literal["ledger", "stream", "registry"]


def database_url(part: Part) -> str:
    """URL of one part of this installation; starts the embedded server when the settings name none."""
    from ct_assets import settings
    from ct_assets.adapters.postgres.connect import url_for

    return url_for(settings.load(), part)


def connection_fields(url: str, schema: str) -> dict[str, Any]:
    """``url`` as the fields of Feast's PostgreSQL configuration, with ``schema`` made when it is missing.

    libpq parses the URL, so a socket folder in the query (the embedded server) works as a host.
    """
    from psycopg.conninfo import conninfo_to_dict

    _make_schema(url, schema)
    parts = conninfo_to_dict(url)
    return {
        "host": str(parts.get("host") or "localhost"),
        "port": int(parts.get("port") or 5432),
        "database": str(parts.get("dbname") or parts.get("user") or "postgres"),
        "user": str(parts.get("user") or "postgres"),
        "password": str(parts.get("password") or ""),
        "sslmode": str(parts.get("sslmode") or "prefer"),
        "db_schema": schema,
    }


@cache
def _make_schema(url: str, schema: str) -> None:
    """Feast makes its tables itself but expects the schema to be there."""
    from psycopg import sql

    from ct_assets.adapters.postgres.connect import connect

    with connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))


def _completed(given: dict[str, Any], part: Part, schema: str) -> dict[str, Any]:
    """What `feature_store.yaml` gives over what the settings give. Feast's stores insist on the type `postgres`."""
    resolved = {} if "host" in given else connection_fields(database_url(part), schema)
    return {**resolved, **given, "type": "postgres"}


class PublishedOfflineStoreConfig(PostgreSQLOfflineStoreConfig):
    """Feast's configuration, completed from the settings; what `feature_store.yaml` says comes first."""

    @model_validator(mode="before")
    @classmethod
    def from_settings(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in where the published feature tables are."""
        return _completed(given, "ledger", "feast_offline")


class PublishedOfflineStore(PostgreSQLOfflineStore):
    """Feast's PostgreSQL offline store over the published feature tables."""


class PublishedOnlineStoreConfig(PostgreSQLOnlineStoreConfig):
    """Feast's configuration, completed from the settings; what `feature_store.yaml` says comes first."""

    @model_validator(mode="before")
    @classmethod
    def from_settings(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in where online rows live."""
        return _completed(given, "stream", "feast_online")


class PublishedOnlineStore(PostgreSQLOnlineStore):
    """Feast's PostgreSQL online store."""


class RegistryFromSettings(CreateEnginePlugin):
    """Replaces the placeholder URL of the registry by the installation's own, in a schema of its own."""

    def update_url(self, url: URL) -> URL:
        """The registry database's URL, for psycopg 3 as Feast expects."""
        schema = "feast_registry"
        target = database_url("registry")
        _make_schema(target, schema)
        real = make_url(target).set(drivername="postgresql+psycopg")
        return real.update_query_dict({"options": f"-csearch_path={schema}"})


plugins.register("ct_settings", __name__, "RegistryFromSettings")

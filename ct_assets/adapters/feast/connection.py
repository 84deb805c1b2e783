"""Where Feast finds this installation's databases: connection fields out of the settings, never out of a file.

What goes here: resolving a part of the installation to what Feast wants. What does not: stores. Imports no Feast.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

Part = Literal["ledger", "stream", "registry"]


def database_url(part: Part) -> str:
    """URL of one part of this installation, its schema as the code needs it; starts the embedded server if need be."""
    from ct_assets import settings
    from ct_assets.adapters.postgres.migrate import prepared_url

    return prepared_url(settings.load(), part)


def online_url() -> str | None:
    """URL of the Redis that answers online reads; None when PostgreSQL does."""
    from ct_assets import settings

    return settings.load().online_url


def connection_fields(url: str, schema: str) -> dict[str, Any]:
    """``url`` as the fields of Feast's PostgreSQL configuration, with ``schema`` made when it is missing.

    libpq parses the URL, so a socket folder in the query (the embedded server) works as a host.
    """
    from psycopg.conninfo import conninfo_to_dict

    make_schema(url, schema)
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
def make_schema(url: str, schema: str) -> None:
    """Feast makes its tables itself but expects the schema to be there."""
    from psycopg import sql

    from ct_assets.adapters.postgres.connect import connect

    with connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))


def completed(given: dict[str, Any], part: Part, schema: str) -> dict[str, Any]:
    """What ``feature_store.yaml`` gives over what the settings give. Feast's own classes insist on the type ``postgres``."""
    resolved = {} if "host" in given else connection_fields(database_url(part), schema)
    return {**resolved, **given, "type": "postgres"}

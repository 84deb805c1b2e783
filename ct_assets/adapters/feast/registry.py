"""Feast's registry, connected to wherever this installation's settings point.

What goes here: the registry's URL, resolved when Feast opens it. What does not: stores, feature views. Importing the stores
registers the plug-in.

The registry is reached through SQLAlchemy's engine plug-in hook, because Feast has none for registries
(https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin).
"""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

from ct_assets.adapters.feast.connection import database_url, make_schema


class RegistryFromSettings(CreateEnginePlugin):
    """Replaces the placeholder URL of the registry by the installation's own, in a schema of its own."""

    def update_url(self, url: URL) -> URL:
        """The registry database's URL, for psycopg 3 as Feast expects."""
        schema = "feast_registry"
        target = database_url("registry")
        make_schema(target, schema)
        real = make_url(target).set(drivername="postgresql+psycopg")
        return real.update_query_dict({"options": f"-csearch_path={schema}"})


plugins.register("ct_settings", __name__, "RegistryFromSettings")

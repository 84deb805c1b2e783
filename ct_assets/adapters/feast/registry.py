"""Feast's registry, connected to wherever this installation's settings point.

What goes here: the registry's URL, resolved when Feast opens it, and what Feast leaves behind in it. What does not: stores, feature views. Importing the stores
registers the plug-in.

The registry is reached through SQLAlchemy's engine plug-in hook, because Feast has none for registries
(https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, Insert, delete, event, make_url, select
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

    def engine_created(self, engine: Engine) -> None:
        """Watch what Feast writes."""
        event.listen(engine, "before_execute", forget_versions_of_projects_that_are_gone)


def forget_versions_of_projects_that_are_gone(connection: Connection, statement: Any, *_: object) -> None:
    """Before a project is added: a new project has no versions of views.

    Feast 0.67 keeps them when it deletes a project (``SqlRegistry.delete_project`` lacks the table
    ``feature_view_version_history``), so that the next `feast apply` after `feast teardown` violates its primary key.
    """
    if isinstance(statement, Insert) and statement.table.name == "projects":
        from feast.infra.registry.sql import feature_view_version_history as history
        from feast.infra.registry.sql import projects

        connection.execute(delete(history).where(history.c.project_id.not_in(select(projects.c.project_id))))


plugins.register("ct_settings", __name__, "RegistryFromSettings")

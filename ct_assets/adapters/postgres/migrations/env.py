"""Alembic's entry: run the migrations on the connection that :mod:`ct_assets.adapters.postgres.migrate` hands over.

What goes here: nothing else. What does not: configuration files (there is none).
"""

from __future__ import annotations

from alembic import context  # noqa: TID253 - only alembic itself loads this file

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="ct_schema_version", version_table_schema="public")
with context.begin_transaction():
    context.run_migrations()

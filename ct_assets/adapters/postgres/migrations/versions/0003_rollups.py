"""By which SQL each revision was rolled up, so that a changed rollup is built for the old days too."""

from __future__ import annotations

from alembic import op  # noqa: TID253 - only alembic itself loads this file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """{rollup: digest of its SQL}; empty for revisions from before, which are rolled up again once."""
    op.get_bind().exec_driver_sql("alter table ledger.publication add column rollups jsonb not null default '{}'")

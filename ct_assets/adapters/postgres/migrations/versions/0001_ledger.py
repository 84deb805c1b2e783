"""The ledger: deliveries, publications, incidents, models, champion. See the SQL file of the same name."""

from __future__ import annotations

from pathlib import Path

from alembic import op  # noqa: TID253 - only alembic itself loads this file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL as it stands."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())

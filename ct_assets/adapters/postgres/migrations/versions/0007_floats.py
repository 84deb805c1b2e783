"""Sums and variances of very large doubles end in an infinity instead of an error. See the SQL file."""

from __future__ import annotations

from pathlib import Path

from alembic import op  # noqa: TID253 - only alembic itself loads this file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL as it stands."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())

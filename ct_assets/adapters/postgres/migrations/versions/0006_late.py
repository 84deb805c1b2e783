"""Events that came too late are kept as events beside their letters. See the SQL file."""

from __future__ import annotations

from pathlib import Path

from alembic import op  # noqa: TID253 - only alembic itself loads this file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the SQL as it stands."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())

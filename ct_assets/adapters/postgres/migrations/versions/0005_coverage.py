"""What a version lacks of the events that its windows reach: removed before it was made, or lost unread. See the SQL file."""

from __future__ import annotations

from pathlib import Path

from alembic import op  # noqa: TID253 - only alembic itself loads this file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the SQL as it stands."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())

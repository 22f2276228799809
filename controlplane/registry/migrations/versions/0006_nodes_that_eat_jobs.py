"""Attempts that failed on a node within seconds, in a row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column(
        "node",
        sa.Column(
            "quick_failures",
            sa.Text(),
            server_default="[]",
            nullable=False,
            comment="JSON: attempts that failed there within seconds, in a row",
        ),
    )

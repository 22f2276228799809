"""Which agent's principal enrolled a node. Nodes of before are enrolled anew by their next call."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column(
        "node",
        sa.Column(
            "enrolled_by",
            sa.String(length=255),
            server_default="",
            nullable=False,
            comment="principal of its agent; empty: whose agent calls next",
        ),
    )

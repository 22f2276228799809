"""What jobs wait for of others, and why some can never run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column(
        "job",
        sa.Column(
            "waits_for",
            sa.Text(),
            server_default="[]",
            nullable=False,
            comment="JSON list: dependencies that have not come yet",
        ),
    )
    op.add_column(
        "job",
        sa.Column(
            "doomed", sa.Text(), server_default="", nullable=False, comment="why it can never run"
        ),
    )

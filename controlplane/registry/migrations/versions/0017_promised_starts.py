"""Starts that were promised."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column(
        "job",
        sa.Column(
            "promised_us", sa.BigInteger(), nullable=True, comment="null: no start is promised"
        ),
    )

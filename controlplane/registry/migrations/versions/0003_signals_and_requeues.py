"""Signals that were sent to attempts, warnings of their time limit, and requeues in a row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column("attempt", sa.Column("warned_us", sa.BigInteger()))
    op.add_column(
        "attempt",
        sa.Column("signals", sa.Text(), nullable=False, server_default="[]", comment="JSON list"),
    )
    op.add_column(
        "lease",
        sa.Column(
            "signals_done",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="number of the last one sent",
        ),
    )
    op.add_column(
        "task", sa.Column("quick_requeues", sa.Integer(), nullable=False, server_default="0")
    )

"""What a worker that ran out of memory might use, and had used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column(
        "worker",
        sa.Column("oom_limit_bytes", sa.BigInteger(), comment="null where memory did not run out"),
    )
    op.add_column("worker", sa.Column("oom_peak_bytes", sa.BigInteger()))

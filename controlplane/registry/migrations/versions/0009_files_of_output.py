"""Where a job's folder lies on a node, and what is missing in the files of its output."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    for name, comment in (
        ("job_dir", "on the node; empty until it was reported"),
        ("output_fault", "what is missing in files of output"),
    ):
        op.add_column(
            "lease",
            sa.Column(name, sa.Text(), nullable=False, server_default="", comment=comment),
        )

"""Progress of attempts, as their workers report it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "progress",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="counts its changes"),
        sa.Column(
            "body",
            sa.Text(),
            nullable=False,
            comment="JSON: newest values, checkpoint, history, faults",
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "task_index", "attempt"],
            ["attempt.job_id", "attempt.task_index", "attempt.number"],
            name=op.f("fk_progress_attempt"),
        ),
        sa.PrimaryKeyConstraint("job_id", "task_index", "attempt", name=op.f("pk_progress")),
    )

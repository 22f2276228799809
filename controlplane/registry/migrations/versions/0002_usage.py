"""What attempts used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "released_us",
                sa.BigInteger(),
                nullable=True,
                comment="when its last attempt gave its leases back",
            )
        )
    with op.batch_alter_table("worker", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "peak_memory_bytes",
                sa.BigInteger(),
                nullable=True,
                comment="null where it is not known",
            )
        )
    op.create_table(
        "usage",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="how it ended"),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="event that ended it"),
        sa.Column("from_us", sa.BigInteger(), nullable=False, comment="when its leases were added"),
        sa.Column("until_us", sa.BigInteger(), nullable=False, comment="when they were removed"),
        sa.Column("cpu_millicores", sa.BigInteger(), nullable=False, comment="leased"),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False, comment="leased"),
        sa.Column(
            "peak_memory_bytes",
            sa.BigInteger(),
            nullable=True,
            comment="of one worker; null where it is not known",
        ),
        sa.Column("stdout_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stderr_bytes", sa.BigInteger(), nullable=False),
        sa.Column("waiting_us", sa.BigInteger(), nullable=False),
        sa.Column("staging_us", sa.BigInteger(), nullable=False),
        sa.Column("starting_us", sa.BigInteger(), nullable=False),
        sa.Column("running_us", sa.BigInteger(), nullable=False),
        sa.Column("stopping_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "task_index", "attempt"],
            ["attempt.job_id", "attempt.task_index", "attempt.number"],
            name=op.f("fk_usage_attempt"),
        ),
        sa.PrimaryKeyConstraint("job_id", "task_index", "attempt", name=op.f("pk_usage")),
    )
    with op.batch_alter_table("usage", schema=None) as batch_op:
        batch_op.create_index("ix_usage_until_us", ["until_us"], unique=False)

    op.create_table(
        "usage_device",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column(
            "devices",
            sa.Integer(),
            nullable=False,
            comment="how many of this model were leased",
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "task_index", "attempt"],
            ["usage.job_id", "usage.task_index", "usage.attempt"],
            name=op.f("fk_usage_device_usage"),
        ),
        sa.PrimaryKeyConstraint(
            "job_id", "task_index", "attempt", "model", name=op.f("pk_usage_device")
        ),
    )

"""Priority classes, queues and reservations; labels that operators give to nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it. What a new centre has of them is put in by the first start."""
    postgresql = op.get_bind().dialect.name == "postgresql"

    def name(length: int) -> sa.String:
        return sa.String(collation="C") if postgresql else sa.String(length)

    def text(column: str, comment: str | None = None) -> sa.Column[str]:
        return sa.Column(column, sa.Text(), nullable=False, comment=comment)

    op.create_table(
        "priority_class",
        sa.Column("name", name(63), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False, comment="the higher goes first"),
        sa.Column(
            "global_default", sa.Integer(), nullable=False, comment="1: of jobs that name none"
        ),
        sa.Column("preemption", name(16), nullable=False, comment="whether its jobs end others"),
        text("description"),
        sa.PrimaryKeyConstraint("name", name="pk_priority_class"),
    )
    op.create_table(
        "queue",
        sa.Column("name", name(63), nullable=False),
        text("selector", "its nodes; empty: all"),
        sa.Column("default_limit_us", sa.BigInteger()),
        sa.Column("max_limit_us", sa.BigInteger()),
        sa.Column("max_workers", sa.Integer()),
        sa.Column("max_gpus", sa.Integer()),
        text("accounts", "JSON list"),
        text("users", "JSON list"),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        text("closed", "why nothing starts; empty: it may"),
        text("description"),
        sa.PrimaryKeyConstraint("name", name="pk_queue"),
    )
    op.create_table(
        "reservation",
        sa.Column("name", name(63), nullable=False),
        sa.Column("begin_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        text("node_uuids", "JSON list; empty: by selector"),
        text("selector"),
        text("accounts", "JSON list; with no users: maintenance"),
        text("users", "JSON list"),
        text("description"),
        sa.PrimaryKeyConstraint("name", name="pk_reservation"),
    )
    op.add_column(
        "node",
        sa.Column(
            "given_labels",
            sa.Text(),
            server_default="[]",
            nullable=False,
            comment="JSON: an operator's, which override the agent's",
        ),
    )

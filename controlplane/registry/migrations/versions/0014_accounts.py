"""Accounts, their members, and what was used in their names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it. Every name that jobs have used so far is an account, open to everybody, so that
    what worked goes on; usage begins to count for fair share now."""
    c = op.get_bind().dialect.name == "postgresql"

    def name(length: int) -> sa.String:
        return sa.String(collation="C") if c else sa.String(length)

    op.create_table(
        "account",
        sa.Column("name", name(63), primary_key=True),
        sa.Column("parent", name(63), nullable=False, comment="empty: at the top"),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("shares", sa.Integer(), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("qos", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False, comment="1: everybody may submit to it"),
        sa.Column("members_may", name(16), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", name(255), nullable=False),
        sa.Column(
            "revision", sa.BigInteger(), nullable=False, comment="event that changed it last"
        ),
    )
    op.create_table(
        "account_member",
        sa.Column("account", name(63), primary_key=True),
        sa.Column("user_name", name(255), primary_key=True),
        sa.Column("shares", sa.Integer(), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("coordinator", sa.Integer(), nullable=False),
        sa.Column(
            "is_default", sa.Integer(), nullable=False, comment="1: pays for jobs that name none"
        ),
        sa.Column(
            "revision", sa.BigInteger(), nullable=False, comment="event that changed it last"
        ),
        sa.ForeignKeyConstraint(["account"], ["account.name"]),
    )
    op.create_table(
        "account_usage",
        sa.Column("account", name(63), primary_key=True),
        sa.Column("user_name", name(255), primary_key=True),
        sa.Column(
            "usage_us", sa.BigInteger(), nullable=False, comment="weighted GPU time, decayed"
        ),
        sa.Column("as_of_us", sa.BigInteger(), nullable=False, comment="when it was that much"),
        sa.Column(
            "days", sa.Text(), nullable=False, comment="JSON: day since 1970, GPU time on it"
        ),
    )
    op.execute(
        "INSERT INTO account (name, parent, description, shares, limits, qos, open, members_may,"
        " created_us, created_by, revision)"
        " SELECT DISTINCT account, '', '', 1, '{}', 0, 1, 'own', 0, '', 0 FROM job"
        " WHERE account <> ''"
    )

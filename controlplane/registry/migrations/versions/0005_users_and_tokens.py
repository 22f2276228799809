"""Users, their tokens, tokens by which nodes join, and the hosts that have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "user_account",
        sa.Column("name", sa.String(length=100), primary_key=True),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("barred_us", sa.BigInteger()),
    )
    op.create_table(
        "token",
        sa.Column(
            "sha256",
            sa.String(length=64),
            primary_key=True,
            comment="of its secret, which nobody keeps",
        ),
        sa.Column("user_name", sa.String(length=100), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("expires_us", sa.BigInteger()),
        sa.Column("revoked_us", sa.BigInteger()),
        sa.ForeignKeyConstraint(["user_name"], ["user_account.name"]),
    )
    op.create_table(
        "join_token",
        sa.Column(
            "sha256",
            sa.String(length=64),
            primary_key=True,
            comment="of its secret, which nobody keeps",
        ),
        sa.Column("node_uuid", sa.String(length=36), nullable=False, comment="empty: a new node"),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.String(length=36), nullable=False, comment="UUID of a node"),
        sa.Column(
            "key_sha256",
            sa.String(length=64),
            nullable=False,
            comment="of the public key that joined",
        ),
        sa.Column(
            "generation",
            sa.BigInteger(),
            nullable=False,
            comment="of the certificates it gave",
        ),
        sa.Column("revoked_us", sa.BigInteger()),
    )
    op.create_table(
        "admission",
        sa.Column("node_uuid", sa.String(length=36), primary_key=True),
        sa.Column(
            "generation",
            sa.BigInteger(),
            nullable=False,
            comment="certificates of lower ones are void",
        ),
        sa.Column("admitted_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "admitted_by",
            sa.String(length=255),
            nullable=False,
            comment="name of the join token",
        ),
    )

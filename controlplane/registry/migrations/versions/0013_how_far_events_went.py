"""Up to which number events were removed: who resumes from before that is told so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it. What was removed before is not known: all that there was by now may have been."""
    op.add_column(
        "cluster",
        sa.Column(
            "events_removed_seq",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="events up to this number may have been removed",
        ),
    )
    cluster = sa.table("cluster", sa.column("events_removed_seq"), sa.column("seq"))
    op.execute(cluster.update().values(events_removed_seq=cluster.c.seq))

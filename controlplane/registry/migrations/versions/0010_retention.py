"""What is over may go: how far that went, what it is found by, and usage that outlives its job."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

PAGE = 1000


def upgrade() -> None:
    """Apply it."""
    op.add_column(
        "cluster",
        sa.Column(
            "jobs_removed_us",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="jobs that ended before may have been removed",
        ),
    )
    for name in ("logs_removed_us", "usage_removed_us"):
        column = sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        op.add_column("cluster", column)
    op.add_column(
        "job",
        sa.Column(
            "blob_sha256",
            sa.String(64),
            comment="its working directory, if that travels; as in spec",
        ),
    )
    _fill()
    op.create_index("ix_job_blob_sha256", "job", ["blob_sha256"])
    op.create_index("ix_job_ended_us_job_id", "job", ["ended_us", "job_id"])
    with op.batch_alter_table("usage") as batch_op:
        batch_op.drop_constraint("fk_usage_attempt", type_="foreignkey")


def _fill() -> None:
    """Tell of the jobs that there are which blobs they refer to."""
    connection = op.get_bind()
    job = sa.table("job", sa.column("job_id"), sa.column("spec"), sa.column("blob_sha256"))
    after = 0
    while True:
        query = sa.select(job.c.job_id, job.c.spec).where(job.c.job_id > after)
        page = connection.execute(query.order_by(job.c.job_id).limit(PAGE)).all()
        if not page:
            return
        after = page[-1].job_id
        for job_id, spec in page:
            where = json.loads(spec).get("working_dir") if '"sha256"' in spec else None
            if isinstance(where, dict) and "sha256" in where:
                change = job.update().where(job.c.job_id == job_id)
                connection.execute(change.values(blob_sha256=where["sha256"]))

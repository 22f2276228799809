"""Arrays of tasks, and what may be changed of a job: held, its time limit, its priority class."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from controlplane.model.quantity import parse_duration

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it: a job of before has one task, which was placed if it has a row."""
    name = sa.String(collation="C") if op.get_bind().dialect.name == "postgresql" else None
    for column, kind, default, comment in (
        ("submitted_seq", sa.BigInteger(), "0", "event that tells of its submit"),
        ("priority_class", name or sa.String(63), "", "empty: as in spec"),
        ("held_by", name or sa.String(255), "", None),
        ("begun", sa.Integer(), "0", "tasks, in order, that were placed or ended"),
        ("skipped", sa.Text(), "[]", "JSON list: later ones that were cancelled"),
        ("running", sa.Integer(), "0", "tasks of which an attempt lives"),
        ("succeeded", sa.Integer(), "0", "tasks"),
        ("failed", sa.Integer(), "0", "tasks"),
        ("cancelled", sa.Integer(), "0", "tasks"),
    ):
        op.add_column(
            "job", sa.Column(column, kind, nullable=False, server_default=default, comment=comment)
        )
    op.add_column("job", sa.Column("time_limit_us", sa.BigInteger(), comment="null: none"))
    op.add_column(
        "attempt",
        sa.Column(
            "requeue",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="1: ended so that its task starts again",
        ),
    )
    op.execute("UPDATE job SET begun = 1 WHERE job_id IN (SELECT job_id FROM task)")
    op.execute("UPDATE job SET running = 1 WHERE state = 'active'")
    for state in ("succeeded", "failed", "cancelled"):
        op.execute(f"UPDATE job SET begun = 1, {state} = 1 WHERE state = '{state}'")
    _keep_time_limits()


def _keep_time_limits() -> None:
    job = sa.table(
        "job", sa.column("job_id"), sa.column("spec"), sa.column("time_limit_us", sa.BigInteger())
    )
    limited = sa.select(job.c.job_id, job.c.spec).where(job.c.spec.like('%"time_limit"%'))
    connection = op.get_bind()
    for job_id, spec in connection.execute(limited).all():
        limit = json.loads(spec).get("time_limit")
        if limit is not None:
            changed = sa.update(job).where(job.c.job_id == job_id)
            connection.execute(changed.values(time_limit_us=parse_duration(limit)))

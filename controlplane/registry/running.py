"""What runs, as a scheduling decision sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model.job import AttemptState
from controlplane.model.view import Part, Running
from controlplane.registry.preempting import asked_to_save, deadline_us

if TYPE_CHECKING:
    from controlplane.model.job import Attempt, Job
    from controlplane.model.lease import Lease
    from controlplane.model.progress import Progress
    from controlplane.model.view import Shape

KILLED_US = 10_000_000
"""After its grace period whatever does not end is killed, and gone within this time."""


def running_of(
    job: Job, attempt: Attempt, leases: list[Lease], shape: Shape, told: Progress | None
) -> Running:
    """An attempt that lives. `told`: what it reported of its progress."""
    grace_us = job.spec.grace_period_us + KILLED_US
    placed = attempt.created_us
    until_us: int | None = None
    asked = asked_to_save(attempt)
    if attempt.state is AttemptState.STOPPING:
        until_us = (attempt.stopped_us or placed) + grace_us
    elif asked is not None:
        until_us = deadline_us(job, asked) + grace_us
    elif job.time_limit_us is not None:
        until_us = (attempt.started_us or placed) + job.time_limit_us + grace_us
    saved = told.checkpoint.time_us if told is not None and told.checkpoint is not None else placed
    return Running(
        job_id=job.job_id,
        task_index=attempt.task_index,
        attempt=attempt.number,
        owner=job.owner,
        account=job.account,
        priority=job.priority,
        preemptible=False,
        shape=shape,
        parts=tuple(map(part_of, leases)),
        created_us=job.created_us,
        placed_us=placed,
        until_us=until_us,
        saved_us=max(saved, placed),
        stopping=attempt.state is AttemptState.STOPPING or asked is not None,
    )


def part_of(lease: Lease) -> Part:
    """A lease, as a part of a placement."""
    return Part(
        node_uuid=lease.node_uuid,
        workers=lease.workers,
        device_ids=lease.device_ids,
        cpu_ids=lease.cpu_ids,
        cpu_millicores=lease.cpu_millicores,
        memory_bytes=lease.memory_bytes,
        ports=lease.ports,
    )

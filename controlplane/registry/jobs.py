"""Commands of users: submit and cancel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controlplane.model.errors import NotFound
from controlplane.model.job import AttemptState, Cause, CauseKind, Job, JobState
from controlplane.model.lease import LeasePhase
from controlplane.registry import attempts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.spec import JobSpec
    from controlplane.registry.draft import Draft


def submit(draft: Draft, spec: JobSpec, spec_sha256: str, priority: int) -> Job:
    """Accept a job."""
    job_id = draft.next_job_id()
    seq = draft.emit(
        "job.submitted",
        f"jobs/{job_id}",
        {"name": spec.name, "spec_sha256": spec_sha256, "state": JobState.PENDING},
    )
    job = Job(
        job_id=job_id,
        spec=spec,
        spec_sha256=spec_sha256,
        owner=draft.actor.principal,
        priority=priority,
        created_us=draft.now_us,
        revision=seq,
    )
    draft.jobs[job_id] = job
    return job


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What a cancel did."""

    cancelled: tuple[int, ...]
    """Jobs that are being ended, or have ended by it."""
    already_ended: tuple[int, ...]
    """Jobs that had ended before."""


def cancel(draft: Draft, job_ids: Iterable[int]) -> Cancelled:
    """End jobs. NotFound, and nothing done, when there never was one of them.

    Numbers are given out without gaps, so one that was given out and does not live any more has
    ended.
    """
    cancelled, already = [], []
    for job_id in dict.fromkeys(job_ids):
        job = draft.jobs.get(job_id)
        if not 1 <= job_id <= draft.cluster.last_job_id:
            raise NotFound(f"jobs/{job_id}: there is no such job")
        if job is None or job.state.final:
            already.append(job_id)
            continue
        _cancel(draft, job)
        cancelled.append(job_id)
    return Cancelled(cancelled=tuple(cancelled), already_ended=tuple(already))


def _cancel(draft: Draft, job: Job) -> None:
    if job.cancelled_by:
        return
    who = draft.actor.principal
    reason = f"cancelled by {who}"
    seq = draft.emit("job.cancelled", job.name, {"state": job.state})
    job = replace(job, cancelled_by=who, revision=seq)
    draft.jobs[job.job_id] = job
    task = draft.tasks.get((job.job_id, 0))
    if job.state is JobState.PENDING:
        if task is not None:
            draft.tasks[task.job_id, task.index] = replace(task, state=JobState.CANCELLED)
        draft.jobs[job.job_id] = replace(
            job, state=JobState.CANCELLED, reason=reason, exit_code=130, ended_us=draft.now_us
        )
        return
    if task is None:
        raise AssertionError(f"{job.name} is active without a task")
    attempt = draft.attempts[job.job_id, task.index, task.attempts]
    if attempt.state is AttemptState.STOPPING:
        return
    cause = Cause(kind=CauseKind.USER, message=reason)
    attempt = attempts.stop(draft, attempt, AttemptState.CANCELLED, cause)
    draft.attempts[attempt.key] = attempt
    if all(draft.leases[i].phase is LeasePhase.ENDED for i in attempt.lease_ids):
        attempts.close(draft, attempt)
        return
    for lease_id in attempt.lease_ids:
        draft.turn(draft.leases[lease_id].node_uuid)

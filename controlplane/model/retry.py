"""What becomes of a task when an attempt of it has ended: pure arithmetic on faults and limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controlplane.model.job import Attempt, AttemptState, CauseKind, Job, JobState, Task

MAX_INFRASTRUCTURE_FAULTS = 4
"""So many attempts may end by the infrastructure's fault; a job whose every attempt kills its node
gets no fifth."""
FIRST_BACKOFF_US = 1_000_000
"""Wait after the first fault; doubles with each further one."""
LONGEST_BACKOFF_US = 300_000_000
"""No wait is longer."""


MAX_QUICK_REQUEUES = 100
"""So many attempts in a row may ask for a requeue after a run of less than `SETTLED_US`: a program
that does nothing but ask is ended."""
SETTLED_US = 600_000_000
"""An attempt that ran for so long begins a new row. So a job is requeued at most 101 times in any
10 minutes, and for ever no faster than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a task."""

    task: Task
    """The task as it is from now on."""
    reason: str
    """Why it ended, or why it waits for another attempt, in words."""


def judge(job: Job, task: Task, attempt: Attempt, now_us: int) -> Verdict:
    """The verdict on a task whose attempt has ended."""
    cause = attempt.cause
    told = cause.message if cause is not None else "every worker ended with exit code 0"
    if attempt.state is AttemptState.SUCCEEDED:
        return Verdict(task=replace(task, state=JobState.SUCCEEDED), reason=told)
    if job.cancelled_by or (attempt.state is AttemptState.CANCELLED and not attempt.requeue):
        if attempt.state is not AttemptState.CANCELLED:
            # It was on its way to another end when somebody cancelled it: both are told.
            told = f"cancelled by {job.cancelled_by}; before that, {told}"
        return Verdict(task=replace(task, state=JobState.CANCELLED), reason=told)
    if attempt.requeue:
        return Verdict(
            task=replace(task, state=JobState.PENDING, not_before_us=0),
            reason=f"attempt {attempt.number} ended: {told}",
        )
    if asks_for_requeue(job, attempt):
        return _requeued(task, attempt, told)
    kind = cause.kind if cause is not None else CauseKind.APPLICATION
    if kind is CauseKind.APPLICATION:
        task = replace(task, application_faults=task.application_faults + 1)
        again = task.application_faults < job.spec.max_attempts
        count = task.application_faults
    elif kind is CauseKind.INFRASTRUCTURE:
        task = replace(task, infrastructure_faults=task.infrastructure_faults + 1)
        again = task.infrastructure_faults < MAX_INFRASTRUCTURE_FAULTS
        count = task.infrastructure_faults
        if not again:
            told += f" ({count} attempts ended by faults of the infrastructure: no further one)"
    else:
        again, count = False, 0
    if not again:
        return Verdict(task=replace(task, state=JobState.FAILED), reason=told)
    wait_us = min(FIRST_BACKOFF_US << (count - 1), LONGEST_BACKOFF_US)
    return Verdict(
        task=replace(task, state=JobState.PENDING, not_before_us=now_us + wait_us),
        reason=f"attempt {attempt.number} ended: {told}; "
        f"the next one may start after {wait_us // 1_000_000} s",
    )


def capped(task: Task, now_us: int) -> Task:
    """The task with a wait that is no longer than it was meant to be: a control plane that starts
    anew may find the clock set back."""
    whole_us = task.not_before_us - (task.released_us or 0)
    return replace(task, not_before_us=min(task.not_before_us, now_us + max(0, whole_us)))


def asks_for_requeue(job: Job, attempt: Attempt) -> bool:
    """Whether the first worker that failed did so with a code by which its program asks to be
    started again."""
    cause = attempt.cause
    return (
        attempt.state is AttemptState.FAILED
        and cause is not None
        and cause.exit_code in job.spec.requeue_exit_codes
    )


def _requeued(task: Task, attempt: Attempt, told: str) -> Verdict:
    """Another attempt at once, which counts against nothing but the cap on quick ones."""
    began_us, ended_us = attempt.started_us, attempt.ended_us
    settled = began_us is not None and ended_us is not None and ended_us - began_us >= SETTLED_US
    quick = 0 if settled else task.quick_requeues + 1
    task = replace(task, quick_requeues=quick)
    if quick > MAX_QUICK_REQUEUES:
        words = (
            f" ({MAX_QUICK_REQUEUES} attempts in a row were started again for it, none of which"
            f" ran for {SETTLED_US // 60_000_000} min: no further one)"
        )
        return Verdict(task=replace(task, state=JobState.FAILED), reason=told + words)
    return Verdict(
        task=replace(task, state=JobState.PENDING, not_before_us=0),
        reason=f"attempt {attempt.number} ended: {told}; the next one may start at once",
    )

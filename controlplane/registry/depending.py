"""What jobs wait for of others: looked at when they are submitted, and settled in the commit in
which what they wait for ends.

A job waits for jobs that were there before it, so that no circle can be made. Of what lives all is
known here; of what had ended before, the submit brings what the store knows (`Past`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from controlplane.model.dependencies import PAIRS, Dependency, DependencyKind, key_of
from controlplane.model.errors import ControlPlaneError, FieldFault, InvalidRequest
from controlplane.model.job import NEVER_US, Job, JobState, Task, passed
from controlplane.registry.which import Which, over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.registry.draft import Draft


class Past(NamedTuple):
    """How a job ended, as the store knows it."""

    state: JobState
    """Its own end."""
    tasks: Mapping[int, JobState]
    """Ends of those of its tasks that were asked for; one that is not here was never made."""

    def task(self, index: int) -> JobState:
        """How a task ended."""
        return self.tasks.get(index, JobState.CANCELLED)


class Unread(ControlPlaneError):
    """A job that is waited for has ended, and the command was not told how: read it, and try the
    command again."""


def begun(draft: Draft, job: Job, pasts: Mapping[int, Past]) -> Job:
    """A job that is being submitted, with what is settled already of what it waits for. Unread for
    a past that is not here. InvalidRequest where that cannot be told now."""
    for number, dependency in enumerate(job.spec.depends_on):
        try:
            job = _first_look(draft, job, dependency, pasts)
        except InvalidRequest as error:
            field = f"depends_on[{number}]"
            raise InvalidRequest(*(replace(each, field=field) for each in error.faults)) from None
    for dependency in job.waits_for:
        draft.depending.append((dependency, job.job_id))
    return job


def _first_look(draft: Draft, job: Job, dependency: Dependency, pasts: Mapping[int, Past]) -> Job:
    other = draft.jobs.get(dependency.job_id)
    past = pasts.get(dependency.job_id)
    if other is None and past is None:
        raise Unread(f"jobs/{dependency.job_id} has ended")
    if dependency.kind is DependencyKind.AFTER_CORR:
        ends = {}
        for position in range(len(job.tasks)):
            index = job.tasks.at(position)
            ends[index] = _state(draft, other, past, dependency, index)
        return _paired(draft, replace(job, waits_for=(*job.waits_for, dependency)), ends)
    state = _state(draft, other, past, dependency, dependency.task_index)
    if not state.final:
        return replace(job, waits_for=(*job.waits_for, dependency))
    return job if dependency.met_by(state) else _doomed(job, dependency.never(state))


def _state(
    draft: Draft, other: Job | None, past: Past | None, dependency: Dependency, index: int | None
) -> JobState:
    """Where a job that is waited for stands, or a task of it."""
    if other is None and past is not None:
        return past.state if index is None else past.task(index)
    assert other is not None
    if index is None or other.state.final:
        return other.state if index is None else _task_of_ended(draft, other, index)
    if (task := draft.tasks.get((other.job_id, index))) is not None:
        return task.state
    if not over(draft, other, index):
        return JobState.PENDING
    if other.cancelled_by:  # it may have ended before that, or never have been made
        words = f'"{dependency}": {other.name} is being cancelled; try again when it has ended'
        raise InvalidRequest(FieldFault(field="depends_on", description=words))
    return draft.ill(other.job_id).get(index, JobState.SUCCEEDED)


def _task_of_ended(draft: Draft, other: Job, index: int) -> JobState:
    """How a task of a job ended that ends in this very commit."""
    task = draft.tasks.get((other.job_id, index))
    if task is not None:
        return task.state
    found = draft.ill(other.job_id).get(index)
    return found or (JobState.CANCELLED if other.cancelled_by else JobState.SUCCEEDED)


def task_ended(draft: Draft, job: Job, index: int, state: JobState) -> None:
    """Settle what waits for a task that has ended; its job is that of the draft."""
    for number in draft.waiters(job.job_id, index):
        _settle(draft, number, index, job.job_id, state)
    for number in draft.waiters(job.job_id, PAIRS):
        _settle_pairs(draft, number, job.job_id, {index: state})


def job_ended(draft: Draft, job: Job) -> None:
    """Settle what waits for a job that has ended, or still waits for tasks of it: these were never
    made."""
    for key in draft.waited_for(job.job_id):
        for number in draft.waiters(job.job_id, key):
            if key == PAIRS:
                _settle_pairs(draft, number, job.job_id, None)
            else:
                state = job.state if key is None else JobState.CANCELLED
                _settle(draft, number, key, job.job_id, state)


def _settle(draft: Draft, number: int, key: int | None, ended: int, state: JobState) -> None:
    waiter = draft.jobs.get(number)
    if waiter is None or waiter.state.final:
        return
    for dependency in waiter.waits_for:
        if (dependency.job_id, key_of(dependency)) != (ended, key):
            continue
        left = tuple(each for each in waiter.waits_for if each != dependency)
        waiter = replace(waiter, waits_for=left)
        if not dependency.met_by(state):
            waiter = _doomed(waiter, dependency.never(state))
        seq = _tell(draft, waiter.name, dependency, state)
        draft.jobs[number] = waiter = replace(waiter, revision=seq)


def _settle_pairs(
    draft: Draft, number: int, ended: int, ends: Mapping[int, JobState] | None
) -> None:
    """`ends`: how tasks ended; None for all that are left, which were never made."""
    waiter = draft.jobs.get(number)
    if waiter is None or waiter.state.final or not waiter.unmade:
        return
    if ends is None:
        ends = dict.fromkeys(waiter.coming(), JobState.CANCELLED)
    ends = {index: state for index, state in ends.items() if waiter.has_unmade(index)}
    if not ends:
        return
    pairs = [d for d in waiter.waits_for if (d.job_id, key_of(d)) == (ended, PAIRS)]
    if not pairs:
        return
    index, state = next(iter(ends.items()))
    name = waiter.name if len(ends) > 1 else str(Which(number, index))
    seq = _tell(draft, name, pairs[0], state)
    draft.jobs[number] = replace(_paired(draft, waiter, ends), revision=seq)


def _tell(draft: Draft, waiter: str, dependency: Dependency, state: JobState) -> int:
    told = {"dependency": str(dependency), "state": state.value}
    if dependency.met_by(state):
        return draft.emit("dependency.met", waiter, told)
    return draft.emit("dependency.failed", waiter, told)


def _paired(draft: Draft, job: Job, ends: Mapping[int, JobState]) -> Job:
    """A job whose tasks wait for those of another, by how these ended: a task that may start, or
    never can, is made."""
    if all(state is JobState.SUCCEEDED for state in ends.values()) and len(ends) == job.unmade:
        return replace(job, waits_for=_without_pairs(job))
    for index, state in ends.items():
        if state.final:
            never = 0 if state is JobState.SUCCEEDED else NEVER_US
            draft.tasks[job.job_id, index] = Task(
                job_id=job.job_id, index=index, state=JobState.PENDING, not_before_us=never
            )
            job = passed(job, index)
    return job if job.unmade else replace(job, waits_for=_without_pairs(job))


def _without_pairs(job: Job) -> tuple[Dependency, ...]:
    return tuple(each for each in job.waits_for if key_of(each) != PAIRS)


def _doomed(job: Job, why: str) -> Job:
    return replace(job, doomed=job.doomed or why)

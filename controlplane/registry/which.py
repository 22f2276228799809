"""Jobs and tasks that a command names."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from controlplane.model.errors import FieldFault, InvalidRequest, NotFound, WrongState

if TYPE_CHECKING:
    from controlplane.model.job import Job, Task
    from controlplane.registry.draft import Draft


class Which(NamedTuple):
    """A job, or one task of it."""

    job_id: int
    """The job."""
    task: int | None = None
    """Index of the task; None for all of the job."""

    def __str__(self) -> str:
        """Resource name."""
        name = f"jobs/{self.job_id}"
        return name if self.task is None else f"{name}/tasks/{self.task}"

    @property
    def short(self) -> str:
        """As people write it to `ccctl`."""
        return str(self.job_id) if self.task is None else f"{self.job_id}_{self.task}"


def known(draft: Draft, which: Which) -> Job | None:
    """A job that lives; None for one that has ended. NotFound when there never was one, or no such
    task of it.

    Numbers are given out without gaps, so one that was given out and does not live any more has
    ended.
    """
    if not 1 <= which.job_id <= draft.cluster.last_job_id:
        raise NotFound(f"jobs/{which.job_id}: there is no such job")
    job = draft.jobs.get(which.job_id)
    if job is None or job.state.final:
        return None
    if which.task is not None and job.tasks.position(which.task) is None:
        raise NotFound(f"{which}: the job has no such task; its tasks are {job.tasks}")
    return job


def over(draft: Draft, job: Job, index: int | None) -> bool:
    """Whether a task of a job that lives has ended; not for None, which is the whole job."""
    if index is None:
        return False
    task = draft.tasks.get((job.job_id, index))
    if task is not None:
        return task.state.final
    position = job.tasks.position(index)
    return index in job.skipped or (position is not None and position < job.begun)


def living(draft: Draft, which: Which, what: str) -> Job:
    """A job that lives. WrongState when it has ended, or the task of it; `what` cannot be done."""
    job = known(draft, which)
    if job is None or over(draft, job, which.task):
        raise WrongState(f"{which} has ended, and cannot be {what} any more; submit it again")
    return job


def one_task(draft: Draft, which: Which, words: str) -> tuple[Job, Task | None]:
    """The one task that is meant of a job; None in its place where it was never placed.

    WrongState, with `words` on what that means, when it has ended. InvalidRequest for a whole
    array.
    """
    job = known(draft, which)
    if job is None:
        raise WrongState(f"{which} has ended: {words}")
    if which.task is None and len(job.tasks) > 1:
        first = next(iter(sorted(draft.live_tasks(which.job_id))), job.tasks.at(0))
        told = f"{which} is an array: name one of its tasks, e.g. {Which(which.job_id, first)}"
        raise InvalidRequest(FieldFault(field="name", description=told))
    index = job.tasks.at(0) if which.task is None else which.task
    if over(draft, job, index):
        raise WrongState(f"{which} has ended: {words}")
    return job, draft.tasks.get((which.job_id, index))

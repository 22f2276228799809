"""What a submitted job waits for of others: whether its owner may name them, and how those ended
that live no more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.dependencies import PAIRS, key_of
from controlplane.model.errors import FieldFault, InvalidRequest, NotFound
from controlplane.registry.depending import Past
from controlplane.service.auth import CALLER
from controlplane.service.permissions import GET_JOB, may

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.model.dependencies import Dependency
    from controlplane.model.job import Job, JobState
    from controlplane.model.tasks import TaskSet
    from controlplane.registry.jobs import Wanted
    from controlplane.service.context import House

PAGE = 1000
"""Tasks that are read at once."""


def looked_up(house: House, wanted: Wanted) -> Wanted:
    """With the pasts of the jobs that it waits for. InvalidRequest with each dependency that cannot
    be. May read the store."""
    spec, registry = wanted.spec, house.registry
    numbers = list(dict.fromkeys(each.job_id for each in spec.depends_on))
    live = registry.live_jobs(numbers)
    ended = registry.store.jobs_of([number for number in numbers if number not in live])
    faults: list[FieldFault] = []
    pasts: dict[int, Past] = {}
    for place, each in enumerate(spec.depends_on):
        other = live.get(each.job_id) or ended.get(each.job_id)
        words = _complaint(house, each, other, wanted)
        if words:
            told = f'"{each}": {words}'
            faults.append(FieldFault(field=f"depends_on[{place}]", description=told))
        elif each.job_id in ended:
            past = pasts.get(each.job_id) or Past(ended[each.job_id].state, {})
            tasks = dict(past.tasks) | dict(_ends(house, each))
            pasts[each.job_id] = past._replace(tasks=tasks)
    if faults:
        raise InvalidRequest(*faults)
    return wanted._replace(pasts=pasts)


def _complaint(house: House, each: Dependency, other: Job | None, wanted: Wanted) -> str:
    if other is None:
        if each.job_id > house.registry.last_job_id:
            return (
                f"jobs/{each.job_id} is not there yet, and a job waits for earlier ones alone;"
                f" the last one is jobs/{house.registry.last_job_id}"
            )
        missing: NotFound = house.registry.missing(each.job_id)
        return str(missing)
    if not may(CALLER.get(), GET_JOB, other.owner):
        return f"jobs/{each.job_id} is {other.owner}'s, and you may not see it"
    if each.task_index is not None and other.tasks.position(each.task_index) is None:
        return f"{other.name} has no such task; its tasks are {other.tasks}"
    if key_of(each) == PAIRS:
        return _without_pair(wanted.spec.tasks, other)
    return ""


def _without_pair(tasks: TaskSet | None, other: Job) -> str:
    if tasks is None:
        return ""
    for position in range(len(tasks)):
        index = tasks.at(position)
        if other.tasks.position(index) is None:
            return (
                f"{other.name} has no task {index} that task {index} could wait for; its tasks"
                f" are {replace(other.tasks, at_once=None)}"
            )
    return ""


def _ends(house: House, each: Dependency) -> Iterator[tuple[int, JobState]]:
    """How the tasks of a job that has ended did that are waited for."""
    store = house.registry.store
    if each.task_index is not None:
        record = store.job(each.job_id, each.task_index)
        yield from ((task.index, task.state) for task in (record.tasks if record else ()))
    after, more = -1, key_of(each) == PAIRS
    while more:
        page = store.tasks(each.job_id, states=(), after=after, limit=PAGE).tasks
        yield from ((task.index, task.state) for task in page)
        more = len(page) == PAGE
        after = page[-1].index if page else after

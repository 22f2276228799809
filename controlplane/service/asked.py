"""Which jobs a request names, and whether its caller may do this to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.model.tasks import LAST_INDEX
from controlplane.registry.which import Which
from controlplane.service.auth import CALLER
from controlplane.service.permissions import RPC, may_job, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.job import Job
    from controlplane.service.context import House

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
"""Entries of a page."""
MOST_TOLD = 100
"""Names of jobs in one refusal; of more it tells how many there are."""


async def asked(house: House, name: str, field: str = "name") -> Which:
    """The job or task that a request names. NotFound when there is no such job, NotAllowed when
    the caller may not do this to it."""
    which = which_of(name, field)
    await all_mine(house, [which.job_id])
    return which


async def all_mine(house: House, numbers: Iterable[int]) -> None:
    """NotFound when one of these jobs is not there. NotAllowed, with the names of all of them, for
    those that the caller may not do this to."""
    wanted = dict.fromkeys(numbers)
    owners = house.registry.live_owners(wanted)
    ended = [number for number in wanted if number not in owners]
    if ended:
        owners |= await asyncio.to_thread(house.registry.store.owners, ended)
    for number in wanted:
        if number not in owners:
            raise house.registry.missing(number)
    caller, rpc = CALLER.get(), RPC.get()
    foreign = [n for n in wanted if not may_job(house.registry, caller, rpc, owners[n])]
    if foreign:
        told = ", ".join(f"jobs/{number}" for number in foreign[:MOST_TOLD])
        more = f" and {len(foreign) - MOST_TOLD} more" if len(foreign) > MOST_TOLD else ""
        raise refusal(caller, rpc, told + more)


def job_number(name: str, field: str = "name") -> int:
    """The number of `jobs/123`. InvalidRequest for any other name."""
    number = decimal(name.removeprefix("jobs/"))
    if number is None:
        words = f"{name[:80]!r} is no job's name; write jobs/123"
        raise InvalidRequest(FieldFault(field=field, description=words))
    return number


def which_of(name: str, field: str = "name") -> Which:
    """The job or task that is called `jobs/123` or `jobs/123/tasks/4`. InvalidRequest for any other
    name."""
    job, _, task = name.removeprefix("jobs/").partition("/tasks/")
    number, index = decimal(job), decimal(task)
    plain = "/" not in name.removeprefix("jobs/")
    if number is None or (index is None and not plain) or (index or 0) > LAST_INDEX:
        words = f"{name[:80]!r} is no job's name; write jobs/123, or jobs/123/tasks/4"
        raise InvalidRequest(FieldFault(field=field, description=words))
    return Which(number, index)


def of_one_task(which: Which, job: Job, field: str = "name") -> None:
    """InvalidRequest for a whole array, where one task must be meant."""
    if which.task is None and len(job.tasks) > 1:
        words = f"{which} is an array: name one of its tasks, e.g. {which}/tasks/{job.tasks.at(0)}"
        raise InvalidRequest(FieldFault(field=field, description=words))


def decimal(text: str) -> int | None:
    """A number of at most 18 digits; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def page_size(wanted: int) -> int:
    """How many entries a page holds. InvalidRequest for a negative number."""
    if wanted < 0:
        words = f"{wanted}: must not be negative; at most {LARGEST_PAGE}"
        raise InvalidRequest(FieldFault(field="page_size", description=words))
    return min(wanted or DEFAULT_PAGE, LARGEST_PAGE)

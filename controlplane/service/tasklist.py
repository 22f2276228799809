"""The tasks of a job, as a list."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest
from controlplane.service.asked import decimal, page_size
from controlplane.v1 import job_service_pb2 as pb
from controlplane.wire.jobs import JOB_STATES, task_message

if TYPE_CHECKING:
    from controlplane.registry.which import Which
    from controlplane.service.context import House


async def list_tasks(
    house: House, which: Which, request: pb.ListTasksRequest
) -> pb.ListTasksResponse:
    """A page of them."""
    try:
        states = frozenset(JOB_STATES.into(state) for state in request.states)
    except ValueError as error:
        raise InvalidRequest(FieldFault(field="states", description=str(error))) from None
    after = decimal(request.page_token)
    if request.page_token and after is None:
        words = "is none of this server's; use the next_page_token of the answer before"
        raise InvalidRequest(FieldFault(field="page_token", description=words))
    limit = page_size(request.page_size)
    record = await asyncio.to_thread(
        house.registry.store.tasks,
        which.job_id,
        states=states,
        after=-1 if after is None else after,
        limit=limit + 1,
    )
    tasks, more = record.tasks[:limit], len(record.tasks) > limit
    names = house.registry.node_names()
    last = {(a.task_index, a.number): a for a in record.attempts}
    return pb.ListTasksResponse(
        tasks=[
            task_message(task, last.get((task.index, task.attempts)), record.leases, names)
            for task in tasks
        ],
        next_page_token=str(tasks[-1].index) if more else "",
    )

"""What workers report of their progress: taken in from agents, and shown as a series."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest, NotFound
from controlplane.registry import progress as commands
from controlplane.service.asked import of_one_task
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.v1 import job_service_pb2 as jobs_pb
from controlplane.wire.progress import lease_progress_value, point_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.event import Actor
    from controlplane.model.lease import Lease
    from controlplane.model.progress import LeaseProgress
    from controlplane.registry.which import Which
    from controlplane.service.context import House

MOST_LEASES = 1000
"""Leases in one call."""


def lease_progress(request: pb.ShipProgressRequest) -> list[LeaseProgress]:
    """What a call tells. InvalidRequest for what no agent would send."""
    if len(request.leases) > MOST_LEASES:
        words = f"{len(request.leases)} of them; at most {MOST_LEASES} in one call"
        raise InvalidRequest(FieldFault(field="leases", description=words))
    found = []
    for number, message in enumerate(request.leases):
        try:
            found.append(lease_progress_value(message))
        except ValueError as error:
            fault = FieldFault(field=f"leases[{number}]", description=str(error))
            raise InvalidRequest(fault) from None
    return found


def is_of(told: LeaseProgress, lease: Lease) -> bool:
    """Whether the ranks that are told of run under the lease."""
    ranks = range(lease.first_rank, lease.first_rank + lease.workers)
    saved = told.checkpoint
    return (told.rank is None or told.rank in ranks) and (saved is None or saved.rank in ranks)


async def take_in(house: House, actor: Actor, told: Iterable[tuple[Lease, LeaseProgress]]) -> None:
    """Keep what leases tell: the newest in the registry, and their points in the series."""
    news = [(lease.attempt_key, each) for lease, each in told]
    if not news:
        return
    missing = {key for key, _ in news if not house.registry.knows_progress(key)}
    past: dict[commands.Key, commands.Past] = {}
    for key in missing:
        with suppress(NotFound):  # of a job that has been removed nothing more is kept
            record = await asyncio.to_thread(house.registry.job, key[0], key[1])
            past[key] = commands.Past(
                progress=record.progress.get(key), ended_us=record.job.ended_us
            )
    after = await house.write(lambda draft: commands.take_in(draft, news, past), actor)
    for key, each in news:
        # A higher rank than counts is none of the series'; the store knows no better.
        if each.rank is not None and key in after and each.rank == after[key].rank:
            await asyncio.to_thread(house.series.append, key, each.rank, each.points)


async def metrics(
    house: House, which: Which, request: jobs_pb.GetMetricsRequest
) -> jobs_pb.GetMetricsResponse:
    """The series of an attempt. NotFound when there is no such attempt."""
    record = await asyncio.to_thread(house.registry.job, *which)
    of_one_task(which, record.job)
    wanted = [a for a in record.attempts if request.attempt in (0, a.number)]
    if not wanted:
        if request.attempt:
            raise NotFound(f"{which} has no attempt {request.attempt}")
        return jobs_pb.GetMetricsResponse()
    attempt = wanted[-1]
    rank, series = await asyncio.to_thread(house.series.read, attempt.key)
    return jobs_pb.GetMetricsResponse(
        attempt=attempt.name,
        rank=rank,
        stride=series.stride,
        points=[point_message(point) for point in series.all],
    )

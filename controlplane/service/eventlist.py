"""Which events a caller asks for and may see, and their pages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from controlplane.model.errors import FieldFault, InvalidRequest, NotAllowed
from controlplane.service.asked import asked, decimal, page_size
from controlplane.service.auth import CALLER
from controlplane.service.permissions import RPC, Reach, reach
from controlplane.v1 import job_service_pb2 as pb
from controlplane.wire.basics import from_timestamp
from controlplane.wire.jobs import event_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.model.event import Event
    from controlplane.registry.store import EventPage, Store
    from controlplane.service.context import House

MOST_KINDS = 100
"""Kinds that a watch may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events somebody asks for."""

    resource: str
    """Resource name that they tell of, with its parts; empty for all."""
    submitted: int
    """For a whole job, the event that tells of its submit, which may be one of several jobs; 0
    else."""
    of_job: bool
    """Whether they are of a job: then all of them are kept as long as it is."""
    kinds: tuple[str, ...] = ()
    """Kinds, or nouns of kinds; empty for all."""

    @property
    def everything(self) -> bool:
        """Whether it asks for all events."""
        return not self.resource and not self.kinds

    def takes(self, event: Event) -> bool:
        """Whether it asks for an event."""
        return self._of(event) and (not self.kinds or self._kind(event.kind))

    def _of(self, event: Event) -> bool:
        name = self.resource
        return (
            not name
            or event.resource == name
            or event.resource.startswith(f"{name}/")
            or event.seq == self.submitted
        )

    def _kind(self, kind: str) -> bool:
        return kind in self.kinds or kind.partition(".")[0] in self.kinds


async def wanted(house: House, resource: str, kinds: tuple[str, ...] = ()) -> Wanted:
    """What a caller asks for. NotAllowed unless they may see it, NotFound for a job that there is
    not."""
    if len(kinds) > MOST_KINDS:
        words = f"{len(kinds)} are named; at most {MOST_KINDS} are allowed"
        raise InvalidRequest(FieldFault(field="kinds", description=words))
    name, _, part = resource.removeprefix("jobs/").partition("/")
    if resource.startswith("jobs/") and decimal(name) is not None:
        which = await asked(house, f"jobs/{name}")
        submitted = 0
        if not part:
            record = await asyncio.to_thread(house.registry.job, which.job_id)
            submitted = record.job.submitted_seq
        return Wanted(resource=resource, submitted=submitted, of_job=True, kinds=kinds)
    caller = CALLER.get()
    if reach(caller, RPC.get()) is not Reach.ALL:
        raise NotAllowed(
            f"{caller.name} has the role {caller.role}, which sees events of its own jobs"
            " alone; name one of them, or a part of one, as the resource: jobs/123"
        )
    return Wanted(resource=resource, submitted=0, of_job=False, kinds=kinds)


def page(store: Store, which: Wanted, after: int, limit: int) -> EventPage:
    """Events of a resource after a number, of whatever kind."""
    found = store.event_page(which.resource, after=after, limit=limit)
    submitted = which.submitted
    if after < submitted and (not found.events or found.events[0].seq != submitted):
        # It was submitted with others, which is an event of all of them.
        first = store.events("", after=submitted - 1, limit=1)
        events = [*(e for e in first if e.seq == submitted), *found.events][:limit]
        return replace(found, events=events)
    return found


async def list_events(house: House, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
    """A page of events."""
    which, limit = await wanted(house, request.resource), page_size(request.page_size)
    after = max(request.after_seq, await since(house, request, -1))
    found = await asyncio.to_thread(page, house.registry.store, which, after, limit)
    return pb.ListEventsResponse(events=[event_message(event) for event in found.events])


async def since(house: House, request: Any, default: int) -> int:
    """The number behind which everything has happened at or after a request's `since_time`; the
    default where it has none."""
    try:
        since_us = from_timestamp(request, "since_time")
    except ValueError as error:
        raise InvalidRequest(FieldFault(field="since_time", description=str(error))) from None
    if since_us is None:
        return default
    store, last = house.registry.store, house.registry.seq

    def next_us(after: int) -> int | None:
        first = store.events("", after=after, limit=1)
        return first[0].time_us if first else None

    return await asyncio.to_thread(first_since, next_us, last, since_us)


def first_since(next_us: Callable[[int], int | None], last: int, since_us: int) -> int:
    """The lowest number behind which no event is older than a moment, by few looks: times grow with
    the numbers, but for a clock that was set back. `next_us`: when the first event after a number
    happened."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        found = next_us(middle)
        if found is None or found >= since_us:
            high = middle
        else:
            low = middle + 1
    return low

"""Watches: what follows a position, first from the database, then from the feed of commits.

A position is the number of an event: all up to it was told. So there is no seam between the two
sources, and none between two calls: whichever tells next begins behind the same number.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest, TokenOutOfRange
from controlplane.model.keep import days
from controlplane.registry.memory import matches
from controlplane.registry.store import whose
from controlplane.service import eventlist, watchtoken
from controlplane.service.auth import CALLER
from controlplane.service.feed import Batch, Told
from controlplane.service.filters import job_filter, narrowed
from controlplane.service.permissions import READ_LOGS, may_job
from controlplane.service.room import fitting
from controlplane.service.watchtoken import WatchToken
from controlplane.v1 import job_service_pb2 as pb
from controlplane.wire.jobs import conceal, job_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from controlplane.model.job import Job
    from controlplane.registry.registry import Registry
    from controlplane.registry.store import JobFilter
    from controlplane.service.context import House
    from controlplane.service.eventlist import Wanted
    from controlplane.v1 import job_pb2

PAGE = 500
"""Events, or jobs of the list, in one message."""
JOBS = 200
"""Jobs that have changed in one message."""
BOOKMARK_S, BOOKMARK_EVENTS = 30.0, 1_000
"""Who asks for little is told the position alone so often, or after so many events of others: a
token must not grow old while its watch is alive."""
LAST = 10**18
"""A number above those of all jobs."""
EVERYTHING = eventlist.Wanted(resource="", submitted=0, of_job=False)


async def watch_events(
    house: House, request: pb.WatchEventsRequest
) -> AsyncIterator[pb.WatchEventsResponse]:
    """Tell events one after the other, for ever."""
    which = await eventlist.wanted(house, request.resource, tuple(request.kinds))
    registry, clock = house.registry, house.clock
    if request.token and request.HasField("since_time"):
        words = "says where to begin, and so does the token; leave one of them out"
        raise InvalidRequest(FieldFault(field="since_time", description=words))
    if request.token:
        token = await _resumed(registry, request.token, which)
        place = _Place(which=which, position=token.seq)
    else:
        begin = await eventlist.since(house, request, registry.seq)
        # Of a time before what is kept there is what is kept.
        place = _Place(which=which, position=begin, accepted=registry.events_removed_seq)
    told, told_us = place.position, clock.boot_us()
    yield pb.WatchEventsResponse(token=_token(registry, place.position))
    while True:
        batch = await place.next(house)
        if which.of_job and any(each.event.kind == "records.removed" for each in batch.events):
            await eventlist.wanted(house, request.resource)  # NotFound once it is gone
        wires = [each.wire for each in batch.events if which.everything or which.takes(each.event)]
        if wires or _aged(place.position - told, clock.boot_us() - told_us):
            told, told_us = place.position, clock.boot_us()
            end = pb.WatchEventsResponse(token=_token(registry, told)).SerializeToString()
            yield pb.WatchEventsResponse.FromString(b"".join((*wires, end)))


async def watch_jobs(
    house: House, request: pb.WatchJobsRequest
) -> AsyncIterator[pb.WatchJobsResponse]:
    """Tell the present list of jobs, then changes, for ever."""
    registry, clock = house.registry, house.clock
    which = narrowed(registry, job_filter(request.filter))
    if request.token:
        token = await _resumed(registry, request.token, EVERYTHING)
    else:
        token = WatchToken(cluster=registry.cluster_uuid, seq=registry.seq, before=LAST)
    tell = _Teller(house=house)
    while token.before:
        jobs = await asyncio.to_thread(_listed, registry, which, token.before)
        more = len(jobs) == JOBS
        await house.hub.feed.turn()
        messages = list(fitting(tell.those(jobs, token.seq))) or [[]]
        told_jobs = 0
        for number, part in enumerate(messages, start=1):
            told_jobs += len(part)
            last = number == len(messages) and not more
            token = replace(token, before=0 if last else jobs[told_jobs - 1].job_id)
            yield pb.WatchJobsResponse(jobs=part, token=token.write(), listing=not last)
    place = _Place(which=EVERYTHING, position=token.seq)
    told, told_us = token.seq, clock.boot_us()
    if request.token:
        yield pb.WatchJobsResponse(token=token.write())
    anywhere = replace(which, states=frozenset())
    while True:
        before = place.position
        batch = await place.next(house)
        if batch.stored:
            numbers = sorted({number for each in batch.events for number in each.event.jobs})
            found = await asyncio.to_thread(registry.store.jobs_of, numbers)
        else:
            found = house.hub.feed.changed(before, batch.upto)
        changed = [j for j in found.values() if j.revision > before and matches(anywhere, j)]
        fresh = tell.fresh(changed, batch.upto)
        for i in range(0, len(fresh), JOBS):
            parts = list(fitting(tell.those(fresh[i : i + JOBS], batch.upto)))
            for number, part in enumerate(parts, start=1):
                # Who goes on amid them is told of them again.
                last = i + JOBS >= len(fresh) and number == len(parts)
                at = batch.upto if last else before
                yield pb.WatchJobsResponse(jobs=part, token=_token(registry, at))
        if fresh or _aged(batch.upto - told, clock.boot_us() - told_us):
            told, told_us = batch.upto, clock.boot_us()
            if not fresh:
                yield pb.WatchJobsResponse(token=_token(registry, told))


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where a watch is."""

    which: Wanted
    position: int
    accepted: int = 0
    """What was removed up to this number is not missed."""
    _caught_up: bool = False

    async def next(self, house: House) -> Batch:
        """What follows, in one's turn; waits for it."""
        feed = house.hub.feed
        while True:
            if self._caught_up:
                await feed.wait(self.position)
            await feed.turn()
            batch = feed.after(self.position, PAGE)
            if batch is None:
                batch = await asyncio.to_thread(self._stored, house.registry)
            self._caught_up = len(batch.events) < PAGE
            if batch.upto > self.position:
                self.position = batch.upto
                feed.charge(len(batch.events))
                return batch

    def _stored(self, registry: Registry) -> Batch:
        """What follows, from the database."""
        page = eventlist.page(registry.store, self.which, self.position, PAGE)
        if not self.which.of_job and page.removed_seq > max(self.position, self.accepted):
            raise _gone(registry)
        events = [Told(event=event) for event in page.events]
        return Batch(events=events, upto=page.upto(PAGE), stored=True)


@dataclass(slots=True, kw_only=True)
class _Teller:
    """Makes messages of jobs for one caller, and tells no state of a job twice."""

    house: House
    _ahead: dict[int, int] = field(default_factory=dict)
    """Jobs that were told as they were after the position, by number: their revisions. Empty but
    behind a read of the database."""

    def fresh(self, jobs: Iterable[Job], upto: int) -> list[Job]:
        """Those that were not told so far, in the order of their changes. `upto`: the position."""
        found = [job for job in jobs if self._ahead.get(job.job_id) != job.revision]
        self._ahead = {n: revision for n, revision in self._ahead.items() if revision > upto}
        return sorted(found, key=lambda job: (job.revision, job.job_id))

    def those(self, jobs: Iterable[Job], upto: int) -> list[job_pb2.Job]:
        """Their messages."""
        messages = []
        for job in jobs:
            if job.revision > upto:
                self._ahead[job.job_id] = job.revision
            messages.append(self._message(job))
        return messages

    def _message(self, job: Job) -> job_pb2.Job:
        registry = self.house.registry
        concealed = not may_job(registry, CALLER.get(), READ_LOGS, whose(job))
        known = self.house.hub.feed.messages
        key = (job.job_id, job.revision, concealed)
        if (found := known.get(key)) is None:
            reason = registry.reason(job)
            found = job_message(job, reason, (), {}, {}, {}, {})
            if concealed:
                conceal(found)
            known[key] = found
        return found


def _listed(registry: Registry, which: JobFilter, before: int) -> list[Job]:
    records = registry.store.jobs(which, before=before, limit=JOBS, full=False)
    return [record.job for record in records]


async def _resumed(registry: Registry, text: str, which: Wanted) -> WatchToken:
    """Where a token says to go on. TokenOutOfRange when that cannot be without a gap."""
    token = watchtoken.read(text, registry.cluster_uuid)
    if token.seq > registry.seq:
        # Who was told from the database knows of a commit a moment before memory does.
        read = partial(registry.store.event_page, "", after=token.seq, limit=1)
        there = (await asyncio.to_thread(read)).seq
        if token.seq > there:
            raise TokenOutOfRange(
                f"the token is of event {token.seq}, and there are {there}: the database was put"
                " back to an earlier state; list again, and watch from now on"
            )
    if token.seq < registry.events_removed_seq and not which.of_job:
        raise _gone(registry)
    return token


def _gone(registry: Registry) -> TokenOutOfRange:
    kept = registry.keep.events_us
    words = f"events are kept for {days(kept)}" if kept else "not all events are kept"
    return TokenOutOfRange(
        f"events after this token were removed: {words} (keep_events_days and keep_jobs_days of the"
        " control plane); list again, and watch from now on"
    )


def _aged(events: int, us: int) -> bool:
    """Whether a token is told though nothing else is."""
    return events >= BOOKMARK_EVENTS or (events > 0 and us > BOOKMARK_S * 1_000_000)


def _token(registry: Registry, seq: int) -> str:
    return WatchToken(cluster=registry.cluster_uuid, seq=seq).write()

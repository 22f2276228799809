"""What was committed last, for those who watch: one ring for all of them, whose size is bounded.

Nobody has a queue of their own. A watcher knows the number of the last event that it has told, and
asks for what follows; one that is too slow for the ring reads from the database until it is back.
All of it runs in the event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from controlplane.v1 import job_service_pb2 as pb
from controlplane.wire.jobs import event_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controlplane.model.event import Event
    from controlplane.model.job import Job
    from controlplane.v1 import job_pb2

KEPT = 10_000
"""Events and changed jobs in the ring, together."""
MESSAGE_S = 0.004
"""A message to one watcher keeps the next one waiting for so long, several times what it costs: who
writes comes first. The more watchers there are, the more comes together in each message."""
ENTRY_S = 0.00002
"""And for so long each event or job in it."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """An event that watchers are told of; encoded once for all of them."""

    event: Event
    """The event."""

    @cached_property
    def wire(self) -> bytes:
        """As it travels: a response with this event alone. Responses that are joined are one
        response with the events of all of them."""
        return pb.WatchEventsResponse(events=[event_message(self.event)]).SerializeToString()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What one commit has changed."""

    events: Sequence[Told]
    """Its events, in order; at least one."""
    jobs: Mapping[int, Job]
    """The jobs that it changed, as they are since."""

    @property
    def first(self) -> int:
        """Number of its first event."""
        return self.events[0].event.seq

    @property
    def last(self) -> int:
        """Number of its last event."""
        return self.events[-1].event.seq

    @property
    def weight(self) -> int:
        """What it counts in the ring."""
        return len(self.events) + len(self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What follows a position."""

    events: Sequence[Told]
    """Events, in order."""
    stored: bool = False
    """Whether it is from the database: then the jobs that they changed are there, too."""
    upto: int
    """The position behind it: nothing up to this number is left out."""


class Recent(OrderedDict[tuple[int, int, bool], "job_pb2.Job"]):
    """The messages that were made last."""

    def __init__(self, most: int) -> None:
        """`most`: so many are kept."""
        super().__init__()
        self._most = most

    def __setitem__(self, key: tuple[int, int, bool], value: job_pb2.Job) -> None:
        """Keep one, and forget the oldest of too many."""
        super().__setitem__(key, value)
        while len(self) > self._most:
            self.popitem(last=False)


@dataclass(slots=True)
class Feed:
    """The last commits."""

    kept: int = KEPT
    """How much the ring holds."""
    messages: Recent = field(default_factory=lambda: Recent(KEPT // 10))
    """Jobs as they travel, by number, revision, and whether something is left out for the caller:
    made once for all watchers."""
    _groups: deque[Group] = field(default_factory=deque)
    _told: list[Told] = field(default_factory=list)
    """The events of the groups, one number after the other, behind some that are gone."""
    _gone: int = 0
    """How many of those."""
    _weight: int = 0
    _last: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _next_turn: float = 0.0

    def add(self, group: Group) -> None:
        """Take in a commit, and wake who waits for it."""
        if group.first != self._last + 1:
            # The first one since the start, or of a registry that was read again.
            self._groups.clear()
            self._told.clear()
            self._gone = self._weight = 0
        self._last = group.last
        self._groups.append(group)
        self._told += group.events
        self._weight += group.weight
        while self._weight > self.kept:
            oldest = self._groups.popleft()
            self._weight -= oldest.weight
            self._gone += len(oldest.events)
        if self._gone > self.kept:
            del self._told[: self._gone]
            self._gone = 0
        self._changed.set()
        self._changed = asyncio.Event()

    def after(self, position: int, limit: int) -> Batch | None:
        """What follows a position, at most so many events; None when not all of that is here."""
        if not self._last:
            return None  # nothing was committed since the start
        if position >= self._last:
            return Batch(events=(), upto=position)
        if not self._groups or position < self._groups[0].first - 1:
            return None
        begin = self._gone + position + 1 - self._groups[0].first
        events = self._told[begin : begin + limit]
        return Batch(events=events, upto=events[-1].event.seq)

    def changed(self, position: int, upto: int) -> dict[int, Job]:
        """Jobs that changed behind a position and up to another, of what `after` has just told. Of
        a commit that was cut at `upto` the rest is told with the rest of its events."""
        jobs: dict[int, Job] = {}
        for group in reversed(self._groups):
            if group.last <= position:
                break
            for number, job in group.jobs.items():
                if position < job.revision <= upto:
                    jobs.setdefault(number, job)
        return jobs

    async def wait(self, position: int) -> None:
        """Wait until something follows a position."""
        while self._last <= position:
            await self._changed.wait()

    async def turn(self) -> None:
        """Wait for one's turn to be told something, so that many watchers leave room for calls."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next_turn)
        self._next_turn = at + MESSAGE_S
        if at > now:
            await asyncio.sleep(at - now)

    def charge(self, entries: int) -> None:
        """Say how much a watcher was told in its turn."""
        self._next_turn += entries * ENTRY_S

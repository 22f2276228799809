"""Retention: lets go of ended jobs, what attempts used and events that are kept no longer.

A turn is one small transaction of the registry's writer, so that it delays nobody. What goes is
looked for before, without any lock: what has ended stays as it is. Files of removed jobs follow the
commit; those that a crash left behind are the sweep's (`engine.sweep`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from controlplane.engine.upkeep import COMMIT_S
from controlplane.model.event import CONTROL_PLANE
from controlplane.registry.removal import Doomed, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from controlplane.model.event import Event
    from controlplane.model.keep import Keep
    from controlplane.registry.registry import Registry
    from controlplane.registry.store import Ended, Store

log = logging.getLogger(__name__)

TURN_JOBS, TURN_ROWS = 100, 2_000
"""Of one turn: at most so many jobs, with at most so many workers and events between them. A job
that has more goes alone."""
TURN_USAGES, TURN_EVENTS = 500, 1_000
"""Of one turn: at most so many attempts' usages removed, and events looked at."""
PERIOD_S = 3600.0
"""Looked after at least so often, and more often where something is kept for hours only."""


class JobFiles(Protocol):
    """Files of jobs, in a folder for each."""

    def remove(self, job_id: int) -> None:
        """Remove a job's files, as far as there are any."""


@dataclass(slots=True, kw_only=True)
class Reached:
    """How far retention is. In memory alone: what it passed over, the next start looks at anew."""

    events_seen: int = 0
    """Events up to this number have been removed, or are those of kept jobs and go with them."""


def turn(registry: Registry, files: Iterable[JobFiles], reached: Reached, now_us: int) -> bool:
    """Let go of some of what is kept no longer. Whether there may be more."""
    store, keep = registry.store, registry.keep
    jobs, more_jobs = old_jobs(store, keep, now_us)
    usages = old_usages(store, keep, now_us)
    seen = seen_events(store, keep, reached, now_us)
    events = unowned(seen, store.ends(list(owners(seen))))
    doomed = Doomed(
        jobs=tuple(each.job_id for each in jobs),
        jobs_before_us=now_us - keep.jobs_us if jobs else 0,
        usages=tuple(usages),
        usages_before_us=now_us - keep.usage_us if usages else 0,
        events=tuple(event.seq for event in events),
        events_before_us=now_us - keep.events_us if events else 0,
        events_seq=max([*(e.last_seq for e in jobs), *(e.seq for e in events)], default=0),
    )
    if doomed.told:
        commit(registry, doomed)
        for each in files:
            for number in doomed.jobs:
                each.remove(number)
    if seen:
        reached.events_seen = seen[-1].seq
    return more_jobs or len(usages) == TURN_USAGES or len(seen) == TURN_EVENTS


def commit(registry: Registry, doomed: Doomed) -> None:
    """Have it removed from the registry, and tell the log."""
    registry.submit(lambda draft: remove(draft, doomed), CONTROL_PLANE).result(COMMIT_S)
    log.info("removed what is kept no longer", extra=doomed.told)


def old_jobs(store: Store, keep: Keep, now_us: int) -> tuple[list[Ended], bool]:
    """Jobs that go in this turn, and whether there are more."""
    if not keep.jobs_us:
        return [], False
    over = store.ended(now_us - keep.jobs_us, limit=TURN_JOBS)
    fit = fitting(over)
    return fit, len(fit) < len(over) or len(over) == TURN_JOBS


def fitting(over: Sequence[Ended]) -> list[Ended]:
    """The first of these jobs that one transaction may hold; at least one."""
    room = TURN_ROWS
    fit: list[Ended] = []
    for each in over:
        room -= each.rows
        if room < 0 and fit:
            break
        fit.append(each)
    return fit


def old_usages(store: Store, keep: Keep, now_us: int) -> Sequence[tuple[int, int, int]]:
    """Attempts whose usage goes in this turn."""
    if not keep.usage_us:
        return []
    return store.unowned_usages(now_us - keep.usage_us, limit=TURN_USAGES)


def seen_events(store: Store, keep: Keep, reached: Reached, now_us: int) -> list[Event]:
    """The next events that are old enough to go."""
    if not keep.events_us:
        return []
    before_us = now_us - keep.events_us
    page = store.events("", after=reached.events_seen, limit=TURN_EVENTS)
    return list(takewhile(lambda event: event.time_us < before_us, page))


def owners(events: Iterable[Event]) -> set[int]:
    """Jobs that events belong to."""
    return {event.job_id for event in events if event.job_id is not None}


def unowned(events: Iterable[Event], kept: Iterable[int]) -> list[Event]:
    """Those of these events that belong to no kept job."""
    jobs = set(kept)
    return [event for event in events if event.job_id not in jobs]


def period_s(keep: Keep) -> float:
    """How often to look, in seconds."""
    tenth_s = keep.shortest_us / 10 / 1_000_000
    return min(max(tenth_s, 1.0), PERIOD_S)

"""What attempts used, those that live included, as one answer.

The facts say who lives as of one event, and the store says who had ended by that event: together
they hold each attempt once, whatever is committed meanwhile.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.model.usage import (
    Key,
    Usage,
    UsageFilter,
    UsageGroup,
    UsageSum,
    merged,
    models_of,
    summed,
    usage_of,
    waits_since,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.model.job import Attempt, Job, Task
    from controlplane.model.lease import Lease
    from controlplane.model.node import Node
    from controlplane.registry.facts import Facts
    from controlplane.registry.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """The attempts that live as of one event."""

    seq: int
    """Number of that event."""
    attempts: tuple[tuple[Attempt, Job, Task, tuple[Lease, ...]], ...]
    """Each with its job, its task and its leases."""
    nodes: tuple[Node, ...]
    """Nodes, for the models of their devices."""


def living(facts: Facts) -> Living:
    """The attempts that live by now."""
    return Living(
        seq=facts.cluster.seq,
        attempts=tuple(
            (
                attempt,
                facts.jobs[attempt.job_id],
                facts.tasks[attempt.job_id, attempt.task_index],
                tuple(facts.leases[lease_id] for lease_id in attempt.lease_ids),
            )
            for attempt in facts.attempts.values()
        ),
        nodes=tuple(facts.nodes.values()),
    )


def so_far(alive: Living, now_us: int) -> list[Usage]:
    """What attempts that live have used by now."""
    models = models_of(alive.nodes)
    return [
        usage_of(attempt, leases, models, job, waits_since_us=waits_since(job, task), now_us=now_us)
        for attempt, job, task, leases in alive.attempts
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePage:
    """A page of sums."""

    sums: Sequence[tuple[Key, UsageSum]]
    """Keys in ascending order, each with its sum."""
    total: UsageSum
    """The sum over all pages; jobs and attempts that count under several keys count once here."""
    more: bool
    """Whether further keys follow."""


def usage_page(
    store: Store,
    alive: Living,
    which: UsageFilter,
    by: UsageGroup,
    *,
    now_us: int,
    after: Key | None,
    limit: int,
) -> UsagePage:
    """Sums over what ended and living attempts used within a window."""
    used = so_far(alive, now_us)
    page = _both(store, used, which, by, seq=alive.seq, after=after, limit=limit + 1)
    total = _both(store, used, which, None, seq=alive.seq, after=None, limit=1)
    return UsagePage(
        sums=page[:limit],
        total=total[0][1] if total else UsageSum(),
        more=len(page) > limit,
    )


def _both(
    store: Store,
    used: Sequence[Usage],
    which: UsageFilter,
    by: UsageGroup | None,
    *,
    seq: int,
    after: Key | None,
    limit: int,
) -> list[tuple[Key, UsageSum]]:
    now, now_met = summed(used, which, by)
    past = store.usage_sums(which, by, seq=seq, after=after, limit=limit)
    # Only a job that is at its second attempt or a later one can have ended ones too.
    again = {usage.job_id for usage in used if usage.attempt > 1}
    past_met = store.usage_met(which, by, seq=seq, job_ids=again) if again else frozenset()
    twice = Counter(key for key, _ in past_met & now_met)
    keys: set[Any] = {key for key in now if after is None or key > after} | past.keys()  # type: ignore[operator]
    # The store tells its first keys: of those that live, what lies behind these is cut off too.
    return [
        (key, merged(past.get(key, UsageSum()), now.get(key, UsageSum()), twice[key]))
        for key in sorted(keys)[:limit]
    ]

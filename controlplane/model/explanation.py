"""Why a task waits, and when and how it could start: what `ccctl explain` tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whoever holds what the task needs."""

    job_id: int
    """The job."""
    task_index: int
    """Index of its task."""
    owner: str
    """Whose job it is."""
    nodes: tuple[str, ...]
    """Display names of the nodes that it holds and the task would get."""
    gpus: int
    """GPUs that it holds there."""
    until_us: int | None
    """When it will have ended by its time limit; None: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of the job with which it would start now."""

    field: str
    """What to change, as in job.json."""
    value: str
    """What to change it to."""
    words: str
    """The change and its effect, in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """When it will probably start, UTC in microseconds: in so many of a hundred cases by then."""

    p10_us: int
    p50_us: int
    p90_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor of a priority."""

    name: str
    """Its name."""
    value: int
    """Its value in millionths; of `priority_class` the class's value itself."""
    weight: int
    """What it counts for."""
    points: int
    """What it adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a task waits, as of a view."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    seq: int
    """Number of the last event that the view contains."""
    reason: str
    """Why it waits, in one sentence; empty: it starts now."""
    ahead: int
    """So many tasks that could use the same nodes come before it."""
    behind: int
    """So many that could come after it."""
    never: bool = False
    """Whether it can never run as it is."""
    promised_us: int | None = None
    """By when its start is promised; None: it is not."""
    eta: Eta | None = None
    """When it will probably start; None: nobody knows."""
    holders: tuple[Holder, ...] = ()
    """Who holds what it needs, those first that end first."""
    changes: tuple[Change, ...] = ()
    """The smallest changes that would start it now, each tried out."""
    score: int = 0
    """Its priority: the higher goes first."""
    factors: tuple[Factor, ...] = ()
    """What makes up its priority."""

"""What a scheduling decision wants done.

A `Plan` is a proposal, which the registry's writer looks at again, node by node, before it becomes
true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.model.view import Part, Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Start a task: the whole gang, or none of it."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    parts: tuple[Part, ...]
    """Where, in order of rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """End an attempt, so that its task waits again and others have room."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    attempt: int
    """Number of the attempt."""
    reason: str
    """For whom, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Leave a task waiting, and say why."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    reason: str
    """In the user's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a decision wants done."""

    seq: int
    """The view's: what the decision had seen."""
    places: tuple[Place, ...] = ()
    """What to start."""
    preempts: tuple[Preempt, ...] = ()
    """What to end for others."""
    holds: tuple[Hold, ...] = ()
    """What waits, each with its reason."""
    promises: tuple[Promise, ...] = ()
    """Starts that are promised to what waits: all that hold, those made before among them."""

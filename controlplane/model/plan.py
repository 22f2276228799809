"""What a scheduling decision wants done.

A `Plan` is a proposal, which the registry's writer looks at again, node by node, before it becomes
true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from controlplane.model.view import Part, Promise, Reserved


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


class Holds(Sequence[Hold]):
    """All that wait, each with its reason, in order of their jobs: as columns, for there may be a
    hundred thousand, and most of them share a few reasons."""

    __slots__ = ("_jobs", "_tasks", "_why", "_words")

    def __init__(
        self, jobs: Sequence[int], tasks: Sequence[int], why: Sequence[int], words: Sequence[str]
    ) -> None:
        """`jobs`, `tasks`: who waits. `why`: of each, the place of its reason in `words`."""
        number = np.asarray(jobs, np.int64)
        order = np.lexsort((np.asarray(tasks, np.int64), number))
        self._jobs = number[order]
        self._tasks = np.asarray(tasks, np.int64)[order]
        self._why = np.asarray(why, np.int64)[order]
        self._words = tuple(words)

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, at: int) -> Hold: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Hold]: ...
    def __getitem__(self, at: int | slice) -> Hold | Sequence[Hold]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        words = self._words[self._why[at]]
        return Hold(job_id=int(self._jobs[at]), task_index=int(self._tasks[at]), reason=words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Holds) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash((len(self), self._words))

    def __repr__(self) -> str:
        return f"Holds({list(self)!r})"

    def reason(self, job_id: int) -> str:
        """Why a job waits; empty when it is not among them."""
        at = int(np.searchsorted(self._jobs, job_id))
        there = at < len(self._jobs) and self._jobs[at] == job_id
        return self._words[self._why[at]] if there else ""


NONE_WAIT = Holds((), (), (), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a decision wants done."""

    seq: int
    """The view's: what the decision had seen."""
    places: tuple[Place, ...] = ()
    """What to start."""
    preempts: tuple[Preempt, ...] = ()
    """What to end for others."""
    holds: Holds = NONE_WAIT
    """What waits, each with its reason."""
    promises: tuple[Promise, ...] = ()
    """Starts that are promised to what waits: all that hold, those made before among them."""
    reserved: tuple[Reserved, ...] = ()
    """What it means to start later, where and when."""

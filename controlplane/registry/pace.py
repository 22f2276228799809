"""How much of their time limits attempts of late have used: of it estimates of starts are made."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from controlplane.model.job import AttemptState

if TYPE_CHECKING:
    from controlplane.model.job import Attempt, Job

REMEMBERED = 1_000
"""So many attempts are looked at, the last ones."""
ENOUGH = 20
"""With fewer nothing is said: their limits count."""
WHOLE = 1_000
RAN = frozenset({AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.TIMED_OUT})
"""Ends that tell how long a program runs; others were made by people and faults of nodes."""

Pace = tuple[int, int, int]


class Recent:
    """The attempts that ended last. Kept in memory alone."""

    def __init__(self) -> None:
        """Nothing has ended yet."""
        self._used: deque[int] = deque(maxlen=REMEMBERED)
        self._pace: Pace | None = None

    def ended(self, job: Job, attempt: Attempt) -> None:
        """Remember an attempt that has ended."""
        began, ended, limit = attempt.started_us, attempt.ended_us, job.time_limit_us
        if attempt.state in RAN and limit and began is not None and ended is not None:
            self._used.append(min(max(ended - began, 0) * WHOLE // limit, WHOLE))
            self._pace = None

    def pace(self) -> Pace:
        """Of ten attempts one used less than the first, five less than the second, and nine less
        than the third, in thousandths of their limits."""
        if self._pace is None:
            used = sorted(self._used)
            count = len(used)
            at = (count // 10, count // 2, count - 1 - count // 10)
            p10, p50, p90 = (used[i] for i in at) if count >= ENOUGH else (WHOLE, WHOLE, WHOLE)
            self._pace = (p10, p50, p90)
        return self._pace

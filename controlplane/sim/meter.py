"""What a simulation measures while it goes on: sums over time, exact, in whole numbers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.sim.trace import TraceJob

POINTS_KEPT: Final = 2_000
"""Points of the picture over time; with more, every second one is dropped."""


@dataclass(slots=True, kw_only=True)
class JobRun:
    """What became of a job of the trace."""

    job: TraceJob
    """The job."""
    started_us: int | None = None
    """When it first started; None: it never did."""
    ended_us: int | None = None
    """When it ended; None: it never did."""
    preemptions: int = 0
    """How often it was ended to make room."""
    never: str = ""
    """Why it can never run on this cluster, in words; empty where it can."""


class Point(NamedTuple):
    """The cluster at one moment."""

    now_us: int
    """The moment."""
    busy: int
    """GPUs in use."""
    stranded: int
    """Free GPUs on nodes that are partly in use."""
    running: int
    """Jobs that run."""
    waiting: int
    """Jobs that wait."""


@dataclass(slots=True, kw_only=True)
class Contended:
    """An account's part of the time in which somebody waited, in microseconds of a GPU."""

    used_us: int = 0
    """What it had."""
    fair_us: float = 0.0
    """What it would have had of the same GPUs, shared evenly among accounts up to what each
    asked for."""


class Meter:
    """Sums up a cluster's state over time."""

    def __init__(self, gpus: int, tell: Callable[[int], None] | None = None) -> None:
        """`gpus`: of the whole cluster. `tell`: called with the jobs that have ended, now and
        then."""
        self.gpus = gpus
        self.ended = 0
        self.busy = self.waiting_gpus = self.running = self.waiting = 0
        self.idle_us = self.stranded_us = self.lost_us = 0
        self.contended: dict[str, Contended] = defaultdict(Contended)
        self.points: list[Point] = []
        self._every, self._seen = 1, 0
        self._tell = tell
        self._asked: dict[str, int] = defaultdict(int)
        self._used: dict[str, int] = defaultdict(int)
        self._stranded = 0
        self._now_us = 0
        self._fair: dict[str, float] | None = {}

    def begin(self, now_us: int) -> None:
        """Measure from this moment on."""
        self._now_us = now_us

    def advance(self, now_us: int) -> None:
        """Let the state that is last for until now."""
        span_us = now_us - self._now_us
        if span_us <= 0:
            return
        self._now_us = now_us
        idle = self.gpus - self.busy
        self.idle_us += idle * span_us
        self.stranded_us += self._stranded * span_us
        if self.waiting_gpus:
            if self._fair is None:
                self._fair = even_shares(self._asked, self.busy)
            for account, fair in self._fair.items():
                part = self.contended[account]
                part.fair_us += fair * span_us
                part.used_us += self._used[account] * span_us

    def settle(self, stranded: int) -> None:
        """A decision is made: the state is as it will be for a while."""
        self._stranded = stranded
        self._seen += 1
        if self._seen % self._every == 0:
            point = Point(self._now_us, self.busy, stranded, self.running, self.waiting)
            self.points.append(point)
            if len(self.points) > POINTS_KEPT:
                self.points = self.points[1::2]
                self._every *= 2

    def came(self, account: str, gpus: int) -> None:
        """A job waits that did not exist."""
        self.waiting += 1
        self.waiting_gpus += gpus
        self._asked[account] += gpus
        self._fair = None

    def withdrawn(self, account: str, gpus: int) -> None:
        """A job that waited has been taken back."""
        self.waiting -= 1
        self.waiting_gpus -= gpus
        self._asked[account] -= gpus
        self._fair = None

    def started(self, account: str, gpus: int) -> None:
        """A job that waited runs."""
        self.waiting -= 1
        self.running += 1
        self.waiting_gpus -= gpus
        self.busy += gpus
        self._used[account] += gpus
        self._fair = None

    def stopped(self, account: str, gpus: int) -> None:
        """A job that ran waits again."""
        self.waiting += 1
        self.running -= 1
        self.waiting_gpus += gpus
        self.busy -= gpus
        self._used[account] -= gpus
        self._fair = None

    def finished(self, account: str, gpus: int) -> None:
        """A job that ran has ended."""
        self.running -= 1
        self.busy -= gpus
        self._used[account] -= gpus
        self._asked[account] -= gpus
        self._fair = None
        self.ended += 1
        if self._tell is not None and self.ended % 256 == 0:
            self._tell(self.ended)


def even_shares(asked: dict[str, int], gpus: int) -> dict[str, float]:
    """So many GPUs shared evenly among accounts, to none more than it asks for (max-min
    fairness)."""
    left, shares = float(gpus), {}
    wanting = sorted((n, account) for account, n in asked.items() if n > 0)
    for i, (wants, account) in enumerate(wanting):
        shares[account] = min(wants, left / (len(wanting) - i))
        left -= shares[account]
    return shares

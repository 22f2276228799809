"""The classic policies, as simulators of the literature have them: yardsticks for the real one.

They know what no cluster knows, the length of every job, and they see GPUs alone. Two functions are
all of it: `start` for policies that let run what runs, `rank` for those that place every job anew
at each event. What a policy knows of a job is in its key: the lower goes first.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from controlplane.scheduling.firstfit import Racks, Spot

Ranked = tuple[int, int]
"""A job's key and its number, which decides between equal keys."""

SERVICE_LEVELS_US = tuple(3_600_000_000 * 10**i for i in range(6))
"""Least attained service has a queue for those that have had less than one GPU-hour, than ten, and
so on, and within it goes by age (Gu et al., "Tiresias", NSDI 2019). In microseconds of a GPU."""


class Classic(StrEnum):
    """A classic policy."""

    FIFO = "fifo"
    """In the order in which they came; the first that does not fit stops all behind it."""
    FIFO_SKIP = "fifo-skip"
    """In the order in which they came; what does not fit is passed over."""
    SJF = "sjf"
    """The shortest first; the first that does not fit stops all behind it."""
    SRTF = "srtf"
    """The shortest remaining time first; every job is placed anew at each event."""
    SRSF = "srsf"
    """The smallest remaining time × GPUs first; every job is placed anew at each event."""
    LAS = "las"
    """The least attained service (time × GPUs) first, in levels; every job is placed anew at each
    event."""

    @property
    def strict(self) -> bool:
        """Whether what does not fit stops all behind it."""
        return self in (Classic.FIFO, Classic.SJF)

    @property
    def preempts(self) -> bool:
        """Whether what runs makes room."""
        return self in (Classic.SRTF, Classic.SRSF, Classic.LAS)

    def key(self, *, gpus: int, length_us: int, left_us: int, served_us: int) -> int:
        """What a job is ordered by, the lower first; equal ones go in the order in which they came.

        `length_us`, `left_us`, `served_us`: how long it runs as a whole, from now on, and has run.
        """
        if self is Classic.SJF:
            return length_us
        if self is Classic.SRTF:
            return left_us
        if self is Classic.SRSF:
            return left_us * gpus
        if self is Classic.LAS:
            return level_of(served_us * gpus)
        return 0


def level_of(service_us: int) -> int:
    """The level of a job that has had so much, in microseconds of a GPU."""
    return bisect_right(SERVICE_LEVELS_US, service_us)


class Lines:
    """Those that wait: for each size a line, in order of their keys."""

    def __init__(self) -> None:
        """Nobody waits."""
        self.of: dict[int, list[Ranked]] = {}

    def add(self, gpus: int, ranked: Ranked) -> None:
        """Let a job wait."""
        insort(self.of.setdefault(gpus, []), ranked)

    def drop(self, gpus: int, count: int) -> None:
        """Have the first of a line gone."""
        del self.of[gpus][:count]


class _Walk:
    """Goes through lines in order of the keys. A size that did not fit once is passed over from
    then on: within a decision room only shrinks."""

    __slots__ = ("_lines", "_next", "taken")

    def __init__(self, lines: Lines) -> None:
        self._lines = {gpus: line for gpus, line in lines.of.items() if line}
        self.taken = dict.fromkeys(self._lines, 0)
        self._next: tuple[Ranked, int] | None = None
        self.look()

    def look(self) -> None:
        heads = [
            (line[self.taken[gpus]], gpus)
            for gpus, line in self._lines.items()
            if self.taken[gpus] < len(line)
        ]
        self._next = min(heads, default=None)

    @property
    def head(self) -> tuple[Ranked, int] | None:
        """The next that waits, and its size."""
        return self._next

    def take(self, gpus: int) -> None:
        self.taken[gpus] += 1
        self.look()

    def refuse(self, gpus: int) -> None:
        if self._lines.pop(gpus, None) is not None:
            self.look()


def start(lines: Lines, racks: Racks, *, strict: bool) -> list[tuple[int, int, Spot]]:
    """Claim a place for each job that starts now: (number, GPUs, where). They have left the lines.

    `strict`: the first that does not fit stops all behind it.
    """
    started: list[tuple[int, int, Spot]] = []
    walk = _Walk(lines)
    while (head := walk.head) is not None:
        (_, number), gpus = head
        spot = racks.take(gpus)
        if spot is not None:
            started.append((number, gpus, spot))
            walk.take(gpus)
        elif strict:
            break
        else:
            walk.refuse(gpus)
    for gpus, count in walk.taken.items():
        lines.drop(gpus, count)
    return started


@dataclass(frozen=True, slots=True)
class Turn:
    """What a decision of a policy that preempts changes."""

    started: Sequence[tuple[int, int]]
    """Jobs that start, each with its GPUs. They have left the lines."""
    stopped: Sequence[tuple[int, int]]
    """Jobs that stop and wait again, each with its GPUs."""


def rank(running: Iterable[tuple[int, int, int]], lines: Lines, racks: Racks) -> Turn:
    """Place all jobs anew in order of their keys, on racks that are empty, and pass over what does
    not fit.

    `running`: (key, number, GPUs) of what runs, in any order.
    """
    started: list[tuple[int, int]] = []
    stopped: list[tuple[int, int]] = []
    walk = _Walk(lines)
    refused: set[int] = set()

    def admit(until: Ranked | None) -> None:
        while (head := walk.head) is not None and (until is None or head[0] < until):
            (_, number), gpus = head
            if racks.take(gpus) is None:
                refused.add(gpus)
                walk.refuse(gpus)
            else:
                started.append((number, gpus))
                walk.take(gpus)

    take = racks.take
    for key, number, gpus in sorted(running):
        if walk.head is not None and walk.head[0] < (key, number):
            admit((key, number))
        if gpus in refused:
            stopped.append((number, gpus))
        elif take(gpus) is None:
            refused.add(gpus)
            walk.refuse(gpus)
            stopped.append((number, gpus))
    admit(None)
    for gpus, count in walk.taken.items():
        lines.drop(gpus, count)
    return Turn(started=started, stopped=stopped)

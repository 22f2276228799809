"""The tasks of a job array: which indexes there are, and how many may run at once.

Written as for Slurm's `sbatch --array`: `0-9`, `1,3,5-9`, `0-100:10`, and `%4` at the end for four
at once. A job that is no array has one task, with index 0.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Final

MOST_TASKS: Final = 100_000
"""So many tasks an array has at most."""
LAST_INDEX: Final = 9_999_999
"""The highest index."""
_RANGE = re.compile(r"([0-9]{1,8})(?:-([0-9]{1,8})(?::([0-9]{1,8}))?)?")
_EXAMPLE = 'write e.g. "0-99", "1,5,7-9", "0-90:10" or "0-99%8"'


@dataclass(frozen=True, slots=True)
class TaskSet:
    """Indexes in order, as ranges that do not overlap."""

    ranges: tuple[tuple[int, int, int], ...]
    """First index, last index, step; in order."""
    at_once: int | None = None
    """So many may run at once; None for no limit."""
    _before: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Count how many indexes lie before each range, and in all."""
        sizes = ((last - first) // step + 1 for first, last, step in self.ranges)
        object.__setattr__(self, "_before", tuple(accumulate(sizes, initial=0)))

    def __len__(self) -> int:
        """Number of tasks."""
        return self._before[-1]

    def at(self, position: int) -> int:
        """The index at a position, from 0."""
        which = bisect_right(self._before, position) - 1
        first, _, step = self.ranges[which]
        return first + (position - self._before[which]) * step

    def position(self, index: int) -> int | None:
        """The position of an index; None where there is no such task."""
        for (first, last, step), before in zip(self.ranges, self._before, strict=False):
            if first <= index <= last:
                rest = (index - first) % step
                return None if rest else before + (index - first) // step
        return None

    def __str__(self) -> str:
        """As in job.json."""
        words = ",".join(_written(*each) for each in self.ranges)
        return words if self.at_once is None else f"{words}%{self.at_once}"


ONE: Final = TaskSet(((0, 0, 1),))
"""The tasks of a job that is no array."""


def parse_tasks(text: str) -> TaskSet:
    """The tasks that are written so. ValueError says what is wrong, and how it is written."""
    listed, percent, most = text.partition("%")
    at_once = None
    if percent:
        if not re.fullmatch("[0-9]{1,7}", most) or not int(most):
            raise ValueError(f"after the % stands how many may run at once, 1 or more; {_EXAMPLE}")
        at_once = int(most)
    ranges = sorted(_range(part) for part in listed.split(","))
    for (_, last, _), (following, _, _) in pairwise(ranges):
        if following <= last:
            raise ValueError(f"{following} lies within another of its ranges; {_EXAMPLE}")
    made = TaskSet(tuple(ranges), at_once)
    if len(made) > MOST_TASKS:
        raise ValueError(f"has {len(made)} tasks; at most {MOST_TASKS} are allowed")
    return made


def _range(part: str) -> tuple[int, int, int]:
    found = _RANGE.fullmatch(part)
    if found is None:
        raise ValueError(f"lists indexes and ranges of them; {_EXAMPLE}")
    first = int(found[1])
    last = int(found[2] or first)
    step = int(found[3] or 1)
    if last < first or not step:
        raise ValueError(f"{part} names nothing: a range goes up, by a step of 1 or more")
    if last > LAST_INDEX:
        raise ValueError(f"{last}: the highest index is {LAST_INDEX}")
    last -= (last - first) % step
    return first, last, step if last > first else 1


def _written(first: int, last: int, step: int) -> str:
    if first == last:
        return str(first)
    return f"{first}-{last}" + (f":{step}" if step > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCounts:
    """How a job's tasks ended."""

    succeeded: int = 0
    """Every worker of their last attempt ended with exit code 0."""
    failed: int = 0
    """Their last attempt failed, and no further one is due."""
    cancelled: int = 0
    """Somebody cancelled them."""

    def plus(self, state: str, count: int = 1) -> TaskCounts:
        """With so many more that ended in this way."""
        return replace(self, **{state: getattr(self, state) + count})

    @property
    def ended(self) -> int:
        """All that have ended."""
        return self.succeeded + self.failed + self.cancelled

"""How far an attempt is, by its own word: points that its workers report, merged, thinned and
extrapolated.

A **point** is what one line of a progress report says. Points are thinned by merging neighbours, so
that what only every second line tells is not lost, and the newest value of everything is always
kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_METRICS = 32
"""Names of metrics of one attempt."""
LONGEST_NAME = 64
"""Characters of a metric's name."""
LONGEST_PATH = 1024
"""Bytes of a checkpoint's path."""
MOST_POINTS = 16
"""Points of one forwarded report: more are merged to so many."""
MOST_FAULTS = 6
"""Sentences on what was wrong with the lines of one lease's workers."""
LONGEST_FAULT = 240
"""Characters of such a sentence."""
HISTORY = 16
"""Moments that the end is extrapolated from."""
SERIES_LIMIT = 512
"""Points of a series."""
LARGEST_STEP = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a worker said of its progress at one moment; None and no metrics where it said nothing
    of that."""

    time_us: int
    """When its node read it, UTC in microseconds."""
    step: int | None = None
    """Number of the step, as the program counts."""
    fraction: float | None = None
    """How much is done, 0 to 1."""
    metrics: tuple[tuple[str, float], ...] = ()
    """Measurements by name, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a worker said that it had saved."""

    time_us: int
    """When its node read it, UTC in microseconds."""
    rank: int
    """Which worker."""
    path: str
    """Where, in the program's words."""
    step: int | None = None
    """At which step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseProgress:
    """What the workers of one lease reported since the last time. A repeat changes nothing."""

    lease_id: int
    """The lease."""
    token: int
    """Its fencing token."""
    rank: int | None = None
    """Whose the points are; None without points."""
    points: tuple[Point, ...] = ()
    """In order of time, `MOST_POINTS` at most."""
    checkpoint: Checkpoint | None = None
    """The last one since then, of any of them."""
    faults: tuple[str, ...] = ()
    """All that was wrong with their lines so far, in words, `MOST_FAULTS` at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an attempt is. The points of the lowest rank that reports any are what counts; a
    checkpoint counts whoever saved it."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    attempt: int
    """Number of the attempt."""
    revision: int = 0
    """Counts its changes."""
    rank: int | None = None
    """Whose points count; None before the first."""
    last: Point | None = None
    """The newest value of everything, and when it was reported."""
    checkpoint: Checkpoint | None = None
    """The last one."""
    history: tuple[tuple[int, float], ...] = ()
    """(moment, fraction), rising in both, from which the end is extrapolated."""
    faults: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """By lease: what was wrong with lines of its workers."""

    @property
    def key(self) -> tuple[int, int, int]:
        """Key of the attempt."""
        return (self.job_id, self.task_index, self.attempt)

    def after(self, told: LeaseProgress) -> Progress:
        """With what a lease's workers reported; the same value when that is nothing new."""
        found = self
        if told.points and told.rank is not None:
            found = found._with_points(told.rank, told.points)
        saved = told.checkpoint
        if saved is not None and (
            found.checkpoint is None or saved.time_us > found.checkpoint.time_us
        ):
            found = replace(found, checkpoint=saved)
        faults = dict(found.faults)
        if told.faults and faults.get(told.lease_id) != told.faults:
            faults[told.lease_id] = told.faults
            found = replace(found, faults=tuple(sorted(faults.items())[:MOST_FAULTS]))
        return self if found == self else replace(found, revision=self.revision + 1)

    def _with_points(self, rank: int, points: tuple[Point, ...]) -> Progress:
        if self.rank is not None and rank > self.rank:
            return self
        fresh = self.rank is None or rank < self.rank
        last, history = (None, ()) if fresh else (self.last, self.history)
        for point in points:
            if last is not None and point.time_us <= last.time_us:
                continue  # a repeat
            last = point if last is None else merged(last, point)
            if point.fraction is not None:
                history = remembered(history, point.time_us, point.fraction)
        return replace(self, rank=rank, last=last, history=history)

    @property
    def end_us(self) -> int | None:
        """When it will be done, as far as can be told; see `extrapolated`."""
        return extrapolated(self.history)


def merged(older: Point, newer: Point) -> Point:
    """Two points as one: the newer word on everything, at the newer's time."""
    metrics = {**dict(older.metrics), **dict(newer.metrics)}
    return Point(
        time_us=newer.time_us,
        step=older.step if newer.step is None else newer.step,
        fraction=older.fraction if newer.fraction is None else newer.fraction,
        metrics=tuple(sorted(metrics.items())[:MOST_METRICS]),
    )


def halved(points: Iterable[Point]) -> tuple[Point, ...]:
    """Each two neighbours as one; a last one without a neighbour stays."""
    pairs = iter(points)
    return tuple(
        point if (second := next(pairs, None)) is None else merged(point, second) for point in pairs
    )


def added(points: tuple[Point, ...], point: Point, most: int) -> tuple[Point, ...]:
    """One more point, in at most so many, for points of a short while."""
    return halved((*points, point)) if len(points) >= most else (*points, point)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of a whole attempt, at most `SERIES_LIMIT` and the one that is open: each stands for
    `stride` reported ones. At the limit neighbours are merged, and the stride doubles."""

    stride: int = 1
    """Reported points in each point."""
    points: tuple[Point, ...] = ()
    """Whole ones, in order of time."""
    open: Point | None = None
    """The newest, which more will be merged into."""
    held: int = 0
    """Reported points in it."""

    def after(self, point: Point) -> Series:
        """With one more point. One that is not newer than the last is a repeat, and is passed
        over."""
        newest = self.open or (self.points[-1] if self.points else None)
        if newest is not None and point.time_us <= newest.time_us:
            return self
        open_ = point if self.open is None else merged(self.open, point)
        if self.held + 1 < self.stride:
            return replace(self, open=open_, held=self.held + 1)
        if len(self.points) < SERIES_LIMIT:
            return replace(self, points=(*self.points, open_), open=None, held=0)
        return Series(
            stride=2 * self.stride, points=halved(self.points), open=open_, held=self.stride
        )

    @property
    def all(self) -> tuple[Point, ...]:
        """All of them, the open one too."""
        return self.points if self.open is None else (*self.points, self.open)


def remembered(
    history: tuple[tuple[int, float], ...], time_us: int, fraction: float
) -> tuple[tuple[int, float], ...]:
    """A history with one more moment. A fraction that falls back begins a new one: what was before
    says nothing of how fast it goes now."""
    if history and fraction < history[-1][1]:
        history = ()
    if history and fraction == history[-1][1]:
        return history
    if len(history) >= HISTORY:
        history = history[::2]
    return (*history, (time_us, fraction))


def extrapolated(history: tuple[tuple[int, float], ...]) -> int | None:
    """When a fraction of 1 is reached, UTC in microseconds; None while that cannot be told.

    At the rate of the second half of the time that is remembered: from the newest moment that lies
    no later than half-way between the first and the last, until the last. So a slow start is
    forgotten, and one odd step does not count for much.
    """
    if len(history) < 2:
        return None
    (first_us, _), (last_us, done) = history[0], history[-1]
    middle_us = first_us + (last_us - first_us) // 2
    from_us, had = max(moment for moment in history[:-1] if moment[0] <= middle_us)
    if done >= 1:
        return last_us
    if last_us <= from_us or done <= had:
        return None
    left_us = (1 - done) * (last_us - from_us) / (done - had)
    return last_us + int(left_us) if left_us < LONGEST_LEFT_US else None


LONGEST_LEFT_US = 10 * 366 * 86_400 * 1_000_000
"""An end that lies further off is none."""

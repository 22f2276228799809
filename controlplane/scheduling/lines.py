"""Who is next: gangs alike to placement stand in one line, and the lines are merged by priority."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.scheduling.columns import Ints


def highest_first(scores: Ints) -> Ints:
    """The places of scores, the highest first; of equals the earlier."""
    count = len(scores)
    if not count:
        return np.empty(0, np.int64)
    bits, most = count.bit_length(), int(scores.max())
    if (most - int(scores.min())).bit_length() + bits > 62:
        return np.argsort(-scores, kind="stable")
    # Whole numbers that hold score and place are sorted several times as fast as places by score.
    keys = ((most - scores) << bits) | np.arange(count)
    keys.sort()
    return keys & ((1 << bits) - 1)


class Lines:
    """Tasks in order, each in the line of those that are like it.

    `next` gives the first of all lines; `advance` lets the one behind it come up, and `drop` sends
    a whole line away. So a decision costs as many looks as there are answers, not as there are
    tasks.
    """

    def __init__(self, rows: Ints, line: Ints, limit: Ints) -> None:
        """`rows`: tasks, in order. `line`, `limit`: of each of `rows`, its line and how long it may
        run."""
        kind = np.uint16 if len(line) and int(line.max()) < 1 << 16 else np.int64
        self._place = np.argsort(line.astype(kind), kind="stable")
        self._rows = rows[self._place]
        self._limit = limit[self._place]
        sizes = np.bincount(line)
        self._ends = np.cumsum(sizes)
        starts = (self._ends - sizes).tolist()
        self._heap = [
            (int(self._place[start]), number, start)
            for number, (start, size) in enumerate(zip(starts, sizes.tolist(), strict=True))
            if size
        ]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[tuple[int, object, int]]:
        """Each as (row, line, position within the lines), until all lines are empty. Whoever
        iterates says what becomes of the line before it goes on."""
        while (head := self.head()) is not None:
            yield head

    def head(self) -> tuple[int, int, int] | None:
        """The first of all; None when all lines are empty."""
        if not self._heap:
            return None
        _, line, at = self._heap[0]
        return int(self._rows[at]), line, at

    def advance(self) -> None:
        """The first one is done; the one behind it comes up."""
        _, line, at = self._heap[0]
        self._up(line, at + 1)

    def drop(self) -> Ints:
        """Send the rest of the first line away; its rows."""
        _, line, at = heapq.heappop(self._heap)
        return self._rows[at : self._ends[line]]

    def shorten(self, limit_us: int) -> Ints:
        """Of the first line send those away that may run for so long or longer; the rows of those
        up to the first that stays."""
        _, line, at = self._heap[0]
        shorter = np.flatnonzero(self._limit[at : self._ends[line]] < limit_us)
        if not len(shorter):
            return self.drop()
        gone = self._rows[at : at + int(shorter[0])]
        self._up(line, at + int(shorter[0]))
        return gone

    def rest(self) -> Ints:
        """Send all away; their rows."""
        gone = [self._rows[at : self._ends[line]] for _, line, at in self._heap]
        self._heap.clear()
        return np.concatenate(gone) if gone else np.empty(0, np.int64)

    def _up(self, line: int, at: int) -> None:
        if at < self._ends[line]:
            heapq.heapreplace(self._heap, (int(self._place[at]), line, at))
        else:
            heapq.heappop(self._heap)

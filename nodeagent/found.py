"""When the output that is not handed over yet was found.

The control plane may be away for hours: what is handed over then still tells its moment.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final, NamedTuple

GRAIN_US: Final = 1_000_000
"""Bytes that are found within so long share a moment, while the control plane is there."""
MOST_MARKS: Final = 128
"""Of a stream; when there would be more, bytes within twice as long share a moment from then on."""


class Mark(NamedTuple):
    """From where on bytes were found at a moment."""

    offset: int
    """Of the first of them."""
    time_us: int
    """UTC, microseconds."""


@dataclass(slots=True)
class Found:
    """How far one stream was handed over, and when what is left of it was found."""

    at: int = 0
    """Up to here it was handed over."""
    end: int = 0
    """Up to here it was found."""
    settled: int = -1
    """Up to here the other side has it, whatever befalls it; -1: it was not asked."""
    marks: list[Mark] = field(default_factory=list)
    """In order; those of what was handed over are gone, but for the last."""
    grain_us: int = GRAIN_US
    """Bytes that are found within so long share a moment now."""

    def look(self, end: int, now_us: int) -> None:
        """Take in up to where the stream goes now."""
        if end <= self.end:
            return
        # A clock may be set back: that is another moment, too.
        if not self.marks or abs(now_us - self.marks[-1].time_us) >= self.grain_us:
            self.marks.append(Mark(self.end, now_us))
            while len(self.marks) > MOST_MARKS:
                self._thin()
        self.end = end

    def _thin(self) -> None:
        self.grain_us *= 2
        kept = self.marks[:1]
        for mark in self.marks[1:]:
            if abs(mark.time_us - kept[-1].time_us) >= self.grain_us:
                kept.append(mark)
        self.marks = kept

    def moment(self, offset: int) -> tuple[int, int]:
        """When a byte was found, and up to which offset others share that moment."""
        index = bisect_right(self.marks, offset, key=lambda mark: mark.offset)
        last = self.marks[max(index - 1, 0)]
        following = self.marks[index].offset if index < len(self.marks) else self.end
        return last.time_us, following

    def rewind(self) -> None:
        """The other side may have less of it than it said."""
        self.at, self.settled = 0, -1

    def hand_over(self, at: int) -> None:
        """Take in up to where the other side has it."""
        self.at = at
        if at >= self.end:
            self.grain_us = GRAIN_US
        done = bisect_right(self.marks, at, key=lambda mark: mark.offset) - 1
        if done > 0:
            del self.marks[:done]

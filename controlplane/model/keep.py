"""For how long the centre keeps what is over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What is kept for how long, in microseconds; 0: for ever."""

    jobs_us: int = 0
    """Ended jobs, with their events, output and series, from their end on."""
    logs_us: int = 0
    """Output of ended jobs that are kept, from their end on; 0: as long as its job."""
    usage_us: int = 0
    """What attempts used, from their end on; never less than their job."""
    events_us: int = 0
    """Events that belong to no kept job."""
    blobs_us: int = 0
    """Blobs that no kept job refers to, since somebody uploaded or used them."""

    @property
    def shortest_us(self) -> int:
        """The shortest of them; 0 when everything is kept for ever."""
        every = (self.jobs_us, self.logs_us, self.usage_us, self.events_us, self.blobs_us)
        return min((length for length in every if length), default=0)


def moment(us: int) -> str:
    """A moment in words, up to the minute that it has reached: `2026-03-01 12:00 UTC`."""
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us):%Y-%m-%d %H:%M} UTC"


def days(length_us: int) -> str:
    """A length in words: `30 days`, `1 day`, `0.5 days`."""
    count = f"{length_us / DAY_US:g}"
    return f"{count} day" if count == "1" else f"{count} days"

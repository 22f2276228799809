"""Time as a thing that is handed in, so that tests and simulations can own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time."""

    def now_us(self) -> int:
        """Give the time of day: microseconds since 1970 in UTC. It may step, also backwards."""

    def boot_us(self) -> int:
        """Give the microseconds since some fixed moment, sleep included. It never goes back.

        For durations, deadlines and leases; means nothing on another host or after a reboot.
        """


class SystemClock:
    """The host's clocks."""

    def now_us(self) -> int:
        """Give the host's time of day."""
        return time.time_ns() // 1000

    def boot_us(self) -> int:
        """Give the host's CLOCK_BOOTTIME."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class SteadyClock(SystemClock):
    """The time of day as it was when this clock was made, counted on by boot time.

    What lasts, waits or comes later is right by it, and what happened keeps its order, though
    somebody sets the host's clock meanwhile.
    """

    def __init__(self) -> None:
        """Take the host's time of day, once."""
        self._since_us = super().now_us() - self.boot_us()

    def now_us(self) -> int:
        """Give the time of day by this clock."""
        return self._since_us + self.boot_us()

    def set_by_us(self) -> int:
        """By how much the host's clock was set since."""
        return super().now_us() - self.now_us()


class ManualClock:
    """A clock that stands until it is told to go on."""

    def __init__(
        self, *, now_us: int = 1_700_000_000_000_000, boot_us: int = 1_000_000_000
    ) -> None:
        """Start at a time of day and at a time since boot."""
        self._now_us = now_us
        self._boot_us = boot_us

    def now_us(self) -> int:
        """Give the time of day that was set."""
        return self._now_us

    def boot_us(self) -> int:
        """Give the time since boot that was set."""
        return self._boot_us

    def step(self, by_us: int) -> None:
        """Set the time of day on, or back by a negative number; boot time does not mind."""
        self._now_us += by_us

    def advance(self, duration_us: int) -> None:
        """Let both clocks go on by a duration in microseconds; not by a negative one."""
        if duration_us < 0:
            raise ValueError(f"a clock cannot go back by {-duration_us} µs")
        self._now_us += duration_us
        self._boot_us += duration_us

"""Periodic duties: APScheduler beats the time, and an event of our own carries wake-ups.

APScheduler 3 drops a wake-up for a job that runs, and follows the wall clock, which somebody may
set; so it only rings, and each duty has a thread that runs when it was rung or woken, once for any
number of rings. When the clock was set back the rings stay away until the old time has come again:
a duty that hears none for long rings itself, on a clock that nobody sets.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apscheduler.schedulers.background import BackgroundScheduler

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

LATE = 1.5
"""A duty that was not rung for so many of its periods begins by itself."""


@dataclass(slots=True, kw_only=True)
class Duty:
    """Something to do now and then, and at once when it is woken."""

    name: str
    """For logs and threads."""
    run: Callable[[], object]
    """The duty's one verb; it can be called without any loop."""
    period_s: float
    """Done at least so often, in seconds."""
    gap_s: float = 0.0
    """Rests so long after each run, so that wake-ups in a burst share the next run."""
    rest: float = 0.0
    """Rests at least so many times as long as the run took: a long one leaves most of the time to
    others."""
    _ring: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have it done as soon as possible. Any thread may call it; it never waits."""
        self._ring.set()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name=f"duty-{self.name}")
        self._thread.start()

    def _loop(self) -> None:
        told = ""
        while not self._stop.is_set():
            self._ring.wait(LATE * self.period_s)
            self._ring.clear()
            if self._stop.is_set():
                return
            began = time.monotonic()
            try:
                self.run()
                told = ""
            except Exception as error:
                if told != (told := f"{type(error).__name__}: {error}"):
                    log.exception("the duty %s failed; it is tried again", self.name)
            self._stop.wait(max(self.gap_s, self.rest * (time.monotonic() - began)))

    def _end(self) -> None:
        self._stop.set()
        self._ring.set()
        if self._thread is not None:
            self._thread.join()


class Duties:
    """A set of duties that begin and end together."""

    def __init__(self, *duties: Duty) -> None:
        """`duties`: all of them."""
        # APScheduler tells of every ring at INFO.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._duties = duties
        self._scheduler = BackgroundScheduler(timezone="UTC")
        for duty in duties:
            self._scheduler.add_job(
                duty.wake, "interval", seconds=duty.period_s, name=duty.name, max_instances=1
            )

    def start(self) -> None:
        """Begin; each duty is done once at the beginning."""
        for duty in self._duties:
            duty._start()
            duty.wake()
        self._scheduler.start()

    def stop(self) -> None:
        """End, when what runs has finished."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        for duty in self._duties:
            duty._end()

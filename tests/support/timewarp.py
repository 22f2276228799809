"""Runs a daemon of ours with a time of day that a test sets: ``timewarp.py FILE PROGRAM WORD…``.

FILE holds the seconds by which it is off, and may be replaced at any time. It is off wherever our
code reads it, which is `controlplane.kit.clock`, and where APScheduler does. gRPC's own library and
what the kernel notes of files have the true one; `tests/guest/test_clock_steps.py` sets it for a
whole machine.
"""

from __future__ import annotations

import runpy
import sys
from datetime import datetime, timedelta, tzinfo
from importlib import import_module
from pathlib import Path

from controlplane.kit.clock import SystemClock

READERS = ("schedulers.base", "triggers.interval", "executors.base")
"""Modules of APScheduler that read the time of day."""


def warp(offset: Path, *, scheduler: bool) -> None:
    """Have this process see the time of day that a file says."""
    true_us = SystemClock.now_us

    def off_s() -> int:
        return int(offset.read_text())

    def now_us(clock: SystemClock) -> int:
        return true_us(clock) + off_s() * 1_000_000

    class Moment(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=off_s())

    SystemClock.now_us = now_us  # type: ignore[method-assign, assignment]
    for name in READERS if scheduler else ():
        import_module(f"apscheduler.{name}").datetime = Moment  # type: ignore[attr-defined]


if __name__ == "__main__":
    file, program = map(Path, sys.argv[1:3])
    warp(file, scheduler=program.name == "controlplane")
    del sys.argv[:2]
    runpy.run_path(str(program), run_name="__main__")

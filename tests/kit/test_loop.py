from __future__ import annotations

import threading
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

import apscheduler.schedulers.base

from controlplane.kit.loop import Duties, Duty

if TYPE_CHECKING:
    import pytest


class SetBack(datetime):
    """The time of day, which can be set back."""

    by = timedelta(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) - cls.by


def test_a_duty_is_done_on_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", SetBack)
    done = threading.Semaphore(0)
    duties = Duties(Duty(name="test", run=done.release, period_s=0.05))
    duties.start()
    try:
        for by in (timedelta(0), timedelta(hours=1), timedelta(0), timedelta(hours=-1)):
            monkeypatch.setattr(SetBack, "by", by)
            for _ in range(4):
                assert done.acquire(timeout=20)
    finally:
        duties.stop()


def test_a_duty_that_is_woken_is_done_at_once() -> None:
    done = threading.Semaphore(0)
    duty = Duty(name="test", run=done.release, period_s=3600)
    duties = Duties(duty)
    duties.start()
    try:
        assert done.acquire(timeout=20)
        duty.wake()
        assert done.acquire(timeout=20)
    finally:
        duties.stop()

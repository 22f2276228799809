from __future__ import annotations

import time

import pytest

from controlplane.kit.clock import Clock, ManualClock, SteadyClock, SystemClock


def test_the_hosts_clocks_are_in_microseconds() -> None:
    clock: Clock = SystemClock()
    before = time.time()
    assert before <= clock.now_us() / 1e6 + 1e-6 <= time.time() + 1e-6
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.boot_us() / 1e6 + 1e-6 <= time.clock_gettime(time.CLOCK_BOOTTIME) + 1e-6


def test_a_manual_clock_stands_until_it_is_told_to_go_on() -> None:
    clock = ManualClock(now_us=100, boot_us=7)
    told: Clock = clock
    assert (told.now_us(), told.boot_us()) == (100, 7)
    clock.advance(5)
    assert (told.now_us(), told.boot_us()) == (105, 12)
    clock.step(-50)
    assert (told.now_us(), told.boot_us()) == (55, 12)
    with pytest.raises(ValueError, match="cannot go back by 1 µs"):
        clock.advance(-1)


@pytest.mark.parametrize("step_us", [-3_600_000_000, 3_600_000_000])
def test_a_steady_clock_goes_on_when_the_hosts_is_set(
    monkeypatch: pytest.MonkeyPatch, step_us: int
) -> None:
    host = ManualClock(now_us=10_000_000_000)
    monkeypatch.setattr(SystemClock, "now_us", lambda self: host.now_us())
    monkeypatch.setattr(SystemClock, "boot_us", lambda self: host.boot_us())
    clock = SteadyClock()
    assert (clock.now_us(), clock.set_by_us()) == (10_000_000_000, 0)
    host.advance(7)
    host.step(step_us)
    host.advance(1)
    assert (clock.now_us(), clock.set_by_us()) == (10_000_000_008, step_us)

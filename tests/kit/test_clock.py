from __future__ import annotations

import time

import pytest

from controlplane.kit.clock import Clock, ManualClock, SystemClock


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
    with pytest.raises(ValueError, match="cannot go back by 1 µs"):
        clock.advance(-1)

"""What was used decays exactly, adds up, and is the same however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.job import AttemptState
from controlplane.model.policy import DAY_US, DEFAULT
from controlplane.model.spending import EVERY_US, Spending, charged, decayed, weight
from controlplane.model.usage import Usage

HALF = DEFAULT.half_life_us
MINUTE = 60_000_000


def usage(from_us: int, until_us: int, gpus: int = 1, model: str = "NVIDIA H100") -> Usage:
    return Usage(
        job_id=1,
        task_index=0,
        attempt=1,
        owner="ada",
        account="vision",
        state=AttemptState.SUCCEEDED,
        from_us=from_us,
        until_us=until_us,
        devices=((model, gpus),) if gpus else (),
        cpu_millicores=0,
        memory_bytes=0,
        stdout_bytes=0,
        stderr_bytes=0,
        waiting_us=0,
        staging_us=0,
        starting_us=0,
        running_us=until_us - from_us,
        stopping_us=0,
    )


def after(spending: Spending, used: Usage, now_us: int, **weights: int) -> Spending:
    return charged(spending, used, half_life_us=HALF, weights=tuple(weights.items()), now_us=now_us)


NOTHING = Spending(account="vision", user="ada")


@given(st.integers(0, 10**17), st.integers(0, 20 * HALF))
def test_half_is_left_after_each_half_life(value: int, age_us: int) -> None:
    left = decayed(value, age_us, HALF)
    assert 0 <= left <= value
    assert left == pytest.approx(value * 2 ** (-age_us / HALF), rel=1e-8, abs=6)


def test_what_is_left_is_the_same_number_on_every_machine() -> None:
    assert decayed(10**15, HALF, HALF) == 10**15 // 2
    assert [decayed(10**15, n * HALF // 7, HALF) for n in (1, 2, 3)] == [
        905723664347432,
        820335356026550,
        742997144654123,
    ]


@given(st.integers(0, 10**15), st.lists(st.integers(0, 3000), max_size=20))
def test_decay_in_many_steps_is_decay_in_one(value: int, minutes: list[int]) -> None:
    left = value
    for each in minutes:
        left = decayed(left, each * EVERY_US, HALF)
    whole = decayed(value, sum(minutes) * EVERY_US, HALF)
    assert left == pytest.approx(whole, rel=1e-8, abs=len(minutes) + 5)


def test_an_attempt_is_added_when_it_ends_and_weighed_by_its_model() -> None:
    end = 100 * DAY_US
    once = after(NOTHING, usage(end - 3 * MINUTE, end, gpus=2), end, h100=2500)
    assert (once.usage_us, once.as_of_us) == (3 * MINUTE * 2 * 5 // 2, end)
    later = after(once, usage(end, end + 7 * MINUTE), end + HALF)
    assert later.usage_us == once.usage_us // 2 + 7 * MINUTE
    assert after(later, usage(0, end, gpus=0), end + 2 * HALF).usage_us == later.usage_us // 2


def test_a_clock_that_was_set_back_makes_nobody_pay_twice() -> None:
    end = 100 * DAY_US
    once = after(NOTHING, usage(end - MINUTE, end), end)
    again = after(once, usage(end - 2 * MINUTE, end - MINUTE), end - 3 * HALF)
    assert (again.usage_us, again.as_of_us) == (2 * MINUTE, end)


def test_time_is_told_by_the_day_on_which_it_was_used() -> None:
    begin = 100 * DAY_US - 2 * MINUTE
    spending = after(NOTHING, usage(begin, begin + 5 * MINUTE, gpus=4), begin + 5 * MINUTE)
    assert spending.days == ((99, 8 * MINUTE), (100, 12 * MINUTE))
    assert (spending.since(99), spending.since(100), spending.since(101)) == (
        20 * MINUTE,
        12 * MINUTE,
        0,
    )


def test_days_beyond_the_longest_window_are_forgotten() -> None:
    old = after(NOTHING, usage(0, 400 * DAY_US), 400 * DAY_US)
    assert old.days[0][0] > 400 - 91
    assert all(us <= DAY_US for _, us in old.days)


def test_the_longest_words_that_are_in_a_models_name_count() -> None:
    weights = (("h100", 3000), ("h100 80gb", 3500), ("nvidia", 2000))
    assert weight("NVIDIA H100 80GB HBM3", weights) == 3500
    assert weight("NVIDIA H100 NVL", weights[:1]) == 3000
    assert weight("NVIDIA A100", weights) == 2000
    assert weight("TPU v4", weights) == 1000

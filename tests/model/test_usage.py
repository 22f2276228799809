"""What an attempt used is never negative, never more than there was, and any split adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.job import Attempt, AttemptState, Job
from controlplane.model.lease import Lease, WorkerState, WorkerStatus
from controlplane.model.spec import parse_spec
from controlplane.model.usage import (
    UNKNOWN_MODEL,
    Usage,
    UsageFilter,
    UsageGroup,
    UsageSum,
    merged,
    summed,
    usage_of,
)
from tests.support.usages import usages

SECOND = 1_000_000
JOB = Job(
    job_id=7,
    spec=parse_spec({"command": ["true"], "account": "vision"}),
    spec_sha256="",
    owner="ada",
    account="vision",
    priority=0,
    created_us=0,
)


def lease(number: int, *devices: str, removed_us: int | None = 100 * SECOND) -> Lease:
    return Lease(
        lease_id=number,
        token=number,
        job_id=7,
        attempt=1,
        node_uuid="n",
        first_rank=0,
        workers=1,
        device_ids=devices,
        cpu_millicores=1500,
        memory_bytes=1 << 30,
        added_us=10 * SECOND,
        removed_us=removed_us,
    )


def attempt(state: AttemptState = AttemptState.SUCCEEDED, *moments: int | None) -> Attempt:
    """An attempt that was started, ran and was stopped at these moments."""
    started_us, running_us, stopped_us = moments or (None, None, None)
    workers = (
        WorkerStatus(
            rank=0,
            local_rank=0,
            state=WorkerState.ENDED,
            stdout_bytes=5,
            stderr_bytes=6,
            peak_memory_bytes=300,
        ),
        WorkerStatus(
            rank=1, local_rank=0, state=WorkerState.LOST, stdout_bytes=50, stderr_bytes=60
        ),
    )
    return Attempt(
        job_id=7,
        number=1,
        state=state,
        lease_ids=(1, 2),
        workers=workers,
        created_us=10 * SECOND,
        started_us=started_us,
        running_us=running_us,
        stopped_us=stopped_us,
    )


def used(tried: Attempt, *leases: Lease, since: int = 3 * SECOND, now: int = 100 * SECOND) -> Usage:
    models = {"a": "H100", "b": "H100", "c": "A100"}
    return usage_of(tried, leases, models, JOB, waits_since_us=since, now_us=now)


def phases(usage: Usage) -> list[int]:
    lengths = (usage.staging_us, usage.starting_us, usage.running_us, usage.stopping_us)
    return [length // SECOND for length in lengths]


def test_what_is_leased_counts_from_its_placement_until_it_is_given_back() -> None:
    usage = used(attempt(), lease(1, "a", "b"), lease(2, "c", "gone"))

    assert usage.held_us == 90 * SECOND
    assert usage.devices == (("A100", 1), ("H100", 2), (UNKNOWN_MODEL, 1))
    assert (usage.cpu_millicores, usage.memory_bytes) == (3000, 2 << 30)
    assert (usage.stdout_bytes, usage.stderr_bytes, usage.peak_memory_bytes) == (55, 66, 300)
    assert (usage.owner, usage.account, usage.key) == ("ada", "vision", (7, 0, 1))
    assert usage.waiting_us == 7 * SECOND


@pytest.mark.parametrize(
    ("moments", "lengths"),
    [
        ((20, 30, 80), [10, 10, 50, 20]),
        ((None, None, None), [90, 0, 0, 0]),
        ((20, None, None), [10, 80, 0, 0]),
        ((20, 30, None), [10, 10, 70, 0]),
        ((None, None, 40), [30, 0, 0, 60]),
        ((20, None, 40), [10, 20, 0, 60]),
        ((5, 3, 500), [0, 0, 90, 0]),
    ],
    ids=[
        "all of it",
        "still staging",
        "still starting",
        "still running",
        "stopped while staging",
        "stopped while starting",
        "clocks that disagree",
    ],
)
def test_phases_follow_one_another_without_a_gap(
    moments: tuple[int | None, int | None, int | None], lengths: list[int]
) -> None:
    in_us = (None if moment is None else moment * SECOND for moment in moments)
    tried = attempt(AttemptState.SUCCEEDED, *in_us)

    assert phases(used(tried, lease(1))) == lengths


def test_an_attempt_that_lives_counts_up_to_now() -> None:
    tried = attempt(AttemptState.RUNNING, 12 * SECOND, 13 * SECOND, None)

    assert used(tried, lease(1, "a", removed_us=None), now=40 * SECOND).held_us == 30 * SECOND
    assert used(tried, lease(1, "a", removed_us=None), now=5 * SECOND).held_us == 0


@given(*(st.none() | st.integers(-(10**9), 10**9) for _ in range(4)), st.integers(0, 10**9))
def test_no_clock_makes_usage_negative(
    started: int | None, running: int | None, stopped: int | None, removed: int | None, since: int
) -> None:
    tried = attempt(AttemptState.SUCCEEDED, started, running, stopped)
    usage = used(tried, lease(1, "a", removed_us=removed), since=since)

    parts = (usage.staging_us, usage.starting_us, usage.running_us, usage.stopping_us)
    assert min(*parts, usage.waiting_us, usage.held_us) >= 0
    assert sum(parts) == usage.held_us


@given(st.lists(usages(), max_size=12), st.sets(st.integers(0, 1000), min_size=2, max_size=6))
def test_windows_that_tile_a_range_add_up_to_the_whole(
    several: list[Usage], edges: set[int]
) -> None:
    several = distinct(several)
    ordered = sorted(edges)
    for by in (None, *UsageGroup):
        whole, _ = summed(several, UsageFilter(from_us=ordered[0], to_us=ordered[-1]), by)
        times: Counter[object] = Counter()
        for begin, end in pairwise(ordered):
            parts, _ = summed(several, UsageFilter(from_us=begin, to_us=end), by)
            times.update(amounts(parts))
        assert +times == +amounts(whole)


@given(st.lists(usages(), max_size=12), st.integers(0, 1000), st.integers(1, 1000))
def test_devices_are_held_no_longer_than_there_were_devices_and_time(
    several: list[Usage], begin: int, length: int
) -> None:
    which = UsageFilter(from_us=begin, to_us=begin + length)
    found, _ = summed(several, which, None)
    capacity = sum(count for usage in several for _, count in usage.devices)

    for one in found.values():
        assert 0 <= sum(one.device_us.values()) <= capacity * length
        assert 0 <= one.failed_attempts + one.living_attempts <= one.attempts
        assert one.jobs <= one.attempts


@given(st.lists(usages(), max_size=12), st.integers(0, 12))
def test_the_sum_of_two_parts_is_the_sum_of_all(several: list[Usage], cut: int) -> None:
    several = distinct(several)
    which = UsageFilter(from_us=100, to_us=900)
    for by in (None, *UsageGroup):
        (first, met), (second, also_met) = (
            summed(part, which, by) for part in (several[:cut], several[cut:])
        )
        both = Counter(key for key, _ in met & also_met)
        whole, _ = summed(several, which, by)
        assert whole == {
            key: merged(first.get(key, UsageSum()), second.get(key, UsageSum()), both[key])
            for key in first.keys() | second.keys()
        }


def test_an_attempt_on_the_edge_of_two_windows_counts_in_one_of_them() -> None:
    at_once = replace(used(attempt(), lease(1, "a")), from_us=50, until_us=50)
    before, after = UsageFilter(from_us=0, to_us=50), UsageFilter(from_us=50, to_us=100)

    assert [before.takes(at_once), after.takes(at_once)] == [False, True]
    assert after.cut_us(at_once) == 0
    until = replace(at_once, from_us=40)
    assert [before.takes(until), after.takes(until)] == [True, False]


def test_an_attempt_on_several_models_counts_under_each_and_once_in_all() -> None:
    usage = used(attempt(AttemptState.FAILED), lease(1, "a", "c"))
    which = UsageFilter(from_us=0, to_us=200 * SECOND)

    by_model, _ = summed([usage], which, UsageGroup.MODEL)
    assert {key: one.device_us for key, one in by_model.items()} == {
        "A100": {"A100": 90 * SECOND},
        "H100": {"H100": 90 * SECOND},
    }
    in_all, _ = summed([usage], which, None)
    assert (in_all[""].attempts, in_all[""].failed_attempts, in_all[""].jobs) == (1, 1, 1)
    assert in_all[""].core_ns == 1500 * 90 * SECOND


def amounts(sums: dict[int | str, UsageSum]) -> Counter[object]:
    found: Counter[object] = Counter()
    for key, one in sums.items():
        found[key, "cores"] += one.core_ns
        for model, time_us in one.device_us.items():
            found[key, model] += time_us
    return found


def distinct(several: list[Usage]) -> list[Usage]:
    return list({usage.key: usage for usage in several}.values())

"""Usage is written down with an attempt's end, and summed alike by every store."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.model.job import AttemptState, JobState
from controlplane.model.lease import LeasePhase
from controlplane.model.usage import Usage, UsageFilter, UsageGroup, UsageSum, summed
from controlplane.registry.memory import MemoryStore
from controlplane.registry.registry import Registry
from controlplane.registry.store import JobFilter
from controlplane.registry.usage import UsagePage, usage_page
from tests.support.examples import examples
from tests.support.usages import commit_usages, usages
from tests.support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.store import Store
    from tests.support.stores import Stores

SECOND = 1_000_000
H100 = "NVIDIA H100 80GB HBM3"


def start(world: World, job_id: int) -> None:
    assert world.tick().placed == 1
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, status)


def end(world: World, job_id: int, *, exit_code: int = 0, peak: int | None = None) -> None:
    for uuid, status in world.statuses(job_id).items():
        done = world.ended(status, exit_code=exit_code)
        workers = tuple(replace(w, peak_memory_bytes=peak, stdout_bytes=3) for w in done.workers)
        world.report(uuid, replace(done, workers=workers))


def page(world: World, by: UsageGroup = UsageGroup.USER, **more: Any) -> UsagePage:
    now_us = world.clock.now_us()
    asked = {"from_us": 0, "to_us": now_us, **more}
    return usage_page(
        world.store,
        world.registry.living(),
        UsageFilter(**asked),
        by,
        now_us=now_us,
        after=None,
        limit=10,
    )


def test_usage_is_written_down_with_the_end_of_an_attempt(world: World) -> None:
    world.join("a", gpus=4)
    world.open_account("vision")
    job_id = world.submit(resources={"gpus": 2, "cpus": 0.5, "memory": "1GiB"}, account="vision")
    world.clock.advance(5 * SECOND)
    start(world, job_id)
    assert world.registry.job(job_id).usages == {}
    world.clock.advance(60 * SECOND)
    end(world, job_id, peak=12345)

    for record in (
        world.registry.job(job_id),
        world.store.jobs(JobFilter(), before=None, limit=1, full=True)[0],
    ):
        (usage,) = record.usages.values()
        assert usage.devices == ((H100, 2),)
        assert (usage.held_us, usage.waiting_us) == (60 * SECOND, 5 * SECOND)
        assert (usage.cpu_millicores, usage.memory_bytes) == (500, 1 << 30)
        assert (usage.peak_memory_bytes, usage.stdout_bytes) == (12345, 3)
        assert (usage.owner, usage.account) == ("alice", "vision")
        assert usage.state is AttemptState.SUCCEEDED
        last = world.store.events("", after=usage.seq - 1, limit=9)
        assert [event.kind for event in last] == ["attempt.succeeded"]


def test_what_was_written_after_a_worker_had_ended_is_counted_too(world: World) -> None:
    node = world.join("a")
    job_id = world.submit()
    start(world, job_id)
    done = world.ended(world.statuses(job_id)[node])
    (worker,) = done.workers
    early = replace(worker, stdout_bytes=3, stderr_bytes=4, peak_memory_bytes=5)
    world.report(node, replace(done, phase=LeasePhase.RUNNING, workers=(early,)))
    late = replace(early, stdout_bytes=30, exit_code=9)
    world.report(node, replace(done, workers=(late,)))

    (usage,) = world.registry.job(job_id).usages.values()
    assert (usage.stdout_bytes, usage.stderr_bytes, usage.peak_memory_bytes) == (30, 4, 5)
    assert world.job(job_id).exit_code == 0  # how it ended does not change any more


def test_a_second_attempt_waits_from_when_the_first_gave_its_leases_back(world: World) -> None:
    world.join("a")
    job_id = world.submit(max_attempts=2)
    world.clock.advance(2 * SECOND)
    start(world, job_id)
    world.clock.advance(10 * SECOND)
    end(world, job_id, exit_code=1)
    world.registry = Registry(world.store, world.clock.now_us)  # kept, not only remembered
    world.clock.advance(7 * SECOND)
    start(world, job_id)
    world.clock.advance(20 * SECOND)
    end(world, job_id)

    first, second = world.registry.job(job_id).usages.values()
    assert (first.waiting_us, first.held_us) == (2 * SECOND, 10 * SECOND)
    assert (second.waiting_us, second.held_us) == (7 * SECOND, 20 * SECOND)
    total = page(world).total
    assert (total.jobs, total.attempts, total.failed_attempts) == (1, 2, 1)


def test_what_lives_counts_up_to_now_and_its_job_once(world: World) -> None:
    world.join("a", gpus=1)
    job_id = world.submit(max_attempts=2, resources={"gpus": 1})
    start(world, job_id)
    world.clock.advance(10 * SECOND)
    end(world, job_id, exit_code=1)
    world.clock.advance(5 * SECOND)
    start(world, job_id)
    world.clock.advance(30 * SECOND)

    for by in UsageGroup:
        told = page(world, by)
        ((_, row),) = told.sums
        assert row == told.total
        assert row.device_us == {H100: 40 * SECOND}
        assert (row.jobs, row.attempts, row.living_attempts) == (1, 2, 1)
        assert row.failed_attempts == 1
    before = page(world, to_us=world.clock.now_us() - 30 * SECOND).total
    assert (before.device_us, before.living_attempts) == ({H100: 10 * SECOND}, 0)


def test_an_attempt_that_was_never_seen_running_held_its_devices_all_the_same(
    world: World,
) -> None:
    world.join("a", gpus=1)
    job_id = world.submit(resources={"gpus": 1})
    assert world.tick().placed == 1
    world.cancel(job_id)
    world.clock.advance(3 * SECOND)
    (node,) = world.statuses(job_id)
    world.report(node)  # not acknowledged: still to come
    total = page(world).total
    assert total.device_us == {H100: 3 * SECOND}
    assert total.living_attempts == 1


def test_only_the_asked_owner_and_account_count(world: World) -> None:
    world.join("a")
    for account in ("vision", "speech"):
        world.open_account(account)
        job_id = world.submit(account=account)
        start(world, job_id)
        world.clock.advance(SECOND)
        end(world, job_id)

    assert [key for key, _ in page(world, UsageGroup.ACCOUNT).sums] == ["speech", "vision"]
    assert [key for key, _ in page(world, UsageGroup.JOB).sums] == [1, 2]
    assert page(world, account="vision").total.jobs == 1
    assert page(world, owner="alice").total.jobs == 2
    assert page(world, owner="bob") == UsagePage(sums=[], total=UsageSum(), more=False)


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # makes databases when asked
)
@given(
    st.lists(usages(), max_size=20),
    st.integers(0, 1000),
    st.integers(1, 1000),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_every_store_sums_as_the_pure_function_does(
    stores: Stores, several: list[Usage], begin: int, length: int, seq: int, limit: int
) -> None:
    several = list({usage.key: usage for usage in several}.values())
    known = [usage for usage in several if usage.seq <= seq]
    which = UsageFilter(from_us=begin, to_us=begin + length)
    with stores.database() as connect:
        store = connect()
        commit_usages(store, several)
        for by in (None, *UsageGroup):
            expected, met = summed(known, which, by)
            assert in_pages(store, which, by, seq, limit) == expected
            some = {1, 2, 3}
            assert store.usage_met(which, by, seq=seq, job_ids=some) == {
                (key, job_id) for key, job_id in met if job_id in some
            }


def in_pages(
    store: Any, which: UsageFilter, by: UsageGroup | None, seq: int, limit: int
) -> dict[int | str, UsageSum]:
    """All sums, a page at a time; in order."""
    found: dict[int | str, UsageSum] = {}
    after = None
    while True:
        part = store.usage_sums(which, by, seq=seq, after=after, limit=limit)
        assert list(part) == sorted(part)
        found |= part
        if by is None or len(part) < limit:
            return found
        after = list(part)[-1]


def test_sums_do_not_overflow_a_database(connected: Callable[[], Store]) -> None:
    store = connected()
    year_us = 366 * 24 * 3600 * SECOND
    several = [
        Usage(
            job_id=number,
            task_index=0,
            attempt=1,
            owner="ada",
            account="default",
            state=AttemptState.SUCCEEDED,
            seq=1,
            from_us=0,
            until_us=year_us - 1,
            devices=((H100, 1000),),
            cpu_millicores=100_000_000,
            memory_bytes=1 << 50,
            stdout_bytes=0,
            stderr_bytes=0,
            waiting_us=0,
            staging_us=0,
            starting_us=0,
            running_us=year_us - 1,
            stopping_us=0,
        )
        for number in range(1, 101)
    ]
    commit_usages(store, several)
    which = UsageFilter(from_us=0, to_us=year_us)
    found = store.usage_sums(which, None, seq=1, after=None, limit=1)

    assert found[""].core_ns == 100 * 100_000_000 * (year_us - 1)
    assert found[""].device_us == {H100: 100_000 * (year_us - 1)}


STEP = st.sampled_from(["submit", "tick", "second", "succeed", "fail", "cancel"])


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(STEP, max_size=40))
def test_devices_are_never_held_beyond_capacity_and_windows_add_up(steps: list[str]) -> None:
    world = World(MemoryStore())
    begin_us = world.clock.now_us()
    world.join("a", gpus=3)
    edges = [begin_us]
    for step in steps:
        live = [r.job for r in world.store.jobs(JobFilter(), before=None, limit=99, full=False)]
        active = [job.job_id for job in live if job.state is JobState.ACTIVE]
        if step == "submit":
            world.submit(resources={"gpus": 1 + len(live) % 2}, max_attempts=2)
        elif step == "tick":
            world.tick()
        elif step == "second":
            world.clock.advance(SECOND)
            edges.append(world.clock.now_us())
        elif step == "cancel" and live:
            world.cancel(live[0].job_id)
        elif active:
            end(world, active[0], exit_code=0 if step == "succeed" else 1)
    world.clock.advance(SECOND)
    edges.append(world.clock.now_us())

    total = page(world, from_us=begin_us).total
    parts = [page(world, from_us=since, to_us=until).total for since, until in pairwise(edges)]
    held = sum(total.device_us.values())
    assert held == sum(sum(part.device_us.values()) for part in parts)
    assert total.core_ns == sum(part.core_ns for part in parts)
    assert 0 <= held <= 3 * (edges[-1] - begin_us)
    for part, (since, until) in zip(parts, pairwise(edges), strict=True):
        assert sum(part.device_us.values()) <= 3 * (until - since)
    for record in world.store.jobs(JobFilter(), before=None, limit=99, full=True):
        past = list(record.usages.values())
        if past and record.job.state.final and past[-1].attempt == len(record.attempts):
            told = sum(usage.waiting_us + usage.held_us for usage in past)
            assert told == past[-1].until_us - record.job.created_us

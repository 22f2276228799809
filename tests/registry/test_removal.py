"""One contract, every store: what is over goes as a whole, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from controlplane.engine import retention
from controlplane.model.errors import NotFound
from controlplane.model.event import CONTROL_PLANE
from controlplane.model.job import JobState
from controlplane.model.keep import DAY_US, Keep
from controlplane.model.progress import LeaseProgress, Point
from controlplane.model.usage import UsageFilter, UsageGroup
from controlplane.registry import nodes, progress
from controlplane.registry.registry import Registry
from controlplane.registry.removal import Doomed, remove
from controlplane.registry.store import JobFilter, Whose

if TYPE_CHECKING:
    from tests.support.world import World

SHA = "ab" * 32
KEEP = Keep(jobs_us=30 * DAY_US, usage_us=90 * DAY_US, events_us=60 * DAY_US)


class Folders:
    """Files of jobs, of which it is known which were removed."""

    def __init__(self) -> None:
        self.removed: list[int] = []

    def remove(self, job_id: int) -> None:
        self.removed.append(job_id)


class Turns:
    """Takes turns of retention in the test's own thread."""

    def __init__(self, world: World, keep: Keep = KEEP) -> None:
        self.world, self.files, self.reached = world, Folders(), retention.Reached()
        world.registry = Registry(world.store, world.clock.now_us, keep)

    def __call__(self) -> bool:
        registry, submit = self.world.registry, self.world.registry.submit

        def at_once(*args: Any) -> Any:
            future: Any = submit(*args)
            registry.run_once()
            return future

        registry.submit = at_once  # type: ignore[assignment, method-assign]
        try:
            now_us = self.world.clock.now_us()
            return retention.turn(registry, (self.files,), self.reached, now_us)
        finally:
            registry.submit = submit  # type: ignore[method-assign]


def run(world: World, **document: Any) -> int:
    """A job that has run and ended."""
    job_id = world.submit(**document)
    assert world.tick().placed == 1
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, status)
    key = world.attempt(job_id).key
    told = LeaseProgress(lease_id=1, token=1, rank=0, points=(Point(time_us=1, step=1),))
    world.do(lambda draft: progress.take_in(draft, [(key, told)], {}))
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, world.ended(status))
    return job_id


def kinds(world: World, resource: str = "") -> list[str]:
    return [event.kind for event in world.store.events(resource, after=0, limit=1000)]


def held_us(world: World) -> int:
    """Devices × time of all usage on record."""
    which = UsageFilter(from_us=0, to_us=world.clock.now_us() + 1)
    sums = world.store.usage_sums(which, UsageGroup.USER, seq=10**9, after=None, limit=9)
    return sum(us for one in sums.values() for us in one.device_us.values())


def test_a_job_goes_with_all_that_was_its_own_but_what_it_used(world: World) -> None:
    turn = Turns(world)
    world.join("a", gpus=2)
    world.clock.advance(DAY_US)
    old = run(world, resources={"gpus": 2}, working_dir={"sha256": SHA, "size": 7})
    lease_id = world.attempt(old).lease_ids[0]
    world.clock.advance(20 * DAY_US)
    young, lives = run(world), world.submit()
    ended_us = world.job(old).ended_us
    assert ended_us is not None
    world.clock.advance(ended_us + 30 * DAY_US - world.clock.now_us())
    turn()
    assert world.job(old).state is JobState.SUCCEEDED  # it ended 30 days ago to the microsecond
    world.clock.advance(1)
    before = kinds(world, "")
    assert not turn()

    for look in (world.registry, Registry(world.store, world.clock.now_us, KEEP)):
        with pytest.raises(NotFound, match="jobs/1 was removed: ended jobs are kept for 30 days"):
            look.job(old)
        assert look.job(young).job.state is JobState.SUCCEEDED
        assert look.job(lives).job.state is JobState.PENDING
        assert not look.knows_progress((old, 0, 1))
    assert world.store.lease(lease_id) is None
    assert world.store.owners([old, young, lives]) == {
        young: Whose("alice", "default"),
        lives: Whose("alice", "default"),
    }
    assert [
        r.job.job_id for r in world.store.jobs(JobFilter(), before=None, limit=9, full=True)
    ] == [lives, young]
    assert world.store.blobs_used([SHA]) == frozenset()
    assert kinds(world, f"jobs/{old}") == []
    of_old = ["job.submitted", "attempt.placed", "attempt.running", "attempt.succeeded"]
    assert len(kinds(world)) == len(before) - len(of_old) + 1
    last = world.store.events("records", after=0, limit=9)[-1]
    before_us = world.clock.now_us() - 30 * DAY_US
    assert (last.kind, last.actor) == ("records.removed", CONTROL_PLANE)
    assert last.changed == {"jobs": 1, "jobs_before_us": before_us}
    assert turn.files.removed == [old]
    which = UsageFilter(from_us=0, to_us=world.clock.now_us())
    sums = world.store.usage_sums(which, UsageGroup.JOB, seq=10**9, after=None, limit=9)
    assert set(sums) == {old, young}


def test_numbers_of_removed_jobs_are_never_given_out_again(world: World) -> None:
    turn = Turns(world)
    first = world.submit()
    world.cancel(first)
    world.clock.advance(31 * DAY_US)
    turn()
    turn = Turns(world)
    assert world.submit() == first + 1
    with pytest.raises(NotFound, match="jobs/3: there is no such job"):
        world.registry.job(first + 2)
    assert world.cancel(first).already_ended == (f"jobs/{first}",)


def test_what_a_registry_that_keeps_for_ever_says_of_what_was_removed_before(world: World) -> None:
    turn = Turns(world)
    world.cancel(world.submit())
    world.clock.advance(31 * DAY_US)
    turn()
    Turns(world, Keep())
    words = "jobs/1 was removed: not all that ended before 2023-11-15 22:13 UTC was kept"
    with pytest.raises(NotFound, match=words):
        world.registry.job(1)


def test_a_turn_is_small_and_what_is_left_is_the_next_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TURN_JOBS", 3)
    turn = Turns(world)
    for _ in range(7):
        world.cancel(world.submit())
    world.clock.advance(31 * DAY_US)
    assert [turn() for _ in range(3)] == [True, True, False]
    assert turn.files.removed == [1, 2, 3, 4, 5, 6, 7]
    told = [e.changed["jobs"] for e in world.store.events("records", after=0, limit=9)]
    assert told == [3, 3, 1]


def test_a_job_with_very_many_rows_goes_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TURN_ROWS", 10)  # a cancelled job has 2 events
    turn = Turns(world)
    world.join("a", cpus=64)
    for workers in (None, None, 40, None):
        if workers:
            run(world, workers=workers, resources={"cpus": 0.1, "memory": "1MiB"})
        else:
            world.cancel(world.submit())
        world.clock.advance(1)
    world.clock.advance(31 * DAY_US)
    gone = []
    more = True
    while more:
        more = turn()
        gone.append(list(turn.files.removed))
        turn.files.removed.clear()
    assert gone == [[1, 2], [3], [4]]


def test_usage_outlives_its_job_and_goes_by_a_time_of_its_own(world: World) -> None:
    turn = Turns(world)
    world.join("a", gpus=2)
    job_id = world.submit(resources={"gpus": 2})
    world.tick()
    world.clock.advance(DAY_US)
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, status)
        world.report(uuid, world.ended(status))
    assert held_us(world) == 2 * DAY_US
    world.clock.advance(31 * DAY_US)
    turn()
    assert world.registry.usage_removed_us == 0
    assert held_us(world) == 2 * DAY_US
    world.clock.advance(60 * DAY_US)
    turn()
    assert held_us(world) == 0
    assert world.registry.usage_removed_us == world.clock.now_us() - 90 * DAY_US
    again = Registry(world.store, world.clock.now_us)
    assert again.usage_removed_us == world.registry.usage_removed_us


def test_events_of_no_job_go_and_those_of_kept_jobs_stay(world: World) -> None:
    turn = Turns(world)
    node = world.join("a")
    lives = world.submit(resources={"gpus": 1})
    world.do(lambda draft: nodes.drain(draft, node, "fans"))
    world.clock.advance(59 * DAY_US)
    world.do(lambda draft: nodes.undrain(draft, node))
    turn()
    assert kinds(world) == ["node.joined", "job.submitted", "node.drained", "node.undrained"]
    world.clock.advance(2 * DAY_US)
    turn()
    assert kinds(world) == ["job.submitted", "node.undrained", "records.removed"]
    world.cancel(lives)
    world.clock.advance(31 * DAY_US)
    turn()
    assert kinds(world, f"jobs/{lives}") == []


def test_what_comes_late_for_a_removed_job_leaves_nothing_behind(world: World) -> None:
    turn = Turns(world)
    world.join("a")
    job_id = run(world)
    record = world.registry.job(job_id)
    key = record.attempts[0].key
    world.clock.advance(31 * DAY_US)
    past = {key: progress.Past(progress=record.progress[key], ended_us=record.job.ended_us)}
    turn()
    told = LeaseProgress(lease_id=1, token=1, rank=0, points=(Point(time_us=2, step=2),))
    assert world.do(lambda draft: progress.take_in(draft, [(key, told)], {})) == {}
    assert world.do(lambda draft: progress.take_in(draft, [(key, told)], past)) == {}
    fresh = Registry(world.store, world.clock.now_us)
    assert not fresh.knows_progress(key)
    assert world.store.job(job_id) is None


def test_a_job_that_lives_is_never_removed(world: World) -> None:
    turn = Turns(world)
    world.join("a")
    waits, runs = world.submit(resources={"gpus": 9}), world.submit()
    world.tick()
    assert world.attempt(runs).state.final is False
    world.clock.advance(1000 * DAY_US)
    turn()
    assert world.job(waits).state is JobState.PENDING
    assert world.job(runs).state is JobState.ACTIVE
    assert world.store.ends([waits, runs, 99]) == {waits: None, runs: None}
    doomed = Doomed(jobs=(runs,), jobs_before_us=1)
    with pytest.raises(Exception, match="internal error"):
        world.do(lambda draft: remove(draft, doomed))
    assert world.attempt(runs).state.final is False
    assert world.store.lease(1) is not None


def test_how_far_events_were_removed_is_known_by_number(world: World) -> None:
    turn = Turns(world)
    world.join("a")
    job_id = run(world)
    of_job = world.store.events(f"jobs/{job_id}", after=0, limit=99)[-1].seq
    world.clock.advance(30 * DAY_US + 10**9)
    lives = world.submit()
    page = world.store.event_page(f"jobs/{lives}", after=0, limit=9)
    assert (page.removed_seq, page.seq, page.upto(9)) == (0, world.registry.seq, page.seq)
    assert page.upto(1) == page.events[-1].seq
    turn()
    for look in (world.registry, Registry(world.store, world.clock.now_us, KEEP)):
        assert look.events_removed_seq == of_job
    page = world.store.event_page("", after=of_job, limit=1)
    assert (page.removed_seq, page.seq) == (of_job, world.registry.seq)
    assert dict(world.store.jobs_of([job_id, lives])) == {lives: world.job(lives)}

"""Arrays of tasks, and jobs that are held, requeued and changed, on every store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.model.errors import InvalidRequest, NotFound, WrongState
from controlplane.model.job import AttemptState, JobState
from controlplane.model.lease import LeaseEnd, LeasePhase, LeaseStatus
from controlplane.registry import jobs
from controlplane.registry.which import Which

if TYPE_CHECKING:
    from controlplane.model.lease import Lease
    from tests.support.world import World


def running(world: World, job_id: int) -> list[int]:
    """Indexes of the tasks of which an attempt lives."""
    live = world.registry._facts.attempts.values()
    return sorted(a.task_index for a in live if a.job_id == job_id)


def finish(world: World, job_id: int, index: int, exit_code: int = 0) -> None:
    """Have a task's workers run and end, and the others of its node run on."""
    facts = world.registry._facts
    (lease,) = (x for x in facts.leases.values() if (x.job_id, x.task_index) == (job_id, index))
    held = [facts.leases[i] for i in sorted(facts.node_leases[lease.node_uuid])]
    runs = {x.lease_id: status(world, x) for x in held}
    world.report(lease.node_uuid, *runs.values())
    over = {**runs, lease.lease_id: world.ended(runs[lease.lease_id], exit_code=exit_code)}
    world.report(lease.node_uuid, *over.values())


def status(world: World, lease: Lease) -> LeaseStatus:
    ranks = range(lease.first_rank, lease.first_rank + lease.workers)
    return LeaseStatus(
        lease_id=lease.lease_id,
        token=lease.token,
        phase=LeasePhase.RUNNING,
        workers=tuple(world.worker(rank, rank - lease.first_rank) for rank in ranks),
    )


def test_an_array_is_one_job_and_one_event_until_its_tasks_start(world: World) -> None:
    before = world.registry._facts.cluster.seq
    job_id = world.submit(tasks="0-9999")
    assert world.registry._facts.cluster.seq == before + 1
    record = world.store.job(job_id)
    assert record is not None
    assert (len(record.job.tasks), record.tasks, record.job.state) == (10_000, (), "pending")
    assert world.store.tasks(job_id, states=(), after=-1, limit=10).tasks == ()


def test_tasks_start_in_order_and_as_many_at_once_as_may(world: World) -> None:
    world.join("a", cpus=64)
    job_id = world.submit(tasks="3-9:2,20%2")
    world.tick()
    assert running(world, job_id) == [3, 5]
    assert "2 tasks may run at once" in world.registry.reason(world.job(job_id))
    world.tick()
    assert running(world, job_id) == [3, 5]
    finish(world, job_id, 3)
    world.tick()
    assert running(world, job_id) == [5, 7]
    for index in (5, 7, 9, 20):
        world.tick()
        finish(world, job_id, index)
    over = world.job(job_id)
    assert (over.state, over.exit_code) == (JobState.SUCCEEDED, 0)
    assert over.reason == "5 succeeded of 5 tasks"
    page = world.store.tasks(job_id, states=(), after=5, limit=2)
    assert [task.index for task in page.tasks] == [7, 9]
    assert [attempt.task_index for attempt in page.attempts] == [7, 9]


def test_a_task_is_tried_again_by_itself_and_its_failure_is_the_jobs(world: World) -> None:
    world.join("a", cpus=64)
    job_id = world.submit(tasks="0-2", max_attempts=2)
    world.tick()
    finish(world, job_id, 1, exit_code=3)
    assert world.job(job_id).state is JobState.ACTIVE
    finish(world, job_id, 0)
    finish(world, job_id, 2)
    assert world.job(job_id).state is JobState.PENDING
    world.tick()
    assert "backs off" in world.registry.reason(world.job(job_id))
    world.clock.advance(2_000_000)
    world.tick()
    assert running(world, job_id) == [1]
    finish(world, job_id, 1, exit_code=3)
    over = world.job(job_id)
    assert (over.state, over.exit_code) == (JobState.FAILED, 1)
    assert over.reason == "1 failed, 2 succeeded of 3 tasks"
    failed = world.store.tasks(job_id, states={JobState.FAILED}, after=-1, limit=9)
    assert [(t.index, t.attempts) for t in failed.tasks] == [(1, 2)]
    record = world.registry.job(job_id, 1)
    assert [a.number for a in record.attempts] == [1, 2]
    assert set(record.usages) == {(job_id, 1, 1), (job_id, 1, 2)}


def test_tasks_are_cancelled_alone_before_and_after_their_start(world: World) -> None:
    node = world.join("a", cpus=2)
    job_id = world.submit(tasks="0-4")
    world.tick()
    assert running(world, job_id) == [0, 1]
    which = [Which(job_id, index) for index in (1, 3)]
    done = world.do(lambda draft: jobs.cancel(draft, which))
    assert done.cancelled == (f"jobs/{job_id}/tasks/1", f"jobs/{job_id}/tasks/3")
    again = world.do(lambda draft: jobs.cancel(draft, which))
    assert again.already_ended == (f"jobs/{job_id}/tasks/3",)
    with pytest.raises(NotFound, match="its tasks are 0-4"):
        world.do(lambda draft: jobs.cancel(draft, [Which(job_id, 5)]))
    assert [order.stop for order in world.registry.desire(node).orders] == [False, True]
    finish(world, job_id, 1, exit_code=143)
    world.tick()
    assert running(world, job_id) == [0, 2]
    for index in (0, 2):
        finish(world, job_id, index)
    world.tick()
    finish(world, job_id, 4)
    over = world.job(job_id)
    assert (over.state, over.reason) == (
        JobState.CANCELLED,
        "2 cancelled, 3 succeeded of 5 tasks",
    )


def test_a_cancelled_array_ends_with_its_last_task(world: World) -> None:
    world.join("a", cpus=2)
    job_id = world.submit(tasks="0-9")
    world.tick()
    finish(world, job_id, 0)
    world.cancel(job_id)
    assert world.job(job_id).state is JobState.ACTIVE
    world.tick()
    assert running(world, job_id) == [1]
    finish(world, job_id, 1, exit_code=143)
    over = world.job(job_id)
    assert (over.state, over.exit_code) == (JobState.CANCELLED, 130)
    assert over.reason == "9 cancelled, 1 succeeded of 10 tasks"
    waiting = world.submit(tasks="0-9", workers=1000)
    world.cancel(waiting)
    assert world.job(waiting).state is JobState.CANCELLED


def test_what_is_for_one_task_wants_its_index(world: World) -> None:
    world.join("a", cpus=64)
    job_id = world.submit(tasks="4-6")
    with pytest.raises(InvalidRequest, match=f"name one of its tasks, e.g. jobs/{job_id}/tasks/4"):
        world.do(lambda draft: jobs_signal(draft, Which(job_id)))
    with pytest.raises(WrongState, match="waits"):
        world.do(lambda draft: jobs_signal(draft, Which(job_id, 5)))


def jobs_signal(draft: Any, which: Which) -> Any:
    from controlplane.registry import signals

    return signals.send(draft, which, "USR1", ())


def test_an_array_in_the_middle_of_its_life_is_loaded_again(world: World) -> None:
    world.join("a", cpus=3)
    job_id = world.submit(tasks="0-7%3", max_attempts=2)
    world.tick()
    finish(world, job_id, 0)
    finish(world, job_id, 1, exit_code=1)
    world.do(lambda draft: jobs.cancel(draft, [Which(job_id, 5)]))
    world.tick()
    held = world.registry._facts
    again = world.store.reload()
    assert again.jobs == held.jobs
    assert again.tasks == held.tasks
    assert again.attempts == held.attempts
    assert again.waiting == held.waiting
    assert again.live_tasks(job_id) == held.live_tasks(job_id) == {1, 2, 3, 4}


def test_many_jobs_are_accepted_with_one_event(world: World) -> None:
    first = world.submit()
    wanted = [jobs.Wanted(world.job(first).spec, world.job(first).spec_sha256, 7)] * 3
    before = world.registry._facts.cluster.seq
    numbers = world.do(lambda draft: jobs.submit(draft, wanted, hold=True))
    assert numbers == [first + 1, first + 2, first + 3]
    (event,) = world.store.events("", after=before, limit=9)
    assert (event.kind, event.resource) == ("jobs.submitted", f"jobs/{first + 1}-{first + 3}")
    assert event.changed == {"jobs": 3, "held_by": "alice"}, "history must tell why none starts"
    assert world.job(first + 3).submitted_seq == event.seq
    assert world.job(first + 3).held_by == "alice"


def test_a_held_job_starts_when_it_is_released(world: World) -> None:
    world.join("a")
    job_id = world.submit()
    world.do(lambda draft: jobs.hold(draft, [job_id]))
    world.tick()
    assert running(world, job_id) == []
    assert world.registry.reason(world.job(job_id)) == (
        f"held by alice; `ccctl release {job_id}` lets it go on"
    )
    world.do(lambda draft: jobs.release(draft, [job_id]))
    world.tick()
    assert running(world, job_id) == [0]
    world.cancel(job_id)
    finish(world, job_id, 0, exit_code=143)
    with pytest.raises(WrongState, match="has ended, and cannot be held"):
        world.do(lambda draft: jobs.hold(draft, [job_id]))


def test_a_requeued_job_starts_again_and_that_counts_against_nothing(world: World) -> None:
    node = world.join("a")
    job_id = world.submit(grace_period="7s")
    with pytest.raises(WrongState, match="waits already"):
        world.do(lambda draft: jobs.requeue(draft, [Which(job_id)]))
    world.tick()
    (status,) = world.statuses(job_id).values()
    world.report(node, status)
    tasks = world.do(lambda draft: jobs.requeue(draft, [Which(job_id)]))
    assert tasks == [f"jobs/{job_id}/tasks/0"]
    (order,) = world.registry.desire(node).orders
    assert (order.stop, order.grace_period_us) == (True, 7_000_000)
    world.report(node, replace(world.ended(status, exit_code=143), end=LeaseEnd.ORDERED))
    assert world.job(job_id).state is JobState.PENDING
    world.tick()
    first, second = world.registry.job(job_id).attempts
    assert (first.state, second.number) == (AttemptState.CANCELLED, 2)
    assert first.cause is not None
    assert first.cause.message == "requeued by alice"
    (task,) = world.registry.job(job_id).tasks
    assert (task.application_faults, task.infrastructure_faults, task.quick_requeues) == (0, 0, 0)


def test_a_requeue_gives_way_to_a_cancel(world: World) -> None:
    node = world.join("a")
    job_id = world.submit()
    world.tick()
    (status,) = world.statuses(job_id).values()
    world.report(node, status)
    world.do(lambda draft: jobs.requeue(draft, [Which(job_id)]))
    world.cancel(job_id)
    world.report(node, replace(world.ended(status, exit_code=143), end=LeaseEnd.ORDERED))
    assert world.job(job_id).state is JobState.CANCELLED


def test_a_changed_time_limit_reaches_the_nodes(world: World) -> None:
    node = world.join("a")
    job_id = world.submit(time_limit="1h", signal="USR1@1m")
    world.tick()
    (order,) = world.registry.desire(node).orders
    assert order.limit is None
    generation = world.registry.generation(node)
    change = jobs.Change(time_limit_us=1_800_000_000)
    world.do(lambda draft: jobs.update(draft, job_id, change))
    assert world.registry.generation(node) > generation
    (order,) = world.registry.desire(node).orders
    assert order.limit is not None
    assert order.limit.us == 1_800_000_000
    record = world.store.job(job_id)
    assert record is not None
    assert record.job.time_limit_us == 1_800_000_000
    longer = jobs.Change(time_limit_us=7_200_000_000)
    with pytest.raises(InvalidRequest, match="from an operator alone"):
        world.do(lambda draft: jobs.update(draft, job_id, longer))
    world.do(lambda draft: jobs.update(draft, job_id, replace(longer, by_operator=True)))
    with pytest.raises(InvalidRequest, match="is warned of its time limit"):
        world.do(lambda draft: jobs.update(draft, job_id, jobs.Change(time_limit_us=60_000_000)))


def test_a_changed_priority_class_changes_who_goes_first(world: World) -> None:
    first, second = world.submit(), world.submit()
    change = jobs.Change(priority_class="high", priority=2000)
    world.do(lambda draft: jobs.update(draft, second, change))
    world.join("a", cpus=1)
    world.tick()
    assert (running(world, first), running(world, second)) == ([], [0])
    assert world.store.reload().jobs[second].priority_class == "high"

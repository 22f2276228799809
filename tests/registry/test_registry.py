"""One contract, every store: what the registry promises."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.engine.upkeep import Liveness, check_nodes
from controlplane.model.errors import (
    NotAllowed,
    NotFound,
    RequestIdReused,
    StaleControlPlane,
    WrongState,
)
from controlplane.model.event import Actor
from controlplane.model.job import AttemptState, CauseKind, JobState
from controlplane.model.lease import LeaseEnd, LeasePhase
from controlplane.model.spec import parse_spec, spec_sha256
from controlplane.registry import jobs, nodes
from controlplane.registry.registry import Once, Registry
from controlplane.registry.store import JobFilter, RequestKey, Whose
from controlplane.registry.which import Which
from tests.support.world import ALICE, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from controlplane.registry.draft import Draft
    from controlplane.registry.store import Store

ALICES = Whose("alice", "default")


def repeated(world: World, command: Callable[[Draft], dict[str, object]]) -> Future[Any]:
    """Hand in a command under one request id, and do not wait for it."""
    key = RequestKey(principal="alice", request_id="r")
    return world.registry.submit(command, ALICE, Once(key=key, content_hash="h"))


def finish(world: World, job_id: int, *, exit_code: int = 0) -> None:
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, status)
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, world.ended(status, exit_code=exit_code))


def test_a_job_goes_from_waiting_to_its_end(world: World) -> None:
    node = world.join("a")
    job_id = world.submit(name="first")
    assert world.job(job_id).state is JobState.PENDING
    assert world.tick().placed == 1
    assert world.attempt(job_id).state is AttemptState.STAGING
    world.report(node, world.statuses(job_id)[node])
    assert world.attempt(job_id).state is AttemptState.RUNNING
    world.report(node, world.ended(world.statuses(job_id)[node]))
    job = world.job(job_id)
    assert (job.state, job.exit_code) == (JobState.SUCCEEDED, 0)
    assert job.started_us is not None
    assert world.registry.desire(node).orders == ()
    kinds = [event.kind for event in world.store.events(f"jobs/{job_id}", after=0, limit=100)]
    assert kinds == [
        "job.submitted",
        "attempt.placed",
        "attempt.running",
        "attempt.succeeded",
    ]


def test_a_repeat_gets_its_first_answer_though_it_could_not_be_done_again(world: World) -> None:
    done: list[bool] = []

    def once_only(draft: Draft) -> dict[str, object]:
        if done:
            raise WrongState("it was done before")
        draft.emit("cluster.test", "cluster", {})
        return {"number": 7}

    first = repeated(world, once_only)
    world.registry.run_once()
    done.append(True)
    again = repeated(world, once_only)
    world.registry.run_once()
    assert first.result(0) == again.result(0) == {"number": 7}


def test_a_repeat_keeps_nobody_of_its_group_from_being_answered(world: World) -> None:
    def job(draft: Draft) -> dict[str, object]:
        return {"job_id": jobs.submit(draft, [wanted])[0]}

    spec = parse_spec({"command": ["true"]})
    wanted = jobs.Wanted(spec, spec_sha256(spec), 1000)
    first = repeated(world, job)
    world.registry.run_once()
    again, other = repeated(world, job), world.registry.submit(job, ALICE)
    world.registry.run_once()
    assert again.result(0) == first.result(0)
    assert other.result(0) == {"job_id": int(first.result(0)["job_id"]) + 1}
    assert world.registry.last_job_id == other.result(0)["job_id"]


def test_numbers_of_events_have_no_gap_and_jobs_are_never_numbered_twice(world: World) -> None:
    first = world.submit()
    with pytest.raises(NotFound):
        world.cancel(999)
    second = world.submit()
    assert (first, second) == (1, 2)
    events = world.store.events("", after=0, limit=100)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_a_repeat_gets_the_first_answer_also_after_a_restart(world: World) -> None:
    first = world.submit(once="abc", name="x")
    assert world.submit(once="abc", name="x") == first
    world.registry = Registry(world.store, world.clock.now_us)
    assert world.submit(once="abc", name="x") == first
    with pytest.raises(RequestIdReused):
        world.submit(once="abc", name="y")


def test_a_gang_that_loses_a_worker_is_stopped_whole_and_the_cause_named(world: World) -> None:
    a, b = world.join("a"), world.join("b")
    job_id = world.submit(workers=2, workers_per_node=1)
    world.tick()
    running = world.statuses(job_id)
    for uuid, status in running.items():
        world.report(uuid, status)
    bad = next(uuid for uuid, status in running.items() if status.workers[0].rank == 1)
    world.report(bad, world.ended(running[bad], exit_code=3))
    attempt = world.attempt(job_id)
    assert attempt.state is AttemptState.STOPPING
    assert attempt.cause is not None
    assert attempt.cause.message.startswith("rank 1 on ")
    assert attempt.cause.message.endswith("exited with code 3")
    other = a if bad == b else b
    (order,) = world.registry.desire(other).orders
    assert order.stop
    assert order.grace_period_us == 2_000_000
    world.report(other, world.ended(running[other], exit_code=143))
    job = world.job(job_id)
    assert (job.state, job.exit_code) == (JobState.FAILED, 3)
    assert world.registry.desire(a).orders == world.registry.desire(b).orders == ()


def test_a_gang_whose_nodes_report_their_ends_one_by_one_ends(world: World) -> None:
    a, b = world.join("a"), world.join("b")
    job_id = world.submit(workers=2, workers_per_node=1)
    world.tick()
    running = world.statuses(job_id)
    for uuid, status in running.items():
        world.report(uuid, status)
    world.report(a, world.ended(running[a]))
    world.registry = Registry(world.store, world.clock.now_us)  # what was reported was kept
    assert world.job(job_id).state is JobState.ACTIVE
    world.report(b, world.ended(running[b]))
    assert world.job(job_id).state is JobState.SUCCEEDED


def test_a_fault_of_the_application_counts_and_is_tried_again_after_a_pause(world: World) -> None:
    world.join("a")
    job_id = world.submit(max_attempts=2)
    world.tick()
    finish(world, job_id, exit_code=1)
    assert world.job(job_id).state is JobState.PENDING
    assert world.tick().placed == 0
    assert "backs off" in world.registry.reason(world.job(job_id))
    world.clock.advance(1_000_000)
    assert world.tick().placed == 1
    finish(world, job_id, exit_code=1)
    assert world.job(job_id).state is JobState.FAILED
    assert [a.number for a in world.registry.job(job_id).attempts] == [1, 2]


def test_cancel_ends_a_waiting_job_at_once_and_an_active_one_by_its_nodes(world: World) -> None:
    node = world.join("a")
    waiting = world.submit(workers=1000)
    assert world.cancel(waiting).cancelled == (f"jobs/{waiting}",)
    assert world.job(waiting).state is JobState.CANCELLED
    assert world.cancel(waiting).already_ended == (f"jobs/{waiting}",)
    active = world.submit(grace_period="3s")
    world.tick()
    world.report(node, world.statuses(active)[node])
    world.cancel(active)
    assert world.cancel(active).cancelled == (f"jobs/{active}",)
    (order,) = world.registry.desire(node).orders
    assert (order.stop, order.grace_period_us) == (True, 3_000_000)
    ended = replace(world.ended(world.statuses(active)[node], exit_code=143), end=LeaseEnd.ORDERED)
    world.report(node, ended)
    job = world.job(active)
    assert (job.state, job.reason, job.exit_code) == (JobState.CANCELLED, "cancelled by alice", 130)


def test_reports_under_a_stale_token_and_on_leases_that_are_over_change_nothing(
    world: World,
) -> None:
    node = world.join("a")
    job_id = world.submit()
    world.tick()
    status = world.statuses(job_id)[node]
    world.report(node, replace(status, token=status.token - 1))
    assert world.attempt(job_id).state is AttemptState.STAGING
    finish(world, job_id)
    before = world.registry.view(0).seq
    world.report(node, status)
    assert world.registry.view(0).seq == before


def test_a_lease_that_its_node_no_longer_knows_is_lost_and_the_job_tried_again(
    world: World,
) -> None:
    node = world.join("a")
    job_id = world.submit()
    world.tick()
    world.report(node)
    assert world.attempt(job_id).state is AttemptState.STAGING  # never reported: still to come
    world.report(node, world.statuses(job_id)[node])
    world.report(node, boot_id="boot-2")
    attempt = world.attempt(job_id)
    assert attempt.state is AttemptState.NODE_LOST
    assert attempt.cause is not None
    assert attempt.cause.kind is CauseKind.INFRASTRUCTURE
    assert attempt.cause.message == "a was rebooted"
    assert world.job(job_id).state is JobState.PENDING


def test_a_silent_node_is_unknown_first_and_loses_its_leases_after_the_margin(
    world: World,
) -> None:
    node = world.join("a")
    job_id = world.submit()
    world.tick()
    world.report(node, world.statuses(job_id)[node])
    liveness = Liveness(lease_us=20_000_000, margin_us=5_000_000)
    liveness.hear(node, 0)
    submit = world.registry.submit

    def at_once(*args: object) -> object:
        future: Any = submit(*args)  # type: ignore[arg-type]
        world.registry.run_once()
        return future

    world.registry.submit = at_once  # type: ignore[assignment,method-assign]
    assert check_nodes(world.registry, liveness, 20_000_000, 0) == []
    said = check_nodes(world.registry, liveness, 21_000_000, 0)
    assert said == ["a is silent past its lease"]
    assert world.attempt(job_id).state is AttemptState.RUNNING
    said = check_nodes(world.registry, liveness, 25_000_001, 0)
    assert said == ["took back the leases of a"]
    assert world.attempt(job_id).state is AttemptState.NODE_LOST


def test_what_lives_survives_a_restart_and_what_has_ended_is_still_found(world: World) -> None:
    node = world.join("a", gpus=2)
    done = world.submit(name="done", labels={"team": "x"})
    world.tick()
    finish(world, done)
    active = world.submit(name="active", resources={"gpus": 1})
    waiting = world.submit(name="waiting", workers=1000)
    world.tick()
    world.report(node, world.statuses(active)[node])
    before = (world.registry.view(0), world.registry.desire(node).orders)
    epoch = world.registry.epoch
    world.registry = Registry(world.store, world.clock.now_us)
    assert world.registry.epoch == epoch + 1
    assert (world.registry.view(0), world.registry.desire(node).orders) == before
    assert world.job(done).state is JobState.SUCCEEDED
    found = world.store.jobs(JobFilter(), before=None, limit=10, full=True)
    assert [record.job.job_id for record in found] == [waiting, active, done]
    by_label = JobFilter(labels=(("team", "x"),))
    found = world.store.jobs(by_label, before=None, limit=10, full=False)
    assert [record.job.job_id for record in found] == [done]
    for pattern, there in (("*ti?e", [active]), ("*TI?E", [])):
        by_name = JobFilter(name_pattern=pattern)
        found = world.store.jobs(by_name, before=None, limit=10, full=False)
        assert [record.job.job_id for record in found] == there


def test_a_stale_control_plane_writes_nothing(world: World, connected: Callable[[], Store]) -> None:
    successor = Registry(connected(), world.clock.now_us)
    assert successor.epoch == world.registry.epoch + 1
    for _ in range(2):
        with pytest.raises(StaleControlPlane):
            world.submit()
    with pytest.raises(StaleControlPlane):
        world.store.reload()
    assert world.store.jobs(JobFilter(), before=None, limit=10, full=False) == []


def test_one_bad_command_does_not_fail_its_group(world: World) -> None:
    from controlplane.registry import jobs

    bad = world.registry.submit(lambda draft: jobs.cancel(draft, [Which(77)]), ALICE)
    good = world.registry.submit(lambda draft: draft.emit("test.done", "jobs/0"), ALICE)
    world.registry.run_once()
    assert isinstance(bad.exception(timeout=0), NotFound)
    assert good.result(timeout=0) == 1


def test_a_launch_that_failed_is_the_infrastructures_fault_and_has_a_cap(world: World) -> None:
    node = world.join("a")
    job_id = world.submit(max_attempts=1)
    for _ in range(4):
        world.clock.advance(400_000_000)
        assert world.tick().placed == 1
        (status,) = world.statuses(job_id).values()
        failed = replace(
            status,
            phase=LeasePhase.ENDED,
            end=LeaseEnd.LAUNCH_FAILED,
            message="port 20000 of a is in use",
            workers=(),
        )
        world.report(node, failed)
    job = world.job(job_id)
    assert job.state is JobState.FAILED
    assert "could not be started on a: port 20000 of a is in use" in job.reason
    assert "4 attempts ended by faults of the infrastructure" in job.reason


def test_a_caller_that_went_away_harms_nobody_of_its_group(world: World) -> None:
    gone = world.registry.submit(lambda draft: draft.emit("test.gone", "jobs/0"), ALICE)
    stays = world.registry.submit(lambda draft: draft.emit("test.stays", "jobs/0"), ALICE)
    assert gone.cancel()
    world.registry.run_once()
    assert stays.result(timeout=0) == 1
    assert [event.kind for event in world.store.events("", after=0, limit=9)] == ["test.stays"]


def test_the_first_agent_enrols_a_node_and_another_only_after_its_release(world: World) -> None:
    uuid = world.join("1")
    mallory = Actor(principal="mallory", peer="test")
    report = nodes.NodeReport(node_uuid=uuid, boot_id="boot-1", facts=None, leases=())
    with pytest.raises(NotAllowed, match="was enrolled by alice, and mallory may not speak"):
        world.do(lambda draft: nodes.observe(draft, report), mallory)
    again = Registry(world.store, world.clock.now_us)
    assert [node.enrolled_by for node, _ in again.nodes()] == ["alice"]
    world.registry = again
    world.do(lambda draft: nodes.release(draft, uuid))
    world.do(lambda draft: nodes.release(draft, uuid))
    world.do(lambda draft: nodes.observe(draft, report), mallory)
    with pytest.raises(NotAllowed):
        world.report(uuid)
    kinds = [event.kind for event in world.store.events(f"nodes/{uuid}", after=0, limit=10)]
    assert kinds == ["node.joined", "node.released", "node.changed"]


def test_owners_are_known_of_jobs_that_live_and_that_have_ended(world: World) -> None:
    ended, live = world.submit(), world.submit()
    world.cancel(ended)
    assert world.registry.live_owners([ended, live, 99]) == {live: ALICES}
    assert world.store.owners([ended, live, 99]) == {ended: ALICES, live: ALICES}
    assert world.store.owners(range(1, 2000)) == {ended: ALICES, live: ALICES}

"""Nodes that eat jobs: what is held against a node, when it is suspect, and when it is drained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.model.blackhole import (
    QUICK_US,
    WINDOW_US,
    QuickFailure,
    drain_reason,
    noted,
    suspicion,
)
from controlplane.model.event import Actor
from controlplane.model.lease import LeaseEnd, LeasePhase
from controlplane.registry.memory import MemoryStore
from controlplane.registry.nodes import undrain
from tests.support.world import World

SECOND_US = 1_000_000


def failure(job_id: int, owner: str = "ada", *, infra: bool = True, at_s: int = 0) -> QuickFailure:
    return QuickFailure(
        job_id=job_id, owner=owner, infrastructure=infra, at_us=at_s * SECOND_US, message="m"
    )


def row(*failures: QuickFailure) -> tuple[QuickFailure, ...]:
    held: tuple[QuickFailure, ...] = ()
    for each in failures:
        held = noted(held, each)
    return held


def test_the_second_job_makes_a_node_suspect_and_the_third_has_it_drained() -> None:
    assert suspicion(row(failure(1))) == ""
    two = row(failure(1), failure(2, at_s=1))
    assert suspicion(two) == (
        "2 attempts in a row failed here within 10 s (jobs/1, jobs/2), the last: m"
    )
    assert drain_reason(two) == ""
    assert drain_reason(row(failure(1), failure(2, at_s=1), failure(3, at_s=2))).startswith("3 ")


def test_one_job_that_fails_again_and_again_counts_once() -> None:
    assert len(row(*(failure(1, at_s=n) for n in range(9)))) == 1


def test_programs_that_fail_by_themselves_count_once_for_each_owner() -> None:
    """Or whoever submits a thousand broken jobs would have every node drained."""
    of_one = row(*(failure(n, "ada", infra=False, at_s=n) for n in range(1000)))
    assert suspicion(of_one) == ""
    three = row(*(failure(n, f"user{n}", infra=False, at_s=n) for n in range(3)))
    assert drain_reason(three)


def test_what_is_long_ago_does_not_count() -> None:
    late = WINDOW_US // SECOND_US + 1
    assert len(row(failure(1), failure(2, at_s=late))) == 1


# --- in the registry ------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    return World(MemoryStore())


def run(
    world: World,
    owner: str,
    end: LeaseEnd = LeaseEnd.NATURAL,
    *,
    exit_code: int = 0,
    ran_us: int = 1,
) -> int:
    """One job's attempt on the only node, from submit to end; its number."""
    number = world.submit(Actor(principal=owner))
    world.tick()
    ((node, status),) = world.statuses(number).items()
    if end is LeaseEnd.NATURAL:
        world.report(node, status)
        world.clock.advance(ran_us)
        world.report(node, world.ended(status, exit_code=exit_code))
    else:
        over = replace(status, phase=LeasePhase.ENDED, end=end, message="why", workers=())
        world.report(node, over)
        world.cancel(number)  # it would be tried again
    return number


def test_a_node_on_which_three_jobs_cannot_be_started_is_drained(world: World) -> None:
    uuid = world.join("1")
    for _ in range(2):
        run(world, "ada", LeaseEnd.LAUNCH_FAILED)
        node = world.registry.node(uuid)
        assert node is not None
        assert node.drain_reason is None
    run(world, "ada", LeaseEnd.LAUNCH_FAILED)
    node = world.registry.node(uuid)
    assert node is not None
    assert node.drain_reason is not None
    assert node.drain_reason.startswith("3 attempts in a row failed here within 10 s (jobs/1,")
    assert "could not be started on 1: why" in node.drain_reason
    world.do(lambda draft: undrain(draft, uuid))
    node = world.registry.node(uuid)
    assert node is not None
    assert node.quick_failures == ()


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [(LeaseEnd.NATURAL, 1), (LeaseEnd.LAUNCH_REFUSED, 0)],
    ids=["its program fails", "its folder is not there"],
)
def test_what_one_owner_may_be_to_blame_for_drains_no_node(
    world: World, end: LeaseEnd, exit_code: int
) -> None:
    uuid = world.join("1")
    for _ in range(5):
        run(world, "ada", end, exit_code=exit_code)
    run(world, "bob", end, exit_code=exit_code)
    node = world.registry.node(uuid)
    assert node is not None
    assert node.drain_reason is None
    assert len(node.quick_failures) == 2
    run(world, "eve", end, exit_code=exit_code)
    node = world.registry.node(uuid)
    assert node is not None
    assert node.drain_reason is not None


@pytest.mark.parametrize(
    ("exit_code", "ran_us"), [(0, 1), (1, QUICK_US)], ids=["a success", "a failure after a while"]
)
def test_anything_that_goes_well_in_between_clears_a_node(
    world: World, exit_code: int, ran_us: int
) -> None:
    uuid = world.join("1")
    run(world, "ada", LeaseEnd.LAUNCH_FAILED)
    run(world, "ada", LeaseEnd.LAUNCH_FAILED)
    run(world, "ada", exit_code=exit_code, ran_us=ran_us)
    run(world, "ada", LeaseEnd.LAUNCH_FAILED)
    node = world.registry.node(uuid)
    assert node is not None
    assert (node.drain_reason, len(node.quick_failures)) == (None, 1)


def test_a_cancel_is_held_against_nobody(world: World) -> None:
    uuid = world.join("1")
    run(world, "ada", LeaseEnd.LAUNCH_FAILED)
    number = world.submit()
    world.tick()
    ((node_uuid, status),) = world.statuses(number).items()
    world.cancel(number)
    world.report(node_uuid, world.ended(status, exit_code=143))
    node = world.registry.node(uuid)
    assert node is not None
    assert len(node.quick_failures) == 1

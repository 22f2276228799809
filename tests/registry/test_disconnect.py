"""Jobs whose workers run on while their node is cut off, on every store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.event import CONTROL_PLANE
from controlplane.model.job import AttemptState, JobState
from controlplane.registry import identity, nodes
from controlplane.registry.nodes import NodeReport

if TYPE_CHECKING:
    from tests.support.world import World


def cut_off(world: World, node: str) -> bool:
    """A node's lease and its margin are over."""
    world.do(lambda draft: nodes.silence(draft, node, draft.now_us - 60_000_000), CONTROL_PLANE)
    return bool(world.do(lambda draft: nodes.expire(draft, node), CONTROL_PLANE))


def test_a_job_that_keeps_running_is_waited_for_and_goes_on(world: World) -> None:
    node = world.join("a")
    world.join("b")
    stays = world.submit(on_disconnect="keep_running")
    moves = world.submit()
    world.tick()
    statuses = {**world.statuses(stays), **world.statuses(moves)}
    for uuid, status in statuses.items():
        world.report(uuid, status)
    node = next(iter(world.statuses(stays)))
    both = world.statuses(stays)[node]
    world.report(node, both)
    cut_off(world, node)
    assert world.job(stays).state is JobState.ACTIVE
    name = world.registry.node_names()[node]
    assert world.registry.reason(world.job(stays)) == (
        f"waits for a word of {name}, which is silent past its lease: its workers may run on there"
    )
    before = world.registry._facts.cluster.seq
    assert not cut_off(world, node)
    assert world.registry._facts.cluster.seq == before
    world.tick()
    assert world.attempt(stays).number == 1
    world.report(node, both)
    assert world.registry.reason(world.job(stays)) == ""
    world.report(node, world.ended(both))
    assert world.job(stays).state is JobState.SUCCEEDED
    kinds = [event.kind for event in world.store.events(f"jobs/{stays}", after=0, limit=99)]
    assert kinds.count("attempt.cut_off") == kinds.count("attempt.heard_again") == 1


def test_a_reboot_ends_the_wait(world: World) -> None:
    node = world.join("a")
    job_id = world.submit(on_disconnect="keep_running")
    world.tick()
    world.report(node, world.statuses(job_id)[node])
    cut_off(world, node)
    world.report(node, boot_id="boot-2")
    assert world.attempt(job_id).state is AttemptState.NODE_LOST


def test_a_silent_node_that_is_shut_out_is_waited_for_no_more(world: World) -> None:
    node = world.join("a")
    job_id = world.submit(on_disconnect="keep_running")
    world.tick()
    world.report(node, world.statuses(job_id)[node])
    world.do(lambda draft: identity.create_join_token(draft, "5" * 64, 60_000_000, node))
    world.do(lambda draft: identity.join(draft, "5" * 64, node, "6" * 64))
    cut_off(world, node)
    world.do(lambda draft: identity.revoke(draft, node, ()))
    assert world.attempt(job_id).state is AttemptState.NODE_LOST
    assert world.job(job_id).state is JobState.PENDING


def test_what_does_not_end_is_told_as_long_as_it_is_there(world: World) -> None:
    node = world.join("a")
    job_id = world.submit()
    world.tick()
    status = world.statuses(job_id)[node]
    world.report(node, status)
    world.cancel(job_id)
    stuck = replace(status, stuck="these do not end, though they were killed: 7 (dd, state D)")
    world.do(lambda draft: nodes.observe(draft, report(node, stuck)))
    world.do(lambda draft: nodes.observe(draft, report(node, stuck)))
    assert world.job(job_id).reason == f"is being ended on a: {stuck.stuck}"
    assert world.registry.node(node) is not None
    kinds = [event.kind for event in world.store.events(f"jobs/{job_id}", after=0, limit=99)]
    assert kinds.count("attempt.stuck") == 1
    world.report(node, world.ended(status, exit_code=143))
    assert world.job(job_id).state is JobState.CANCELLED


def report(node: str, status: object) -> NodeReport:
    return NodeReport(node_uuid=node, boot_id="boot-1", facts=None, leases=(status,))  # type: ignore[arg-type]

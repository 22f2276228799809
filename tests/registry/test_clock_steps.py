"""The control plane's clock was set back by an hour between two starts, on every store; and a
node's lease, which goes by no clock that can be set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.engine.upkeep import Liveness, check_nodes
from controlplane.model.job import AttemptState
from tests.support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.registry.store import Store

SECOND = 1_000_000
HOUR = 3600 * SECOND


def test_a_back_off_is_no_longer_than_it_was_meant_to_be(connected: Callable[[], Store]) -> None:
    before = World(connected())
    before.clock.step(HOUR)  # the next one begins an hour earlier
    before.join("1")
    job_id = before.submit(max_attempts=3)
    before.tick()
    for node, status in before.statuses(job_id).items():
        before.report(node, before.ended(status, exit_code=1))
    assert before.attempt(job_id).state is AttemptState.FAILED
    before.registry.close()

    world = World(connected())
    world.tick()
    assert world.job(job_id).running == 0
    assert "the next attempt may start in 1 s" in world.registry.reason(world.job(job_id))
    world.clock.advance(SECOND)
    world.tick()
    assert world.job(job_id).running == 1
    seqs = [event.seq for event in world.store.events("", after=0, limit=99)]
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize("step_us", [-HOUR, HOUR], ids=["back", "on"])
def test_a_nodes_lease_ends_neither_early_nor_late(world: World, step_us: int) -> None:
    node = world.join("1")
    liveness = Liveness(lease_us=20 * SECOND, margin_us=SECOND)
    liveness.hear(node, world.clock.boot_us())
    world.clock.step(step_us)
    world.clock.advance(20 * SECOND)
    assert not liveness.silent(world.clock.boot_us())
    assert not check_nodes(world.registry, liveness, world.clock.boot_us(), world.clock.now_us())
    world.clock.advance(1)
    assert liveness.silent(world.clock.boot_us()) == {node: 20 * SECOND + 1}

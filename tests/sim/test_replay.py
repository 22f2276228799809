"""Decisions made again from a file, and what another policy would change."""

from __future__ import annotations

from dataclasses import replace

from controlplane.model.policy import DEFAULT, Backfill, Policy
from controlplane.model.scene import Scene, read_scene, write_scene
from controlplane.sim.replay import Effect, differences, replay
from tests.scheduling.test_backfill import also, first_blocked
from tests.scheduling.test_explain import HOUR
from tests.scheduling.test_policy import gang


def scene(policy: Policy = DEFAULT) -> Scene:
    """Node `b` is free, job 2 waits for both nodes, and job 3 would run into its start."""
    return Scene(view=also(first_blocked(), gang(3, gpus=1, limit_us=3 * HOUR)), policy=policy)


def test_the_same_view_gives_the_same_decision_wherever_its_nodes_stand() -> None:
    one = scene()
    made = replay(one)
    assert made == replay(read_scene(write_scene(one)))
    turned = replace(one, view=replace(one.view, nodes=one.view.nodes[::-1]))
    assert replay(turned).text == made.text


def test_what_another_policy_would_change() -> None:
    (found,) = differences(scene(), Policy(backfill=Backfill.SKIP))
    assert (found.job_id, found.effect, found.words) == (3, Effect.STARTS, "on b")
    (found,) = differences(scene(Policy(backfill=Backfill.SKIP)), DEFAULT)
    assert (found.job_id, found.effect) == (3, Effect.WAITS)
    assert "promised to job 2" in found.words
    assert differences(scene(), DEFAULT) == []

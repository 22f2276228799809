"""`command`: the job's command, once per worker, not joined by anything but `CC_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodeagent.launchers.environment import step, workers

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from nodeagent.launchers.context import NodeContext
    from nodeagent.plan import StepPlan


def plan(launch: Launch, node: NodeContext) -> StepPlan:
    """Plan the node's workers; who wants to meet the others reads CC_HOSTS and CC_RANK."""
    return step(launch, node, workers(launch, node))

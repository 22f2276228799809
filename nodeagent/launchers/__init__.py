"""How workers are started and joined: each launcher turns a launch into the plan of one node.

A launcher is a pure function of the launch and of what is known of the node. It decides programs,
environments, cores and where the ranks meet; the supervisor does the starting. Launchers never
start a process, never read a clock and never ask the network. Beside them live the few small
programs that run inside a gang: the rendezvous store and the three that join Open MPI's daemons.

To add a launcher: write `plan(launch, node) -> StepPlan` in a module of its own and name it in
`LAUNCHERS`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from nodeagent.launchers import command, horovod, mpi, script, torchrun
from nodeagent.launchers.context import Launcher, LaunchError, LaunchRefused, NodeContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.model.launch import Launch
    from nodeagent.plan import StepPlan

__all__ = ["LAUNCHERS", "LaunchError", "LaunchRefused", "Launcher", "NodeContext", "plan_step"]

LAUNCHERS: Mapping[str, Launcher] = MappingProxyType(
    {
        "command": command.plan,
        "horovod": horovod.plan,
        "mpi": mpi.plan,
        "script": script.plan,
        "torchrun": torchrun.plan,
    }
)
"""Every launcher by its name in job.json."""


def plan_step(launch: Launch, node: NodeContext) -> StepPlan:
    """Plan this node's part of a launch. `LaunchError` when it cannot be started, and why."""
    launcher = LAUNCHERS.get(launch.launcher)
    if launcher is None:
        known = ", ".join(sorted(LAUNCHERS))
        raise LaunchError(
            f"launcher {launch.launcher!r} is not known on this node, which knows {known}; "
            "perhaps its agent is older than the control plane"
        )
    return launcher(launch, node)

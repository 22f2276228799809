"""`script`: the job's command once, on the gang's first node, from where it starts steps.

Every rank has its place on its node, with environment, cores and devices, for steps that are
started beside it; only the first one's process is the command, which begins when all nodes are
there. The other nodes have one small process, `script_wait`, which ends when the command has: it
hangs on to the gang's rendezvous store, which the first node's supervisor serves as long as the
command runs.

`ccctl` finds the control plane, and a token that is good for steps of this attempt alone, in the
command's environment.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nodeagent.launchers.environment import head_endpoint, step, workers
from nodeagent.launchers.slots import labels

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from nodeagent.launchers.context import NodeContext
    from nodeagent.plan import StepPlan, WorkerPlan

_WAIT = str(Path(__file__).with_name("script_wait.py"))


def plan(launch: Launch, node: NodeContext) -> StepPlan:
    """Plan the node's one process, and the places of its ranks."""
    several = len(launch.members) > 1
    places = workers(launch, node, defaults=_way_back(node))
    cores = tuple(dict.fromkeys(core for place in places for core in place.cpu_ids))
    first = replace(places[0], cpu_ids=cores)
    if several:
        first = _meeting(first, launch, node)
    made = step(launch, node, (_with_programs(first, node),), scopes={} if several else None)
    return replace(made, ranks_per_worker=launch.here.workers, places=places)


def _meeting(first: WorkerPlan, launch: Launch, node: NodeContext) -> WorkerPlan:
    """The node's process, behind or in the place of the small program by which they meet."""
    host, port = head_endpoint(launch)
    names = labels(launch.members)
    program = (node.python, "-I", _WAIT)
    if launch.member_index == 0:
        argv = (*program, "first", host, str(port), ",".join(names[1:]), *first.argv)
        return replace(first, argv=argv)
    argv = (*program, "there", host, str(port), names[launch.member_index])
    return replace(first, argv=argv, before=(), hears_signals=False)


def _way_back(node: NodeContext) -> dict[str, str]:
    """How `ccctl` reaches the control plane from here."""
    found = {
        "CCCTL_SERVER": node.server,
        "CCCTL_CA_FILE": node.ca_file,
        "CCCTL_TOKEN_FILE": node.step_token_file,
    }
    return {name: value for name, value in found.items() if value}


def _with_programs(worker: WorkerPlan, node: NodeContext) -> WorkerPlan:
    """With our own programs behind all others on PATH."""
    path = f"{worker.env['PATH']}:{Path(node.python).parent}"
    return replace(worker, env={**worker.env, "PATH": path})

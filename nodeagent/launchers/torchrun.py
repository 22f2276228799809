"""`torchrun`: the contract of PyTorch's launcher without its process.

Each worker finds the variables that `torchrun` would set, so `init_process_group()` and everything
built on it work unchanged. There is no `torchrun` process between the supervisor and the ranks, so
each rank has a log, an exit code and a place in the job's story of its own. Rank 0 serves the store
at MASTER_ADDR:MASTER_PORT; the others try again until it is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodeagent.launchers.environment import head_endpoint, step, workers
from nodeagent.launchers.slots import slots

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from nodeagent.launchers.context import NodeContext
    from nodeagent.launchers.slots import Slot
    from nodeagent.plan import StepPlan


def plan(launch: Launch, node: NodeContext) -> StepPlan:
    """Plan the node's ranks. `LaunchError` when the first node has no leased port."""
    return step(
        launch,
        node,
        workers(
            launch,
            node,
            defaults=sockets(node) | {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"},
            facts={slot.local_rank: _facts(launch, slot) for slot in slots(launch)},
        ),
    )


def sockets(node: NodeContext) -> dict[str, str]:
    """Which interface the communication libraries use; a job may know a better one.

    NCCL takes a name for a prefix unless `=` stands before it: eth1 would also mean eth10.
    """
    if not node.interface:
        return {}
    return {
        "GLOO_SOCKET_IFNAME": node.interface,
        "TP_SOCKET_IFNAME": node.interface,
        "NCCL_SOCKET_IFNAME": f"={node.interface}",
    }


def _facts(launch: Launch, slot: Slot) -> dict[str, str]:
    address, port = head_endpoint(launch)
    return {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(slot.rank),
        "WORLD_SIZE": str(slot.size),
        "LOCAL_RANK": str(slot.local_rank),
        "LOCAL_WORLD_SIZE": str(slot.local_size),
        "GROUP_RANK": str(slot.node_rank),
        "GROUP_WORLD_SIZE": str(slot.nodes),
        "NODE_RANK": str(slot.node_rank),
        "ROLE_NAME": "default",
        "ROLE_RANK": str(slot.rank),
        "ROLE_WORLD_SIZE": str(slot.size),
        "TORCHELASTIC_RUN_ID": f"{launch.job_id}-{launch.task_index}-{launch.attempt}",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }

"""`horovod`: static Horovod over Gloo, for PyTorch and TensorFlow programs alike.

There is no `horovodrun`, no ssh and no Horovod outside the ranks. Each rank gets its numbers in
HOROVOD_*, and finds the others through our own rendezvous store, which the first node serves. On
CPUs Gloo does the collectives; on GPUs NCCL does, where Horovod was built with it: that is chosen
when Horovod is built, so there is nothing to set here but NCCL's network interface.

Horovod's process sets listen on what `gethostname()` resolves to, whatever HOROVOD_GLOO_IFACE
says. Where that is not the node's address, the ranks run under a hostname that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodeagent.launchers.environment import head_endpoint, own_hostname, step, workers
from nodeagent.launchers.slots import labels, slots
from nodeagent.launchers.torchrun import sockets

if TYPE_CHECKING:
    from controlplane.model.launch import Launch
    from nodeagent.launchers.context import NodeContext
    from nodeagent.launchers.slots import Slot
    from nodeagent.plan import StepPlan

GLOO_TIMEOUT_S = 300
"""How long a rank waits for another, in seconds.

It bounds the skew of starts as well as a stalled link, and Horovod's own 30 s are short for a
large framework on cold storage. A rank that dies is noticed at once, whatever this is.
"""


def plan(launch: Launch, node: NodeContext) -> StepPlan:
    """Plan the node's ranks. `LaunchError` when the first node has no leased port."""
    defaults = sockets(node) | {
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(GLOO_TIMEOUT_S),
    }
    if node.interface:
        defaults["HOROVOD_GLOO_IFACE"] = node.interface
    started = workers(
        launch,
        node,
        defaults=defaults,
        facts={slot.local_rank: _facts(launch, slot) for slot in slots(launch)},
        hostname=own_hostname(launch, node),
    )
    return step(launch, node, started, scopes=scopes(launch))


def scopes(launch: Launch) -> dict[str, int]:
    """How many ranks meet in each scope of the rendezvous."""
    found = {"global": launch.size}
    for label, member in zip(labels(launch.members), launch.members, strict=True):
        found[f"local_{label}"] = member.workers
    for local_rank in range(max(member.workers for member in launch.members)):
        sharing = sum(member.workers > local_rank for member in launch.members)
        found[f"cross_{local_rank}"] = sharing
    return found


def _facts(launch: Launch, slot: Slot) -> dict[str, str]:
    address, port = head_endpoint(launch)
    return {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_HOSTNAME": labels(launch.members)[slot.node_rank],
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
    }

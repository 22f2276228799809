"""Nodes that are simulated, as the registry hears them: they start what they are told to, at once,
and end it when they are asked to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from controlplane.model.event import Actor
from controlplane.model.lease import (
    Lease,
    LeaseEnd,
    LeasePhase,
    LeaseStatus,
    WorkerState,
    WorkerStatus,
)
from controlplane.registry import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from controlplane.registry.draft import Draft
    from controlplane.sim.cluster import SimNode

AGENT: Final = Actor(principal="agent", peer="simulation")
BOOT: Final = "boot-1"
SIGTERM: Final = 15


class Agents:
    """The agents of all nodes. What they hold is told in full with each report, as real ones do."""

    def __init__(self, cluster: Sequence[SimNode]) -> None:
        """`cluster`: the nodes, which have not joined yet."""
        self.nodes = {
            f"00000000-0000-4000-8000-{number:012x}": node for number, node in enumerate(cluster)
        }
        self._held: dict[str, dict[int, LeaseStatus]] = {uuid: {} for uuid in self.nodes}

    def join(self, draft: Draft) -> None:
        """Have every node join."""
        for uuid, node in self.nodes.items():
            report = nodes.NodeReport(node_uuid=uuid, boot_id=BOOT, facts=node.facts(), leases=())
            nodes.observe(draft, report)

    def begin(self, leases: Iterable[Lease], now_us: int) -> None:
        """Start a gang's workers."""
        for lease in leases:
            workers = tuple(
                WorkerStatus(
                    rank=lease.first_rank + i,
                    local_rank=i,
                    state=WorkerState.RUNNING,
                    pid=1 + lease.lease_id,
                    started_us=now_us,
                )
                for i in range(lease.workers)
            )
            self._held[lease.node_uuid][lease.lease_id] = LeaseStatus(
                lease_id=lease.lease_id,
                token=lease.token,
                phase=LeasePhase.RUNNING,
                workers=workers,
            )

    def end(self, leases: Iterable[Lease], now_us: int, *, ordered: bool) -> None:
        """Have a gang's workers end: by themselves, or because the control plane `ordered` it."""
        for lease in leases:
            status = self._held[lease.node_uuid][lease.lease_id]
            workers = tuple(
                replace(
                    worker,
                    state=WorkerState.ENDED,
                    ended_us=now_us,
                    signal=SIGTERM if ordered else None,
                    exit_code=None if ordered else 0,
                )
                for worker in status.workers
            )
            self._held[lease.node_uuid][lease.lease_id] = replace(
                status,
                phase=LeasePhase.ENDED,
                end=LeaseEnd.ORDERED if ordered else LeaseEnd.NATURAL,
                workers=workers,
            )

    def forget(self, leases: Iterable[Lease]) -> None:
        """Forget leases that were given back."""
        for lease in leases:
            del self._held[lease.node_uuid][lease.lease_id]

    def report(self, draft: Draft, node_uuids: Iterable[str]) -> None:
        """Have nodes tell all that they hold."""
        for uuid in sorted(node_uuids):
            leases = tuple(self._held[uuid].values())
            report = nodes.NodeReport(node_uuid=uuid, boot_id=BOOT, facts=None, leases=leases)
            nodes.observe(draft, report)

"""A node: a host with an agent, what it has, and whether it takes work."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.model.blackhole import QuickFailure


class DeviceKind(StrEnum):
    """What a device is."""

    GPU = "gpu"
    """A GPU of NVIDIA's, found through NVML."""
    AMD_GPU = "amd_gpu"
    """A GPU of AMD's, found through the kernel's compute driver."""
    TPU = "tpu"
    """A TPU chip of Google's, found on the PCI bus."""
    SIMULATED = "simulated"
    """Exists only in the agent's configuration, for trials without hardware."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator of a node."""

    device_id: str
    """Stable id: the UUID of a GPU; one made up from the node's UUID for what has none."""
    kind: DeviceKind
    """What it is."""
    model: str
    """Model name as the driver tells it."""
    memory_bytes: int
    """Memory in bytes; 0 when the driver tells none."""
    index: int
    """Number among the devices of its kind on its node."""
    pci_bus_id: str = ""
    """PCI bus id; empty for simulated devices."""
    numa_node: int | None = None
    """NUMA node; None when unknown."""
    nvlinks: int = 0
    """Number of active NVLink links."""
    fault: str = ""
    """Why it can't be used, in words; empty when it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What an agent tells of its host."""

    display_name: str
    """Hostname: a label, not an identity."""
    address: str
    """Address at which other nodes reach this one."""
    kernel: str = ""
    """Kernel release."""
    os: str = ""
    """Operating system, as os-release PRETTY_NAME tells it."""
    agent_version: str = ""
    """Version of the agent."""
    cpus: int
    """Number of cores offered to jobs; they are numbered from 0."""
    memory_bytes: int
    """Memory offered to jobs, in bytes."""
    devices: tuple[Device, ...] = ()
    """Devices offered to jobs."""
    port_first: int
    """First TCP port that jobs may lease."""
    port_last: int
    """Last TCP port that jobs may lease."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels given by the site, sorted."""
    cpu_model: str = ""
    """CPU model name."""
    only_owner: str = ""
    """The one user whose jobs can run there, where the agent has no root; empty for everybody's."""
    cages: str = ""
    """Control groups that hold jobs to what they asked for: `v1`, `v2`; empty for none."""
    trouble: str = ""
    """Why the agent wants no work now, in words; empty: it does."""


class NodeState(StrEnum):
    """Whether a node takes work."""

    READY = "ready"
    """Its agent is heard, and it takes work."""
    UNKNOWN = "unknown"
    """Its agent has been silent past its lease; nothing new is sent, nothing is rescheduled yet."""
    DRAINING = "draining"
    """Takes no new work; what runs may finish."""
    DRAINED = "drained"
    """Takes no new work, and nothing runs on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host with an agent, as the registry keeps it."""

    uuid: str
    """Identity, made at enrolment; the hostname is only a label."""
    facts: NodeFacts
    """What its agent told last."""
    boot_id: str
    """Changes with every boot of the host."""
    created_us: int
    """When it was first seen, UTC in microseconds."""
    drain_reason: str | None = None
    """Why an operator drains it; None while it may take work."""
    silent_since_us: int | None = None
    """When it was last heard, once it has been silent past its lease; None while it is heard."""
    enrolled_by: str = ""
    """Principal of the agent that may speak for it: the first that did. Empty: there is none."""
    quick_failures: tuple[QuickFailure, ...] = ()
    """Attempts that failed here within seconds since anything last went well."""
    given_labels: tuple[tuple[str, str], ...] = ()
    """Labels that an operator has given it, sorted; they override those of its agent."""

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Its labels, sorted."""
        if not self.given_labels:
            return self.facts.labels
        return tuple(sorted({**dict(self.facts.labels), **dict(self.given_labels)}.items()))

    @property
    def name(self) -> str:
        """Resource name."""
        return f"nodes/{self.uuid}"

    @property
    def takes_work(self) -> bool:
        """Whether new leases may be placed on it."""
        return self.drain_reason is None and self.silent_since_us is None and not self.facts.trouble

    def state(self, *, busy: bool) -> NodeState:
        """Whether it takes work, for people; `busy`: some lease holds it."""
        if self.silent_since_us is not None:
            return NodeState.UNKNOWN
        if self.drain_reason is not None:
            return NodeState.DRAINING if busy else NodeState.DRAINED
        return NodeState.READY

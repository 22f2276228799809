"""What a scheduling decision sees, and what it wants done.

A `View` holds everything that a decision may know, the time included; a `Plan` is a proposal, which
the registry's writer
looks at again, node by node, before it becomes true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.model.node import Device
    from controlplane.model.spec import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node as a decision sees it: what it has, and what of it is free."""

    uuid: str
    """Identity."""
    display_name: str
    """Hostname, for reasons in words."""
    takes_work: bool
    """Whether new leases may be placed on it."""
    cpus: int
    """Cores that it has."""
    memory_bytes: int
    """Memory that it has."""
    devices: tuple[Device, ...]
    """Devices that it has."""
    free_millicores: int
    """Processor time that no lease holds."""
    free_memory_bytes: int
    """Memory that no lease holds."""
    free_devices: tuple[Device, ...]
    """Healthy devices that no lease holds, in their order."""
    free_cpu_ids: tuple[int, ...]
    """Cores that no lease holds for itself, in their order."""
    free_ports: tuple[int, ...]
    """Ports that no lease holds: the first few of them."""
    only_owner: str = ""
    """The one owner whose jobs can run there; empty for everybody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task that waits for a place."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    owner: str = ""
    """Whose job it is."""
    priority: int
    """The higher goes first."""
    created_us: int
    """When the job was accepted: the older goes first."""
    not_before_us: int
    """Not placed before this."""
    workers: int
    """Workers of the gang."""
    workers_per_node: int | None
    """Exactly so many on each node; None: as they fit."""
    resources: Resources
    """What each worker needs."""
    ports: int
    """Ports that the launcher needs on the first node."""
    coming: tuple[int, ...] = ()
    """Indexes of tasks of the same array that wait behind it, as far as they may start now."""
    limited: str = ""
    """Why no more of its array's tasks may start than these, in words; empty where all may."""
    held: str = ""
    """Why it may not start, in words; empty where it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that a decision may see."""

    now_us: int
    """The present, UTC in microseconds."""
    seq: int
    """Number of the last event that it contains."""
    nodes: tuple[NodeView, ...]
    """All nodes."""
    waiting: tuple[Waiting, ...]
    """All tasks that wait for a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One node's part of a placement: what will become a lease."""

    node_uuid: str
    """The node."""
    workers: int
    """Workers there."""
    device_ids: tuple[str, ...]
    """Devices there."""
    cpu_ids: tuple[int, ...]
    """Cores there for sole use; empty when the job asked for fractions of a core."""
    cpu_millicores: int
    """Processor time there."""
    memory_bytes: int
    """Memory there."""
    ports: tuple[int, ...]
    """Ports there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Start a task: the whole gang, or none of it."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    parts: tuple[Part, ...]
    """Where, in order of rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Leave a task waiting, and say why."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    reason: str
    """In the user's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a decision wants done."""

    seq: int
    """The view's: what the decision had seen."""
    places: tuple[Place, ...] = ()
    """What to start."""
    holds: tuple[Hold, ...] = ()
    """What waits, each with its reason."""

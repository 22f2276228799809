"""What a scheduling decision may know, as values that never change.

A `View` holds everything, the time included; the same view gives the same plan. It can be written
down, and read elsewhere, so that a decision can be made again with no daemon.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from controlplane.model.selector import EVERYWHERE, Selector

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    labels: tuple[tuple[str, str], ...] = ()
    """Labels given by the site, sorted; the place in the fabric is among them."""


class Packing(StrEnum):
    """How a gang lies on nodes, where several ways would do."""

    PACK = "pack"
    """On as few nodes, and behind as few switches, as will do."""
    SPREAD = "spread"
    """On as many nodes as will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a gang needs of nodes. Gangs of one shape are alike to placement, so each shape is asked
    for once."""

    workers: int
    """Workers of the gang."""
    workers_per_node: int | None
    """Exactly so many on each node; None: as they fit."""
    resources: Resources
    """What each worker needs."""
    ports: int
    """Ports that the launcher needs on the first node."""
    queue: str = ""
    """The queue, which may be for some nodes only; empty: for all."""
    selector: Selector = EVERYWHERE
    """The nodes that will do, by their labels."""
    gpu_memory_bytes: int = 0
    """Memory that each GPU must have at least."""
    exclusive: bool = False
    """Whether its nodes must be its own alone."""
    packing: Packing = Packing.PACK
    """How it lies on nodes."""
    within: str = ""
    """The level of the fabric, by its label's key, of which one must hold the whole gang; empty:
    none must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task that waits for a place."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    owner: str = ""
    """Whose job it is."""
    account: str = ""
    """The account that pays."""
    priority: int
    """Value of its priority class: the higher goes first."""
    preempts: bool = True
    """Whether its class may end others' jobs to make room."""
    preemptible: bool = False
    """Whether its owner lets any other job end it, and in return may use quota that is idle."""
    created_us: int
    """When the job was accepted: the older goes first."""
    not_before_us: int
    """Not placed before this."""
    not_yet: str = ""
    """Why not before that, in words; empty where it backs off after a fault."""
    limit_us: int | None = None
    """The longest that it may run; None: nobody knows."""
    expected_us: int | None = None
    """How long it is expected to run, learned from others like it; None: nobody knows."""
    served_us: int = 0
    """How long it ran before, in attempts that were ended to make room."""
    shape: Shape
    """What it needs of nodes."""
    coming: tuple[int, ...] = ()
    """Indexes of tasks of the same array that wait behind it, as far as they may start now."""
    limited: str = ""
    """Why no more of its array's tasks may start than these, in words; empty where all may."""
    held: str = ""
    """Why it may not start, in words; empty where it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One node's part of a placement: what becomes, or is, a lease."""

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
class Running:
    """A task of which an attempt lives."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    attempt: int
    """Number of the attempt."""
    owner: str
    """Whose job it is."""
    account: str
    """The account that pays."""
    priority: int
    """Value of its priority class."""
    preemptible: bool
    """Whether its owner lets any other job end it."""
    shape: Shape
    """What it needs of nodes."""
    parts: tuple[Part, ...]
    """Where it is, in order of rank."""
    created_us: int = 0
    """When its job was accepted."""
    placed_us: int
    """When it was placed."""
    until_us: int | None
    """When it will have ended by its time limit, its grace included; None: nobody knows."""
    expected_us: int | None = None
    """When it is expected to end, learned from others like it; None: nobody knows."""
    saved_us: int
    """When it last reported a checkpoint; when it was placed, where it has not."""
    served_us: int = 0
    """How long its task ran before this attempt."""
    stopping: bool = False
    """Whether it is being ended already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What an account, or a user within it, may have at once. None: as much as there is."""

    running: int | None = None
    """Tasks that run."""
    gpus: int | None = None
    """GPUs."""
    borrow_gpus: int | None = 0
    """GPUs beyond those, while siblings within the same parent leave theirs idle; None: all of
    them."""


UNLIMITED = Quota()
"""No limit at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A node of the fair-share tree, as of the view's present."""

    name: str
    """Its name."""
    parent: str
    """Its parent's; empty for one at the top."""
    shares: int = 1
    """Its part among its siblings."""
    usage: int = 0
    """What was used in its name and below, decayed: microseconds of GPUs, each weighted by its
    model."""
    quota: Quota = UNLIMITED
    """What it may have at once, with all below."""
    spent: str = ""
    """Why it may start nothing now, in words: GPU-hours used up; empty where it may."""
    qos: int = 0
    """What its quality of service adds to a priority, 0 to 1,000,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user within an account."""

    account: str
    """The account."""
    user: str
    """The user."""
    shares: int = 1
    """The user's part among the account's members."""
    usage: int = 0
    """What the user used in the account's name, decayed; unit as an account's."""
    quota: Quota = UNLIMITED
    """What the user may have at once in the account's name."""
    spent: str = ""
    """Why the user may start nothing now in the account's name, in words; empty where that may
    be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A named set of nodes."""

    name: str
    """Its name."""
    selector: Selector = EVERYWHERE
    """Its nodes, by their labels. Queues may overlap."""
    priority: int = 0
    """What waits in it comes before whatever waits in queues with less."""
    closed: str = ""
    """Why nothing of it starts now, in words; empty where it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time for which nodes are kept free: a reservation, or maintenance. Nobody else is placed
    there whose time limit runs into it."""

    name: str
    """Its name."""
    begin_us: int
    """When it begins."""
    end_us: int
    """When it ends."""
    nodes: frozenset[str]
    """UUIDs of the nodes."""
    accounts: frozenset[str] = frozenset()
    """Whose jobs may use them meanwhile; with `users` empty, too: nobody's (maintenance)."""
    users: frozenset[str] = frozenset()
    """Whose jobs may use them meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A start that was promised: it is not put off for others."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    start_us: int
    """It starts no later than this, if nodes stay as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Where and when a decision meant to start a task that waits. Never written down: a decision
    without it chooses anew."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    start_us: int
    """When."""
    nodes: tuple[tuple[str, int], ...]
    """UUIDs of its nodes, in order of rank, each with how many workers."""


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
    running: tuple[Running, ...] = ()
    """All tasks of which an attempt lives."""
    accounts: tuple[Account, ...] = ()
    """All accounts, parents before children; empty: every account is as good as another."""
    members: tuple[Member, ...] = ()
    """Users within accounts: all who have used anything, or have a quota or shares of their own."""
    queues: tuple[Queue, ...] = ()
    """All queues; what is in none that is here may use every node."""
    windows: tuple[Window, ...] = ()
    """Reservations and maintenance, that are not over."""
    promises: tuple[Promise, ...] = ()
    """Promises made before, to tasks that wait."""
    reserved: tuple[Reserved, ...] = ()
    """What the last decision meant to start later."""
    pace: tuple[int, int, int] = (1000, 1000, 1000)
    """How much of their time limits tasks of late have used, in thousandths: a tenth of them less
    than the first, half of them less than the second, and nine tenths less than the third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What has changed of the parts of a view that are large."""

    whole: bool
    """Whether these are all there are, and what was known before counts no more."""
    nodes: Mapping[str, NodeView | None]
    """Nodes by UUID; None for one that is no more."""
    waiting: Mapping[int, tuple[Waiting, ...]]
    """By job all of its tasks that wait now."""
    running: Mapping[tuple[int, int], Running | None]
    """By job and task what lives; None for what does no more."""

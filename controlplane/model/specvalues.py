"""What a job asks for, as frozen values. They are made by `parse_spec` and are valid by then."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.model.dependencies import Dependency
    from controlplane.model.selector import Selector
    from controlplane.model.tasks import TaskSet
    from controlplane.model.view import Packing


class Launcher(StrEnum):
    """How a job's workers are started and joined."""

    COMMAND = "command"
    """Each worker is a plain process; nothing joins them."""
    HOROVOD = "horovod"
    """The workers are the ranks of a Horovod job (PyTorch or TensorFlow)."""
    MPI = "mpi"
    """The workers are the ranks of an MPI job."""
    SCRIPT = "script"
    """The command runs once, on the first node, and starts steps beside the workers' places."""
    TORCHRUN = "torchrun"
    """The workers are the ranks of a torch.distributed job, started by torchrun."""


class OnDisconnect(StrEnum):
    """What becomes of workers on a node that is cut off from the control plane past its lease."""

    END = "end"
    """They are ended, so that they may be started elsewhere."""
    KEEP_RUNNING = "keep_running"
    """They run on, and nobody starts them elsewhere until the node is heard of again."""


class DeviceVisibility(StrEnum):
    """Which devices a worker sees."""

    JOB = "job"
    """All devices that its attempt holds on its node."""
    RANK = "rank"
    """Its own alone."""


class FabricLevel(StrEnum):
    """A level of the fabric, of which one part must hold a whole gang."""

    LEAF = "leaf"
    """One leaf switch."""
    BLOCK = "block"
    """One block of leaves."""
    SPINE = "spine"
    """One spine."""

    @property
    def label(self) -> str:
        """Key of the label that tells a node's part at this level."""
        return f"fabric/{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What each worker needs."""

    gpus: int
    """Whole GPUs."""
    cpu_millicores: int
    """Cores, in thousandths."""
    memory_bytes: int
    """Memory, in bytes."""
    gpu_model: str | None
    """The model that each GPU must be; None for any. Only with `gpus` > 0."""
    gpu_memory_bytes: int | None = None
    """Memory that each GPU must have at least; None for any. Only with `gpus` > 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePath:
    """A folder that is on every node already."""

    path: str
    """Absolute, without `..`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A folder that was shipped, and is kept under the hash of its content."""

    sha256: str
    """SHA-256 of the archive, in lower-case hex."""
    size_bytes: int
    """Size of the archive in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ship:
    """A folder beside job.json that the client ships before it submits. No server accepts it."""

    folder: str
    """Relative to the folder of job.json, and inside it."""
    exclude: tuple[str, ...]
    """Glob patterns of what stays at home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningSignal:
    """A signal that the workers get before the time limit."""

    name: str
    """Its name without `SIG`."""
    before_us: int
    """How long before the limit, in microseconds; shorter than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A validated request for a job, immutable once submitted."""

    name: str
    """Display name, for people; need not be unique."""
    launcher: Launcher
    """How workers are started and joined."""
    command: tuple[str, ...]
    """The program and its arguments; never passed through a shell."""
    workers: int
    """Number of workers, the size of the gang."""
    workers_per_node: int | None
    """Exactly so many workers on each node; None leaves it to the scheduler."""
    tasks: TaskSet | None
    """Tasks of a job array, each a gang of its own; None for a plain job."""
    resources: Resources
    """What each worker needs."""
    device_visibility: DeviceVisibility
    """Which devices each worker sees."""
    setup: tuple[str, ...]
    """Lines that a shell runs before each worker's command; empty for no shell."""
    env: tuple[tuple[str, str], ...]
    """The workers' environment as pairs sorted by name; `dict(spec.env)` makes a map of it."""
    secret_env: tuple[str, ...]
    """Names in `env` whose values are shown to nobody."""
    working_dir: NodePath | Archive | Ship | None
    """Where workers run; None for the job's own folder, `CC_JOB_DIR`."""
    output: str | None
    """Pattern of the files that standard output goes to, as `outputs` reads it; None for the
    default one."""
    error: str | None
    """The same for standard error; None: where standard output goes."""
    time_limit_us: int | None
    """The longest that an attempt may run, in microseconds; None for no limit."""
    node_selector: Selector | None
    """The nodes that will do, by their labels; None for all."""
    exclusive: bool
    """Whether its nodes must be its own alone."""
    packing: Packing
    """How a gang lies on nodes, where several ways would do."""
    within: FabricLevel | None
    """The level of the fabric of which one part must hold the whole gang; None: none must."""
    begin_us: int | None
    """Not started before this, UTC in microseconds; None: as soon as may be."""
    depends_on: tuple[Dependency, ...]
    """What it waits for of other jobs; all of it must come."""
    preemptible: bool
    """Whether any other job may end it, in return for the use of idle quota."""
    queue: str
    """Name of the queue."""
    priority_class: str | None
    """Name of the priority class; None for the default one."""
    account: str | None
    """Name of the account that pays; None for the owner's default one."""
    max_attempts: int
    """How often the application may be tried in all."""
    grace_period_us: int
    """Time between SIGTERM and SIGKILL when workers are ended, in microseconds."""
    signal: WarningSignal | None
    """Sent to the workers before the time limit; None for none. Only with `time_limit_us`."""
    requeue_exit_codes: tuple[int, ...]
    """Exit codes by which the program asks for another attempt, in order."""
    on_disconnect: OnDisconnect | None
    """What becomes of workers whose node is cut off; None: they are ended."""
    labels: tuple[tuple[str, str], ...]
    """Free labels as pairs sorted by key; `dict(spec.labels)` makes a map of it."""
    comment: str
    """Free words."""

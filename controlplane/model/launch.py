"""Everything that a node needs to start its part of a gang."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GangMember:
    """One node's part of a gang."""

    node_display_name: str
    """Display name of the node."""
    address: str
    """Address of the node."""
    first_rank: int
    """Rank of its first worker; the others follow."""
    workers: int
    """Number of its workers."""
    ports: tuple[int, ...] = ()
    """TCP ports of the node that the gang may use."""
    devices: int = 0
    """Devices that the gang holds there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start one node's part of an attempt's gang."""

    job_id: int
    """The job's number."""
    task_index: int = 0
    """Index of the task in its array; 0 for a plain job."""
    task_count: int = 1
    """Number of tasks of the array; 1 for a plain job."""
    attempt: int
    """The attempt's number, from 1."""
    job_display_name: str
    """The job's display name."""
    owner: str
    """The principal who submitted the job."""
    launcher: str
    """How workers are started and joined: `horovod`, `torchrun`, `mpi`, `command`, `script`."""
    command: tuple[str, ...]
    """The program and its arguments; never passed through a shell."""
    env: tuple[tuple[str, str], ...] = ()
    """The job's own environment."""
    setup: tuple[str, ...] = ()
    """Lines that bash runs before each worker's command; empty for none."""
    own_devices_only: bool = False
    """Whether a worker sees its own devices alone, and not all of the lease's."""
    working_dir_path: str = ""
    """A folder on the node to run in; empty for none."""
    working_dir_sha256: str = ""
    """SHA-256 of an archive to unpack and run in; empty for none."""
    output: str | None = None
    """Pattern of the files for standard output, as in job.json; None for the default one."""
    error: str | None = None
    """The same for standard error; None: where standard output goes."""
    members: tuple[GangMember, ...]
    """The gang's members in order of rank, one per node."""
    member_index: int
    """Which of them this node is."""
    gang_secret: str
    """Secret of the gang, for its rendezvous; not for logs."""
    step_token: str = ""
    """Starts steps of this attempt, and does nothing else; empty for none; not for logs."""
    device_ids: tuple[str, ...] = ()
    """Devices of this node that the lease holds."""
    cpu_ids: tuple[int, ...] = ()
    """Cores of this node that the lease holds for itself; empty for no affinity."""
    cpu_millicores: int = 0
    """Cores leased here, in thousandths."""
    memory_bytes: int = 0
    """Memory that the lease holds, in bytes."""
    time_limit_us: int | None = None
    """The job's time limit in microseconds; None for none."""
    grace_period_us: int = 10_000_000
    """Time between SIGTERM and SIGKILL, in microseconds."""
    warning_signal: str = ""
    """Signal to the workers before the time limit, without `SIG`; empty for none."""
    warning_before_us: int = 0
    """How long before the time limit it is sent, in microseconds."""
    requeue_exit_codes: tuple[int, ...] = ()
    """Exit codes by which a worker asks for another attempt."""
    keep_running: bool = False
    """Whether the workers run on when the node is cut off past its lease."""

    @property
    def task(self) -> str:
        """The job's number, and of an array the task's index: `123`, `123_4`."""
        return f"{self.job_id}_{self.task_index}" if self.task_count > 1 else str(self.job_id)

    @property
    def here(self) -> GangMember:
        """This node's part."""
        return self.members[self.member_index]

    @property
    def size(self) -> int:
        """Number of workers of the whole gang."""
        return sum(member.workers for member in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSignal:
    """A signal that somebody sent to workers of a lease."""

    number: int
    """Counts up within the attempt, so that a supervisor knows what it has sent already."""
    signal: str
    """Its name without `SIG`."""
    ranks: tuple[int, ...] = ()
    """To which of the lease's workers; empty for all."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A time limit, or that there is none."""

    us: int | None
    """In microseconds; None for no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOrder:
    """What a node should do about one lease."""

    lease_id: int
    """Which lease."""
    token: int
    """Its fencing token."""
    stop: bool
    """True: end it. False: start it if it was never started, and let it run."""
    grace_period_us: int = 0
    """With `stop`: time between SIGTERM and SIGKILL, in microseconds."""
    launch: Launch | None = None
    """How to start it; None once the node has reported it."""
    signals: tuple[LeaseSignal, ...] = ()
    """Signals that the node has not yet reported as sent, by number."""
    limit: Limit | None = None
    """Its time limit, where that was changed since the launch."""

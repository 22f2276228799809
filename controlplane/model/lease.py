"""A lease: one attempt's claim on one node, and what the node reports of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WorkerState(StrEnum):
    """Where a worker stands."""

    WAITING = "waiting"
    """Not started yet."""
    RUNNING = "running"
    """Its process runs."""
    ENDED = "ended"
    """Its process ended by itself or by a signal."""
    LOST = "lost"
    """It was never started, or its end could not be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One worker as its node sees it."""

    rank: int
    """Rank in the gang."""
    local_rank: int
    """Rank on its node."""
    state: WorkerState = WorkerState.WAITING
    """Where it stands."""
    pid: int = 0
    """Process id; 0 before its start."""
    exit_code: int | None = None
    """Exit code, if it exited."""
    signal: int | None = None
    """Signal number that ended it, if one did."""
    started_us: int | None = None
    """When it was started, UTC in microseconds."""
    ended_us: int | None = None
    """When it ended, UTC in microseconds."""
    stderr_tail: str = ""
    """The last lines of its stderr when it failed, at most 4 KiB."""
    stdout_bytes: int = 0
    """Bytes written to stdout; final once it has ended."""
    stderr_bytes: int = 0
    """Bytes written to stderr; final once it has ended."""
    peak_memory_bytes: int | None = None
    """The most memory that it, or one process that it waited for, had resident at once; None
    before its end, or when that could not be seen."""
    oom_limit_bytes: int | None = None
    """The memory that it might use, when it or anything that it had started was ended because that
    had run out."""
    oom_peak_bytes: int | None = None
    """With `oom_limit_bytes`: what all of it had used at once, its file cache included."""

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than with exit code 0."""
        return self.state is WorkerState.LOST or bool(self.signal) or bool(self.exit_code)


class LeasePhase(StrEnum):
    """Where a lease stands on its node; the order is the order of life."""

    STAGING = "staging"
    """What it needs is being fetched."""
    STARTING = "starting"
    """Its supervisor is being started, or waits for the gang's rendezvous."""
    RUNNING = "running"
    """All its workers were started."""
    STOPPING = "stopping"
    """Its workers are being ended."""
    ENDED = "ended"
    """No process of it runs any more; final."""


class LeaseEnd(StrEnum):
    """Why a supervisor ended a lease's workers, or why it never started them."""

    NATURAL = "natural"
    """Not ended, or the workers ended by themselves."""
    ORDERED = "ordered"
    """The control plane ordered it."""
    TIME_LIMIT = "time_limit"
    """The job's time limit was reached."""
    FENCED = "fenced"
    """The control plane was silent past the node's lease, so the supervisor fenced itself."""
    LAUNCH_FAILED = "launch_failed"
    """It could not be started."""
    LAUNCH_REFUSED = "launch_refused"
    """It was not started, and the job may be to blame: its folder or its owner's account is not
    there."""
    SUPERVISOR_LOST = "supervisor_lost"
    """Its supervisor was lost; what it had started was ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One attempt's claim on named devices, cores, memory and ports of one node."""

    lease_id: int
    """Number of the claim; never given out twice."""
    token: int
    """Fencing token: reports and orders under a lower one are void."""
    job_id: int
    """The job that holds it."""
    task_index: int = 0
    """Index of the task that holds it."""
    attempt: int
    """Number of the attempt that holds it."""
    node_uuid: str
    """The node."""
    first_rank: int
    """Rank of its first worker."""
    workers: int
    """Number of workers under it."""
    device_ids: tuple[str, ...] = ()
    """Devices claimed."""
    cpu_ids: tuple[int, ...] = ()
    """Cores claimed for sole use; empty when the job asked for fractions of a core."""
    cpu_millicores: int
    """Processor time claimed, in thousandths of a core."""
    memory_bytes: int
    """Memory claimed."""
    ports: tuple[int, ...] = ()
    """TCP ports claimed for rendezvous and masters."""
    added_us: int
    """When the claim began, UTC in microseconds."""
    removed_us: int | None = None
    """When it was given back; None while it holds."""
    acknowledged: bool = False
    """Whether its node has reported it: from then on its absence from a report means that it was
    lost."""
    phase: LeasePhase = LeasePhase.STAGING
    """Where it stands on its node, as last reported."""
    end: LeaseEnd = LeaseEnd.NATURAL
    """Why its node ended it."""
    message: str = ""
    """The node's words on launch failures and other faults."""
    signals_done: int = 0
    """Number of the last signal that its node has reported as sent; 0 for none."""
    job_dir: str = ""
    """The job's folder on the node, as reported; empty until it was."""
    output_fault: str = ""
    """What could not be written into the files of the workers' output, and why; empty when nothing
    went wrong."""

    @property
    def attempt_key(self) -> tuple[int, int, int]:
        """Key of the attempt that holds it."""
        return (self.job_id, self.task_index, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStatus:
    """One lease as its node sees it."""

    lease_id: int
    """Which lease."""
    token: int
    """Its fencing token."""
    phase: LeasePhase
    """Where it stands."""
    workers: tuple[WorkerStatus, ...] = ()
    """Its workers."""
    end: LeaseEnd = LeaseEnd.NATURAL
    """Why it was ended."""
    message: str = ""
    """In words, for launch failures and other faults."""
    signals_done: int = 0
    """Number of the last signal that its supervisor has sent on order; 0 for none."""
    warned_us: int | None = None
    """When the workers were warned of the time limit, UTC in microseconds; None if they were
    not."""
    time_limit_us: int | None = None
    """The time limit that its supervisor keeps, in microseconds; None for none."""
    stuck: str = ""
    """Which processes do not end though they were killed, and why; empty when none is left so."""
    job_dir: str = ""
    """The job's folder here; empty before there is one."""
    output_fault: str = ""
    """What could not be written into the files of the workers' output, and why."""

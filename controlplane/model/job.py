"""A job, its task and its attempts: what was asked for, what became of it, and the table of legal
moves.

A task with no row yet is one that was never placed: tasks are made when they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from controlplane.model.errors import InvalidTransition
from controlplane.model.lease import WorkerState, WorkerStatus
from controlplane.model.specvalues import Archive
from controlplane.model.tasks import ONE, TaskCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.model.dependencies import Dependency
    from controlplane.model.lease import Lease
    from controlplane.model.spec import JobSpec
    from controlplane.model.tasks import TaskSet


class JobState(StrEnum):
    """Where a job stands, and each of its tasks."""

    PENDING = "pending"
    """Waits; a reason says for what."""
    ACTIVE = "active"
    """An attempt lives."""
    SUCCEEDED = "succeeded"
    """Every worker of the last attempt ended with exit code 0."""
    FAILED = "failed"
    """The last attempt failed, and no further one is due."""
    CANCELLED = "cancelled"
    """Somebody cancelled it, and nothing of it runs any more."""

    @property
    def final(self) -> bool:
        """Whether nothing can change any more."""
        return self in FINAL_JOB_STATES


FINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class AttemptState(StrEnum):
    """Where one try at running a task stands."""

    STAGING = "staging"
    """Placed; its nodes fetch what it needs."""
    STARTING = "starting"
    """Supervisors and workers are being started."""
    RUNNING = "running"
    """Every worker has been started."""
    STOPPING = "stopping"
    """Workers are being ended; the devices are still taken."""
    SUCCEEDED = "succeeded"
    """Every worker ended with exit code 0."""
    FAILED = "failed"
    """A worker failed; the cause names it."""
    CANCELLED = "cancelled"
    """Ended because its job was cancelled."""
    PREEMPTED = "preempted"
    """Ended to make room for another job."""
    TIMED_OUT = "timed_out"
    """Ended because it reached the job's time limit."""
    NODE_LOST = "node_lost"
    """A node that it ran on was lost."""
    LAUNCH_FAILED = "launch_failed"
    """It could not be started; the fault is not the application's."""

    @property
    def final(self) -> bool:
        """Whether nothing can change any more."""
        return self not in LIVE_ATTEMPT_STATES


LIVE_ATTEMPT_STATES = frozenset(
    {AttemptState.STAGING, AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING}
)


class AttemptEvent(StrEnum):
    """What can happen to an attempt."""

    START = "start"
    """A first worker was started."""
    RUN = "run"
    """The last worker was started."""
    STOP = "stop"
    """Its workers are to be ended; `Attempt.outcome` and `cause` are set from then on."""
    END = "end"
    """Nothing of it runs any more: it takes its outcome, SUCCEEDED where none was set."""


ATTEMPT_MOVES: dict[tuple[AttemptState, AttemptEvent], AttemptState | None] = {
    (AttemptState.STAGING, AttemptEvent.START): AttemptState.STARTING,
    (AttemptState.STAGING, AttemptEvent.RUN): AttemptState.RUNNING,
    (AttemptState.STAGING, AttemptEvent.STOP): AttemptState.STOPPING,
    (AttemptState.STARTING, AttemptEvent.RUN): AttemptState.RUNNING,
    (AttemptState.STARTING, AttemptEvent.STOP): AttemptState.STOPPING,
    (AttemptState.RUNNING, AttemptEvent.STOP): AttemptState.STOPPING,
    (AttemptState.RUNNING, AttemptEvent.END): None,
    (AttemptState.STOPPING, AttemptEvent.END): None,
}
"""(state, event) → state; None stands for the attempt's outcome. What is not here cannot happen."""


class CauseKind(StrEnum):
    """Whose doing an end was. Only APPLICATION counts against `max_attempts`, and of that not what
    asks for a requeue."""

    APPLICATION = "application"
    """The program's own fault."""
    INFRASTRUCTURE = "infrastructure"
    """A node, the network or the launch failed."""
    USER = "user"
    """A person asked for it."""
    LIMIT = "limit"
    """A limit of the job was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why an attempt is being ended or has ended."""

    kind: CauseKind
    """Whose doing it was."""
    message: str
    """One sentence for people."""
    rank: int | None = None
    """The worker that it began with; None when it was not one worker's doing."""
    node: str = ""
    """Display name of the node that it began on."""
    exit_code: int | None = None
    """Exit code of that worker."""
    signal: int | None = None
    """Signal number that ended that worker."""
    stderr_tail: str = ""
    """The last lines of that worker's stderr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSignal:
    """A signal that somebody sent to workers of an attempt."""

    number: int
    """Counts from 1 within the attempt."""
    signal: str
    """Its name without `SIG`."""
    ranks: tuple[int, ...]
    """To which workers, in order; empty for all."""
    principal: str
    """Who sent it."""
    sent_us: int
    """When it was asked for, UTC in microseconds."""

    def concerns(self, lease: Lease) -> bool:
        """Whether it is for a worker of that lease."""
        ranks = range(lease.first_rank, lease.first_rank + lease.workers)
        return not self.ranks or any(rank in ranks for rank in self.ranks)

    def waits_for(self, lease: Lease) -> bool:
        """Whether that lease's node has still to report that it was sent."""
        return lease.signals_done < self.number and self.concerns(lease)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at running a task. A requeue makes a new one, and never edits the old one."""

    job_id: int
    """The job."""
    task_index: int = 0
    """Index of the task in its array; 0 for a plain job."""
    number: int
    """Counts from 1 within its task."""
    state: AttemptState = AttemptState.STAGING
    """Where it stands."""
    outcome: AttemptState | None = None
    """What it will be once nothing of it runs; None while nothing has gone wrong."""
    cause: Cause | None = None
    """Why it is being ended or has ended."""
    lease_ids: tuple[int, ...]
    """Its claims, in order of rank, one per node."""
    workers: tuple[WorkerStatus, ...]
    """Its workers, by rank."""
    created_us: int
    """When it was placed, UTC in microseconds."""
    started_us: int | None = None
    """When its first worker was started."""
    running_us: int | None = None
    """When its last worker was started."""
    stopped_us: int | None = None
    """When its end began."""
    ended_us: int | None = None
    """When nothing of it ran any more."""
    warned_us: int | None = None
    """When the first of its workers were warned of the time limit; None if they were not."""
    signals: tuple[SentSignal, ...] = ()
    """Signals that were sent to it, by number: all that a node has still to report, and the last
    ones before."""
    requeue: bool = False
    """Whether somebody ended it so that its task is started again."""

    @property
    def name(self) -> str:
        """Resource name."""
        return f"jobs/{self.job_id}/tasks/{self.task_index}/attempts/{self.number}"

    @property
    def key(self) -> tuple[int, int, int]:
        """What it is found by: job, task, number."""
        return (self.job_id, self.task_index, self.number)

    def after(self, event: AttemptEvent) -> Attempt:
        """The attempt after an event. InvalidTransition, with the story so far, when it cannot
        happen."""
        try:
            to = ATTEMPT_MOVES[self.state, event]
        except KeyError:
            raise InvalidTransition(self.name, self.state, event, self.story()) from None
        return replace(self, state=to or self.outcome or AttemptState.SUCCEEDED)

    def story(self) -> str:
        """What happened to it so far, for an error message."""
        moments = (
            ("placed", self.created_us),
            ("started", self.started_us),
            ("running", self.running_us),
            ("stopping", self.stopped_us),
            ("ended", self.ended_us),
        )
        told = ", ".join(f"{word} at {at}" for word, at in moments if at is not None)
        return f"{told}; cause: {self.cause.message if self.cause else 'none'}"

    @property
    def exit_code(self) -> int | None:
        """What a shell would say of it; None while it lives."""
        if not self.state.final:
            return None
        if self.state is AttemptState.SUCCEEDED:
            return 0
        if self.state is AttemptState.TIMED_OUT:
            return 124  # as timeout(1)
        if self.state is AttemptState.CANCELLED:
            return 130
        if self.cause is not None and self.cause.signal:
            return 128 + self.cause.signal
        if self.cause is not None and self.cause.exit_code:
            return self.cause.exit_code
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One index of a job's array; a plain job has one, with index 0."""

    job_id: int
    """The job."""
    index: int = 0
    """Its index."""
    state: JobState
    """Where it stands."""
    attempts: int = 0
    """Number of attempts made so far; also the number of the last one."""
    application_faults: int = 0
    """Attempts that ended by the application's fault: these count against `max_attempts`."""
    infrastructure_faults: int = 0
    """Attempts that ended by the infrastructure's fault: these have a cap of their own."""
    quick_requeues: int = 0
    """Attempts in a row that asked for a requeue after a short run: these have a cap of their
    own."""
    not_before_us: int = 0
    """Not placed before this, UTC in microseconds: the back-off after a fault."""
    released_us: int | None = None
    """When its last attempt gave its leases back; None before the first one has."""

    @property
    def never(self) -> bool:
        """Whether it can never run: the task that it is paired with did not succeed."""
        return self.not_before_us == NEVER_US


NEVER_US = 2**62
"""In place of the moment before which a task is not placed, where it never is."""
NONE_ENDED = TaskCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a user asked for: an immutable spec, an owner, a state."""

    job_id: int
    """Its number; never given out twice."""
    spec: JobSpec
    """What was asked for."""
    spec_sha256: str
    """SHA-256 of the canonical spec, in hex."""
    owner: str
    """The principal who submitted it."""
    account: str = "default"
    """The account that pays: the spec's, or the owner's default one, until somebody changes it."""
    priority: int
    """Value of its priority class when it was submitted: the higher goes first."""
    state: JobState = JobState.PENDING
    """Where it stands."""
    reason: str = ""
    """Why it ended, in words; why it waits is the scheduler's to say."""
    cancelled_by: str = ""
    """The principal who asked for its end; empty when nobody did."""
    exit_code: int | None = None
    """What a shell would say of it; None until it ends."""
    created_us: int
    """When it was accepted, UTC in microseconds."""
    started_us: int | None = None
    """When its first worker was started."""
    ended_us: int | None = None
    """When it reached a final state."""
    revision: int = 0
    """Number of the last event that changed it."""
    submitted_seq: int = 0
    """Number of the event that tells of its submit."""
    priority_class: str = ""
    """Name of its priority class, where somebody has changed it; else empty."""
    time_limit_us: int | None = None
    """The longest that an attempt may run, in microseconds: the spec's, until somebody changes
    it."""
    held_by: str = ""
    """The principal who holds it, so that nothing of it is started; empty when nobody does."""
    promised_us: int | None = None
    """By when the start of its next task is promised, UTC in microseconds; None: it is not."""
    begun: int = 0
    """So many of its tasks, in order of their indexes, were placed or ended already."""
    skipped: frozenset[int] = frozenset()
    """Indexes of later ones that were cancelled before they were placed."""
    running: int = 0
    """Tasks of which an attempt lives."""
    ended: TaskCounts = NONE_ENDED
    """How those of its tasks ended that have."""
    waits_for: tuple[Dependency, ...] = ()
    """What has not come yet of that which it waits for."""
    doomed: str = ""
    """Why it can never run, in words, where what it waits for can never come; else empty."""

    @property
    def name(self) -> str:
        """Resource name."""
        return f"jobs/{self.job_id}"

    @property
    def blob_sha256(self) -> str | None:
        """The blob that is its working directory; None when that does not travel."""
        where = self.spec.working_dir
        return where.sha256 if isinstance(where, Archive) else None

    @property
    def tasks(self) -> TaskSet:
        """Its tasks."""
        return self.spec.tasks or ONE

    @property
    def unmade(self) -> int:
        """So many of its tasks were never placed and are not cancelled."""
        return len(self.tasks) - self.begun - len(self.skipped)

    def has_unmade(self, index: int) -> bool:
        """Whether one of those has this index."""
        position = self.tasks.position(index)
        return position is not None and position >= self.begun and index not in self.skipped

    def coming(self) -> Iterator[int]:
        """Their indexes, in order."""
        for position in range(self.begun, len(self.tasks)):
            if (index := self.tasks.at(position)) not in self.skipped:
                yield index

    def tally(self) -> str:
        """How its tasks ended, in words."""
        ended = self.ended
        told = {"failed": ended.failed, "cancelled": ended.cancelled, "succeeded": ended.succeeded}
        return ", ".join(f"{n} {word}" for word, n in told.items() if n) + (
            f" of {len(self.tasks)} tasks"
        )

    def after_tasks(self) -> JobState:
        """The state that follows from its tasks'."""
        if self.ended.ended < len(self.tasks):
            return JobState.ACTIVE if self.running else JobState.PENDING
        if self.ended.failed:
            return JobState.FAILED
        return JobState.CANCELLED if self.ended.cancelled else JobState.SUCCEEDED


def passed(job: Job, index: int) -> Job:
    """The job once a task of it that was never placed needs no place any more."""
    tasks, begun, skipped = job.tasks, job.begun, job.skipped | {index}
    while begun < len(tasks) and (first := tasks.at(begun)) in skipped:
        begun, skipped = begun + 1, skipped - {first}
    return replace(job, begun=begun, skipped=skipped)


def waiting_workers(count: int, first_rank: int = 0) -> tuple[WorkerStatus, ...]:
    """Workers that were not started yet; local ranks count from 0."""
    return tuple(
        WorkerStatus(rank=first_rank + i, local_rank=i, state=WorkerState.WAITING)
        for i in range(count)
    )

"""What attempts used, and how it is summed: pure, in integers, so that no split loses any.

What is leased is taken from the moment its lease was added until it was removed, used or not.
Within that time the amount does not change, because the leases of an attempt are added together
and removed together: so a `Usage` keeps amounts and two moments, and any window cuts it exactly.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from controlplane.model.job import AttemptState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from controlplane.model.job import Attempt, Job, Task
    from controlplane.model.lease import Lease
    from controlplane.model.node import Node

UNKNOWN_MODEL = "unknown"
"""Model of a device that its node did not have any more when the attempt ended."""
NOT_FAILED = frozenset({AttemptState.SUCCEEDED, AttemptState.CANCELLED, AttemptState.PREEMPTED})
"""Ends of an attempt that are nobody's fault; every other end is a failure."""
Key = int | str
"""What a sum is for: a job's number, or the name of a user, an account or a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one attempt used."""

    job_id: int
    """The job."""
    task_index: int
    """Index of the task."""
    attempt: int
    """Number of the attempt."""
    owner: str
    """Owner of the job."""
    account: str
    """Account of the job."""
    state: AttemptState
    """How it ended; while it lives, where it stands."""
    seq: int = 0
    """Number of the event that ended it; 0 while it lives."""
    from_us: int
    """When its leases were added, UTC in microseconds."""
    until_us: int
    """When they were removed; while it lives, the present. Never before `from_us`."""
    devices: tuple[tuple[str, int], ...] = ()
    """Models of the devices that it held and how many of each, sorted by model."""
    cpu_millicores: int
    """Processor time leased, in thousandths of a core."""
    memory_bytes: int
    """Memory leased."""
    peak_memory_bytes: int | None = None
    """The largest peak of resident memory of one of its workers; None when no node told any."""
    stdout_bytes: int
    """Bytes that its workers wrote to stdout."""
    stderr_bytes: int
    """Bytes that its workers wrote to stderr."""
    waiting_us: int
    """Time before it: since the job was accepted, or since the leases of the attempt before were
    removed, in microseconds. Nothing is leased in it."""
    staging_us: int
    """Time from its placement to its first worker's start, in microseconds."""
    starting_us: int
    """Time from there to its last worker's start, in microseconds."""
    running_us: int
    """Time from there to the beginning of its end, in microseconds."""
    stopping_us: int
    """Time from there until its leases were removed, in microseconds. The four from staging to
    stopping add up to the time for which it held its leases."""

    @property
    def key(self) -> tuple[int, int, int]:
        """Key of the attempt."""
        return (self.job_id, self.task_index, self.attempt)

    @property
    def held_us(self) -> int:
        """For how long it held its leases, in microseconds."""
        return self.until_us - self.from_us


def usage_of(
    attempt: Attempt,
    leases: Sequence[Lease],
    models: Mapping[str, str],
    job: Job,
    *,
    waits_since_us: int,
    now_us: int,
    seq: int = 0,
) -> Usage:
    """What an attempt has used; up to the present, as long as its leases hold.

    `models`: the model of each device, by id. `waits_since_us`: when the attempt before gave its
    leases back; for the first attempt, when the job was accepted.

    Moments come from several hosts, whose clocks may differ or be set: none is taken for earlier
    than the one before it, nor for later than the end.
    """
    begin = min(lease.added_us for lease in leases)
    end = max(
        begin, *(now_us if lease.removed_us is None else lease.removed_us for lease in leases)
    )
    # A phase that the next one never followed lasts until what came instead.
    stopped = end if attempt.stopped_us is None else attempt.stopped_us
    running = stopped if attempt.running_us is None else attempt.running_us
    started = running if attempt.started_us is None else attempt.started_us
    moments = [begin]
    for moment in (started, running, stopped):
        moments.append(min(max(moment, moments[-1]), end))
    moments.append(end)
    staged, began, ran, ended = (later - earlier for earlier, later in pairwise(moments))
    held = Counter(models.get(device, UNKNOWN_MODEL) for x in leases for device in x.device_ids)
    peaks = [w.peak_memory_bytes for w in attempt.workers if w.peak_memory_bytes is not None]
    return Usage(
        job_id=attempt.job_id,
        task_index=attempt.task_index,
        attempt=attempt.number,
        owner=job.owner,
        account=job.account,
        state=attempt.state,
        seq=seq,
        from_us=begin,
        until_us=end,
        devices=tuple(sorted(held.items())),
        cpu_millicores=sum(lease.cpu_millicores for lease in leases),
        memory_bytes=sum(lease.memory_bytes for lease in leases),
        peak_memory_bytes=max(peaks, default=None),
        stdout_bytes=sum(worker.stdout_bytes for worker in attempt.workers),
        stderr_bytes=sum(worker.stderr_bytes for worker in attempt.workers),
        waiting_us=max(begin - waits_since_us, 0),
        staging_us=staged,
        starting_us=began,
        running_us=ran,
        stopping_us=ended,
    )


def models_of(nodes: Iterable[Node]) -> dict[str, str]:
    """Models of the devices of nodes, by device id."""
    return {device.device_id: device.model for node in nodes for device in node.facts.devices}


def waits_since(job: Job, task: Task) -> int:
    """Since when an attempt waited, from its task as it was before its end."""
    return job.created_us if task.released_us is None else task.released_us


class UsageGroup(StrEnum):
    """What usage is summed by."""

    USER = "user"
    """Owner of the job."""
    ACCOUNT = "account"
    """Account of the job."""
    JOB = "job"
    """The job."""
    MODEL = "model"
    """Model of the devices; an attempt without any counts under the empty name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which usage; empty names do not filter."""

    from_us: int
    """Time before this does not count, UTC in microseconds."""
    to_us: int
    """Time from this on does not count."""
    owner: str = ""
    """Owner, exactly."""
    account: str = ""
    """Account, exactly."""

    def takes(self, usage: Usage) -> bool:
        """Whether an attempt counts: it held its leases at some moment of the window."""
        return (
            usage.from_us < self.to_us
            and (usage.until_us > self.from_us or usage.from_us >= self.from_us)
            and self.owner in ("", usage.owner)
            and self.account in ("", usage.account)
        )

    def cut_us(self, usage: Usage) -> int:
        """For how long an attempt held its leases within the window, in microseconds."""
        return max(min(usage.until_us, self.to_us) - max(usage.from_us, self.from_us), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """What several attempts used within a window."""

    device_us: Mapping[str, int] = field(default_factory=dict)
    """Microseconds for which devices were held, by model; two devices make twice the time."""
    core_ns: int = 0
    """Nanoseconds for which cores were leased: millicores × microseconds."""
    jobs: int = 0
    """Number of jobs."""
    attempts: int = 0
    """Number of attempts that held their leases at some moment of the window."""
    living_attempts: int = 0
    """Those of them that have not ended."""
    failed_attempts: int = 0
    """Those of them whose end, whenever it came, was a failure (all but `NOT_FAILED`)."""
    peak_memory_bytes: int | None = None
    """The largest peak of resident memory of one worker; None when none is known."""


def summed(
    usages: Iterable[Usage], which: UsageFilter, by: UsageGroup | None
) -> tuple[dict[Key, UsageSum], frozenset[tuple[Key, int]]]:
    """Sums over those of the attempts that a filter takes, and (key, job) of each that counts.

    `by`: None for one sum over all, under the empty name. An attempt that held devices of several
    models counts under each of them, with that model's device time alone.
    """
    taken: dict[Key, list[Usage]] = defaultdict(list)
    for usage in usages:
        if which.takes(usage):
            for key in _keys(usage, by):
                taken[key].append(usage)
    met = frozenset((key, usage.job_id) for key, several in taken.items() for usage in several)
    return {key: _sum(several, which, key, by) for key, several in taken.items()}, met


def _keys(usage: Usage, by: UsageGroup | None) -> tuple[Key, ...]:
    match by:
        case None:
            return ("",)
        case UsageGroup.USER:
            return (usage.owner,)
        case UsageGroup.ACCOUNT:
            return (usage.account,)
        case UsageGroup.JOB:
            return (usage.job_id,)
        case UsageGroup.MODEL:
            return tuple(model for model, _ in usage.devices) or ("",)


def _sum(several: list[Usage], which: UsageFilter, key: Key, by: UsageGroup | None) -> UsageSum:
    device_us: Counter[str] = Counter()
    for usage in several:
        for model, count in usage.devices:
            if by is not UsageGroup.MODEL or model == key:
                device_us[model] += count * which.cut_us(usage)
    peaks = [u.peak_memory_bytes for u in several if u.peak_memory_bytes is not None]
    return UsageSum(
        device_us=dict(device_us),
        core_ns=sum(usage.cpu_millicores * which.cut_us(usage) for usage in several),
        jobs=len({usage.job_id for usage in several}),
        attempts=len(several),
        living_attempts=sum(not usage.state.final for usage in several),
        failed_attempts=sum(
            usage.state.final and usage.state not in NOT_FAILED for usage in several
        ),
        peak_memory_bytes=max(peaks, default=None),
    )


def merged(ended: UsageSum, living: UsageSum, jobs_in_both: int) -> UsageSum:
    """The sum over the attempts of two sums. `jobs_in_both`: jobs that count in each of them."""
    peaks = (ended.peak_memory_bytes, living.peak_memory_bytes)
    known = [peak for peak in peaks if peak is not None]
    models = sorted(ended.device_us.keys() | living.device_us.keys())
    return UsageSum(
        device_us={m: ended.device_us.get(m, 0) + living.device_us.get(m, 0) for m in models},
        core_ns=ended.core_ns + living.core_ns,
        jobs=ended.jobs + living.jobs - jobs_in_both,
        attempts=ended.attempts + living.attempts,
        living_attempts=ended.living_attempts + living.living_attempts,
        failed_attempts=ended.failed_attempts + living.failed_attempts,
        peak_memory_bytes=max(known, default=None),
    )

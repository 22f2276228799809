"""Jobs, attempts, leases, workers and events on the wire."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.struct_pb2 import Struct

from controlplane.model import outputs
from controlplane.model.job import AttemptState, CauseKind, JobState
from controlplane.model.lease import WorkerState
from controlplane.model.outputs import Files
from controlplane.model.spec import SPECS_REMEMBERED, NodePath
from controlplane.model.specpieces import SHARED_REMEMBERED, parted, shared_fields
from controlplane.v1 import event_pb2, job_pb2, lease_pb2
from controlplane.wire.basics import EnumWire, duration, struct, timestamp
from controlplane.wire.progress import progress_message
from controlplane.wire.usage import usage_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.model.event import Event
    from controlplane.model.job import Attempt, Cause, Job, SentSignal, Task
    from controlplane.model.lease import Lease, WorkerStatus
    from controlplane.model.progress import Progress
    from controlplane.model.spec import JobSpec
    from controlplane.model.usage import Usage

JOB_STATES = EnumWire(JobState, job_pb2.JobState, "JOB_STATE")
ATTEMPT_STATES = EnumWire(AttemptState, job_pb2.AttemptState, "ATTEMPT_STATE")
CAUSE_KINDS = EnumWire(CauseKind, job_pb2.CauseKind, "CAUSE_KIND")
WORKER_STATES = EnumWire(WorkerState, lease_pb2.WorkerState, "WORKER_STATE")


def job_message(
    job: Job,
    reason: str,
    attempts: tuple[Attempt, ...],
    leases: Mapping[int, Lease],
    usages: Mapping[tuple[int, int, int], Usage],
    progress: Mapping[tuple[int, int, int], Progress],
    node_names: Mapping[str, str],
) -> job_pb2.Job:
    """A job with all that became of it. `usages`: what ended attempts used, by key, and `progress`:
    how far they are. `node_names`: display names of nodes, by UUID."""
    etag = str(job.revision)
    if attempts and (told := progress.get(attempts[-1].key)) is not None:
        etag += f".{told.revision}"
    message = job_pb2.Job(
        name=job.name,
        job_id=job.job_id,
        display_name=job.spec.name,
        spec=shown_spec(job.spec),
        spec_sha256=job.spec_sha256,
        owner=job.owner,
        account=job.account,
        state=JOB_STATES.out(job.state),
        reason=reason,
        create_time=timestamp(job.created_us),
        start_time=timestamp(job.started_us),
        end_time=timestamp(job.ended_us),
        attempts=[
            attempt_message(job, a, leases, usages.get(a.key), progress.get(a.key), node_names)
            for a in attempts
        ],
        etag=etag,
        held_by=job.held_by,
        time_limit=duration(job.time_limit_us) if job.time_limit_us is not None else None,
        priority=job.priority,
        tasks=_counts(job) if len(job.tasks) > 1 else None,
        waits_for=map(str, job.waits_for),
    )
    if job.exit_code is not None:
        message.exit_code = job.exit_code
    return message


NEVER = "can never run: the task that it waits for did not succeed"
"""Reason of a task whose pair (`aftercorr`) has not succeeded."""


def narrow_to_task(
    message: job_pb2.Job, index: int, task: Task | None, exit_code: int | None
) -> None:
    """Make of a job, with the attempts of one of its tasks, that task. None: it waits to be placed
    for the first time, or was cancelled before. `exit_code`: of its last attempt."""
    message.name += f"/tasks/{index}"
    message.ClearField("tasks")
    for field in ("end_time", "exit_code", "start_time"):
        message.ClearField(field)
    last = message.attempts[-1] if message.attempts else None
    if task is None:
        waits = message.state in (job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_ACTIVE)
        message.state = job_pb2.JOB_STATE_PENDING if waits else job_pb2.JOB_STATE_CANCELLED
    else:
        message.state = JOB_STATES.out(task.state)
        if task.never and not task.state.final:
            message.reason = NEVER
    if last is not None:
        if message.attempts[0].HasField("start_time"):
            message.start_time.CopyFrom(message.attempts[0].start_time)
        if task is not None and task.state is not JobState.PENDING:
            message.reason = last.cause.message if last.HasField("cause") else ""
    if message.state not in (job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_ACTIVE):
        message.exit_code = 130
        if last is not None and message.state != job_pb2.JOB_STATE_CANCELLED:
            message.exit_code = 1 if exit_code is None else exit_code
        if last is not None and last.HasField("end_time"):
            message.end_time.CopyFrom(last.end_time)


def _counts(job: Job) -> job_pb2.TaskCounts:
    total, ended = len(job.tasks), job.ended
    return job_pb2.TaskCounts(
        total=total,
        pending=total - ended.ended - job.running,
        active=job.running,
        succeeded=ended.succeeded,
        failed=ended.failed,
        cancelled=ended.cancelled,
    )


def task_message(
    task: Task,
    last: Attempt | None,
    leases: Mapping[int, Lease],
    node_names: Mapping[str, str],
) -> job_pb2.Task:
    """A task with what its last attempt came to."""
    message = job_pb2.Task(
        name=f"jobs/{task.job_id}/tasks/{task.index}",
        index=task.index,
        state=JOB_STATES.out(task.state),
        attempts=task.attempts,
    )
    if task.never and not task.state.final:
        message.reason = NEVER
    if last is not None:
        if last.cause is not None:
            message.reason = last.cause.message
        if last.exit_code is not None:
            message.exit_code = last.exit_code
        nodes = (leases[i].node_uuid for i in last.lease_ids if i in leases)
        message.nodes.extend(dict.fromkeys(node_names.get(uuid, "") for uuid in nodes))
    return message


SECRET = "(secret)"
"""Stands for the value of a variable that its owner has marked as secret."""


def shown_spec(spec: JobSpec) -> Struct:
    """A spec as everybody may see it who may see the job at all: without its secrets."""
    return Struct.FromString(_shown_spec(spec))


@lru_cache(SPECS_REMEMBERED)
def _shown_spec(spec: JobSpec) -> bytes:
    parts, rest = parted(spec)
    own = dict(parts)
    if spec.secret_env:
        own["env"] = dict(spec.env) | dict.fromkeys(spec.secret_env, SECRET)
    # Messages that are written one behind the other are merged.
    return struct(own).SerializeToString() + _shown_rest(rest)


@lru_cache(SHARED_REMEMBERED)
def _shown_rest(rest: tuple[object, ...]) -> bytes:
    return struct(dict(shared_fields(rest))).SerializeToString()


CONCEALED = "(concealed)"
"""Stands for the value of an environment variable that a reader may not see."""


def conceal(message: job_pb2.Job) -> None:
    """Take out of a job what its environment holds and what its workers wrote: for those who may
    know of it, and not read its output."""
    env = message.spec.fields.get("env")
    if env is not None:
        for value in env.struct_value.fields.values():
            value.string_value = CONCEALED
    for attempt in message.attempts:
        if attempt.HasField("cause"):
            attempt.cause.ClearField("stderr_tail")
        for lease in attempt.leases:
            lease.ClearField("output_fault")
        for worker in attempt.workers:
            worker.ClearField("output_path")
            worker.ClearField("error_path")
        if attempt.HasField("progress"):
            attempt.progress.ClearField("faults")
            if attempt.progress.HasField("checkpoint"):
                attempt.progress.checkpoint.ClearField("path")


def checked_job(spec: JobSpec, spec_sha256: str, owner: str, account: str) -> job_pb2.Job:
    """The job that a valid spec would make: without a number."""
    return job_pb2.Job(
        display_name=spec.name,
        spec=shown_spec(spec),
        spec_sha256=spec_sha256,
        owner=owner,
        account=account,
    )


def attempt_message(
    job: Job,
    attempt: Attempt,
    leases: Mapping[int, Lease],
    usage: Usage | None,
    progress: Progress | None,
    node_names: Mapping[str, str],
) -> job_pb2.Attempt:
    """An attempt with its leases and workers."""
    how_far = None
    if progress is not None:
        how_far = progress_message(progress, lives=not attempt.state.final)
    held = [leases[lease_id] for lease_id in attempt.lease_ids]
    return job_pb2.Attempt(
        name=attempt.name,
        number=attempt.number,
        state=ATTEMPT_STATES.out(attempt.state),
        cause=_cause(attempt.cause) if attempt.cause is not None else None,
        leases=[_lease(lease, node_names) for lease in held],
        workers=[
            _worker(job, attempt.workers[rank], lease, node_names)
            for lease in held
            for rank in range(lease.first_rank, lease.first_rank + lease.workers)
        ],
        create_time=timestamp(attempt.created_us),
        start_time=timestamp(attempt.started_us),
        running_time=timestamp(attempt.running_us),
        stop_time=timestamp(attempt.stopped_us),
        end_time=timestamp(attempt.ended_us),
        usage=usage_message(usage) if usage is not None else None,
        warning_time=timestamp(attempt.warned_us),
        signals=[_signal(each, held) for each in attempt.signals],
        progress=how_far,
    )


def _signal(sent: SentSignal, leases: list[Lease]) -> job_pb2.SentSignal:
    return job_pb2.SentSignal(
        number=sent.number,
        signal=f"SIG{sent.signal}",
        ranks=sent.ranks,
        principal=sent.principal,
        create_time=timestamp(sent.sent_us),
        delivered=not any(sent.waits_for(lease) for lease in leases),
    )


def _cause(cause: Cause) -> job_pb2.Cause:
    return job_pb2.Cause(
        kind=CAUSE_KINDS.out(cause.kind),
        message=cause.message,
        rank=cause.rank,
        node=cause.node,
        exit_code=cause.exit_code,
        signal=cause.signal,
        stderr_tail=cause.stderr_tail,
    )


def _lease(lease: Lease, node_names: Mapping[str, str]) -> lease_pb2.Lease:
    return lease_pb2.Lease(
        lease_id=lease.lease_id,
        token=lease.token,
        node=f"nodes/{lease.node_uuid}",
        node_display_name=node_names.get(lease.node_uuid, ""),
        device_ids=lease.device_ids,
        cpu_ids=lease.cpu_ids,
        cpu_millicores=lease.cpu_millicores,
        memory_bytes=lease.memory_bytes,
        ports=lease.ports,
        workers=lease.workers,
        added_time=timestamp(lease.added_us),
        removed_time=timestamp(lease.removed_us),
        job_dir=lease.job_dir,
        output_fault=lease.output_fault,
    )


def _worker(
    job: Job, worker: WorkerStatus, lease: Lease, node_names: Mapping[str, str]
) -> lease_pb2.Worker:
    node = node_names.get(lease.node_uuid, "")
    written = _files(job, worker.rank, lease, node)
    return lease_pb2.Worker(
        rank=worker.rank,
        local_rank=worker.local_rank,
        node=f"nodes/{lease.node_uuid}",
        node_display_name=node,
        state=WORKER_STATES.out(worker.state),
        pid=worker.pid,
        exit_code=worker.exit_code,
        signal=worker.signal,
        start_time=timestamp(worker.started_us),
        end_time=timestamp(worker.ended_us),
        stdout_bytes=worker.stdout_bytes,
        stderr_bytes=worker.stderr_bytes,
        peak_memory_bytes=worker.peak_memory_bytes,
        output_path=written.output,
        error_path=written.error,
    )


def _files(job: Job, rank: int, lease: Lease, node: str) -> Files:
    """Where a worker's output goes on its node; nowhere as long as that has not told its folder."""
    speaks = rank == lease.first_rank or job.spec.launcher not in outputs.ONE_VOICE
    if not (lease.job_dir and speaks):
        return Files("", "")
    where = job.spec.working_dir
    named = outputs.Named(
        job_id=job.job_id,
        task_index=lease.task_index,
        attempt=lease.attempt,
        rank=rank,
        node=node,
        name=job.spec.name,
        owner=job.owner,
        array=len(job.tasks) > 1,
    )
    base = where.path if isinstance(where, NodePath) else lease.job_dir
    return outputs.files(job.spec.output, job.spec.error, base, named)


def event_message(event: Event) -> event_pb2.Event:
    """An event."""
    return event_pb2.Event(
        seq=event.seq,
        time=timestamp(event.time_us),
        kind=event.kind,
        principal=event.actor.principal,
        peer=event.actor.peer,
        resource=event.resource,
        changed=struct(event.changed),
    )

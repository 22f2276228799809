"""Commands of users: submit jobs, end them, hold them back, start them again, change them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from controlplane.model.account import held_by
from controlplane.model.errors import FieldFault, InvalidRequest, WrongState
from controlplane.model.job import AttemptState, Cause, CauseKind, Job, JobState, Task, passed
from controlplane.model.quantity import format_duration
from controlplane.model.tasks import ONE
from controlplane.registry import accounts, attempts, depending
from controlplane.registry.which import Which, known, living, over

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from controlplane.model.job import Attempt
    from controlplane.model.queues import JobQueue
    from controlplane.model.spec import JobSpec
    from controlplane.registry.depending import Past
    from controlplane.registry.draft import Draft


class Wanted(NamedTuple):
    """A job that somebody wants accepted."""

    spec: JobSpec
    """What was asked for."""
    spec_sha256: str
    """SHA-256 of the canonical spec, in hex."""
    priority: int
    """Value of its priority class."""
    spec_text: str = ""
    """The canonical spec, where that is at hand."""
    pasts: Mapping[int, Past] = MappingProxyType({})
    """How those of the jobs ended that it waits for and that live no more, by number."""


def submit(draft: Draft, wanted: Sequence[Wanted], *, hold: bool = False) -> list[int]:
    """Accept jobs: all of them, with one event. Their numbers, one after the other. `Unread` when
    one waits for a job that has ended, and its past is not there."""
    queues = [_queue(draft, one.spec.queue) for one in wanted]
    first = draft.cluster.last_job_id + 1
    last = first + len(wanted) - 1
    owner = draft.actor.principal
    paid_by = accounted(draft, wanted)
    held_by = owner if hold else ""
    held = {"held_by": held_by} if hold else {}
    if len(wanted) == 1:
        spec = wanted[0].spec
        changed = {"name": spec.name, "spec_sha256": wanted[0].spec_sha256, "state": "pending"}
        seq = draft.emit("job.submitted", f"jobs/{first}", changed | held)
    else:
        seq = draft.emit("jobs.submitted", f"jobs/{first}-{last}", {"jobs": len(wanted), **held})
    draft.cluster = replace(draft.cluster, last_job_id=last)
    for job_id, one, queue in zip(range(first, last + 1), wanted, queues, strict=True):
        if one.spec_text:
            draft.spec_texts[job_id] = one.spec_text
        job = Job(
            job_id=job_id,
            spec=one.spec,
            spec_sha256=one.spec_sha256,
            owner=owner,
            account=paid_by[one.spec.account],
            priority=one.priority,
            created_us=draft.now_us,
            revision=seq,
            submitted_seq=seq,
            time_limit_us=queue.limit_us(one.spec.time_limit_us),
            held_by=held_by,
        )
        draft.jobs[job_id] = depending.begun(draft, job, one.pasts) if one.spec.depends_on else job
    return list(range(first, last + 1))


def accounted(draft: Draft, wanted: Sequence[Wanted]) -> dict[str | None, str]:
    """The accounts that pay for jobs, by what these name. QuotaExceeded when so many tasks more may
    not wait there; otherwise raises as `payer`."""
    owner = draft.actor.principal
    tasks: Counter[str | None] = Counter()
    for one in wanted:
        tasks[one.spec.account] += len(one.spec.tasks or ONE)
    found = {name: accounts.payer(draft, name, owner) for name in tasks}
    for account in set(found.values()):
        more = sum(number for name, number in tasks.items() if found[name] == account)
        accounts.check_queued(draft, account, owner, more)
    return found


def _queue(draft: Draft, name: str) -> JobQueue:
    queue = draft.queues.get(name)
    if queue is None:
        words = f'"{name}": there is no such queue any more'
        raise InvalidRequest(FieldFault(field="queue", description=words))
    return queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What a cancel did."""

    cancelled: tuple[str, ...]
    """Jobs and tasks that are being ended, or have ended by it."""
    already_ended: tuple[str, ...]
    """Those that had ended before."""


def cancel(draft: Draft, which: Iterable[Which]) -> Cancelled:
    """End jobs, or tasks of them. NotFound, and nothing done, when there never was one of them."""
    cancelled, already = [], []
    for each in dict.fromkeys(which):
        job = known(draft, each)
        if job is None or over(draft, job, each.task):
            already.append(str(each))
            continue
        if each.task is None:
            _cancel(draft, job)
        else:
            _cancel_task(draft, job, each.task)
        cancelled.append(str(each))
    return Cancelled(cancelled=tuple(cancelled), already_ended=tuple(already))


def _cancel(draft: Draft, job: Job) -> None:
    if job.cancelled_by:
        return
    who = draft.actor.principal
    changed = {"state": job.state, "cancelled_by": ["", who]}
    seq = draft.emit("job.cancelled", job.name, changed)
    left = job.unmade
    draft.jobs[job.job_id] = replace(
        job,
        cancelled_by=who,
        revision=seq,
        begun=len(job.tasks),
        skipped=frozenset(),
        ended=job.ended.plus(JobState.CANCELLED, left),
    )
    for index in sorted(draft.live_tasks(job.job_id)):
        _end_task(draft, draft.tasks[job.job_id, index])
    _settle(draft, job.job_id)


def _cancel_task(draft: Draft, job: Job, index: int) -> None:
    name = str(Which(job.job_id, index))
    task = draft.tasks.get((job.job_id, index))
    state = task.state if task is not None else JobState.PENDING
    seq = draft.emit("task.cancelled", name, {"state": state})
    job = replace(job, revision=seq)
    if task is None:
        draft.tasks[job.job_id, index] = Task(
            job_id=job.job_id, index=index, state=JobState.CANCELLED
        )
        job = replace(passed(job, index), ended=job.ended.plus(JobState.CANCELLED))
    draft.jobs[job.job_id] = job
    if task is not None:
        _end_task(draft, task)
    else:
        depending.task_ended(draft, job, index, JobState.CANCELLED)
    _settle(draft, job.job_id)


def _end_task(draft: Draft, task: Task) -> None:
    """End a task that lives: at once where it waits, else by way of its attempt."""
    job = draft.jobs[task.job_id]
    if task.state is JobState.PENDING:
        draft.tasks[task.job_id, task.index] = replace(task, state=JobState.CANCELLED)
        job = replace(job, ended=job.ended.plus(JobState.CANCELLED))
        draft.jobs[job.job_id] = job
        depending.task_ended(draft, job, task.index, JobState.CANCELLED)
        return
    attempt = draft.attempts[task.job_id, task.index, task.attempts]
    if attempt.state is not AttemptState.STOPPING:
        _stop(draft, attempt, f"cancelled by {draft.actor.principal}")
    elif attempt.requeue:  # it was on its way to be started again
        draft.attempts[attempt.key] = replace(attempt, requeue=False)


def _settle(draft: Draft, job_id: int) -> None:
    """Note the end of a job whose last task has ended without an attempt's end."""
    job = draft.jobs[job_id]
    if job.state.final or not job.after_tasks().final:
        return
    who = job.cancelled_by or draft.actor.principal
    words = f"cancelled by {who}" + (
        f": it could never run because {job.doomed}" * bool(job.doomed)
    )
    job = attempts.settled(job, words, ended_us=draft.now_us)
    draft.jobs[job_id] = job
    depending.job_ended(draft, job)


def _stop(draft: Draft, attempt: Attempt, words: str, *, requeue: bool = False) -> None:
    cause = Cause(kind=CauseKind.USER, message=words)
    attempt = attempts.stop(draft, attempt, AttemptState.CANCELLED, cause)
    attempts.finish(draft, replace(attempt, requeue=requeue))


def hold(draft: Draft, job_ids: Iterable[int]) -> None:
    """Start nothing more of jobs. WrongState, and nothing done, when one of them has ended."""
    for job_id in dict.fromkeys(job_ids):
        job = living(draft, Which(job_id), "held")
        if not job.held_by:
            changed = {"held_by": ["", draft.actor.principal]}
            seq = draft.emit("job.held", job.name, changed)
            draft.jobs[job_id] = replace(job, held_by=draft.actor.principal, revision=seq)


def release(draft: Draft, job_ids: Iterable[int]) -> None:
    """Let jobs that are held go on. WrongState, and nothing done, when one of them has ended."""
    for job_id in dict.fromkeys(job_ids):
        job = living(draft, Which(job_id), "released")
        if job.held_by:
            seq = draft.emit("job.released", job.name, {"held_by": [job.held_by, ""]})
            draft.jobs[job_id] = replace(job, held_by="", revision=seq)


def requeue(draft: Draft, which: Iterable[Which]) -> list[str]:
    """End what runs of jobs or tasks, and have it started again. The tasks that it concerns.
    WrongState, and nothing done, when one of them has ended or nothing of it runs."""
    names = []
    for each in dict.fromkeys(which):
        job = living(draft, each, "requeued")
        if job.cancelled_by:
            raise WrongState(f"{job.name} is being cancelled, and cannot be requeued")
        wanted = sorted(draft.live_tasks(job.job_id)) if each.task is None else [each.task]
        tasks = [draft.tasks.get((job.job_id, index)) for index in wanted]
        active = [task for task in tasks if task is not None and task.state is JobState.ACTIVE]
        if not active:
            raise WrongState(f"{each} waits already: nothing of it runs that could be requeued")
        for task in active:
            attempt = draft.attempts[task.job_id, task.index, task.attempts]
            if attempt.state is AttemptState.STOPPING:
                why = attempt.cause.message if attempt.cause is not None else "it ends"
                raise WrongState(f"{attempt.name} is being ended, and cannot be requeued: {why}")
            words = f"requeued by {draft.actor.principal}"
            told = {"attempt": attempt.number, "state": attempt.state}
            seq = draft.emit("task.requeued", str(Which(task.job_id, task.index)), told)
            draft.jobs[job.job_id] = replace(draft.jobs[job.job_id], revision=seq)
            _stop(draft, attempt, words, requeue=True)
            names.append(str(Which(task.job_id, task.index)))
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What should become of a job."""

    time_limit_us: int | None = None
    """Its new time limit; None leaves it."""
    no_time_limit: bool = False
    """Take its time limit away."""
    priority_class: str = ""
    """Its new priority class; empty leaves it."""
    priority: int = 0
    """What that class is worth."""
    account: str = ""
    """The account that pays from now on; empty leaves it."""
    by_operator: bool = False
    """Whether who asks keeps the centre running, and may give what a job did not ask for."""


def update(draft: Draft, job_id: int, change: Change) -> None:
    """Change a job. WrongState when it has ended; InvalidRequest for what cannot be changed so."""
    job = before = living(draft, Which(job_id), "changed")
    if change.time_limit_us is not None or change.no_time_limit:
        limit = None if change.no_time_limit else change.time_limit_us
        _check_limit(draft, job, limit, change)
        job = replace(job, time_limit_us=limit)
    if change.priority_class:
        job = replace(job, priority=change.priority, priority_class=change.priority_class)
    if change.account and change.account != job.account:
        job = replace(job, account=_new_payer(draft, job, change.account))
    if job == before:
        return
    changed = {
        name: [getattr(before, name), getattr(job, name)]
        for name in ("time_limit_us", "priority", "priority_class", "account")
        if getattr(before, name) != getattr(job, name)
    }
    seq = draft.emit("job.changed", job.name, changed)
    draft.jobs[job_id] = replace(job, revision=seq)
    for index in draft.live_tasks(job_id):
        task = draft.tasks[job_id, index]
        if task.state is JobState.ACTIVE and "time_limit_us" in changed:
            attempt = draft.attempts[job_id, index, task.attempts]
            for lease_id in attempt.lease_ids:
                draft.turn(draft.leases[lease_id].node_uuid)


def _new_payer(draft: Draft, job: Job, wanted: str) -> str:
    """The account that pays for a job from now on. WrongState while something of it runs: what an
    attempt uses is paid by one account."""
    if job.running:
        words = "runs, and the account that pays for an attempt pays for all of it"
        raise WrongState(f"{job.name} {words}; requeue it, or let it end")
    account = accounts.payer(draft, wanted, job.owner)
    queue = draft.queues.get(job.spec.queue)
    if queue is not None and not queue.takes(job.owner, account):
        words = f'"{account}": {queue.resource}, where the job waits, is for {queue.whom}'
        raise InvalidRequest(FieldFault(field="account", description=words))
    accounts.check_queued(draft, account, job.owner, held_by(job).queued)
    return account


def _check_limit(draft: Draft, job: Job, limit_us: int | None, change: Change) -> None:
    queue = draft.queues.get(job.spec.queue)
    if queue is not None and queue.max_limit_us is not None and not change.by_operator:
        longest = format_duration(queue.max_limit_us)
        words = f'"none": {queue.resource} allows {longest} at most' if limit_us is None else ""
        if words := words or queue.too_long(limit_us):
            raise InvalidRequest(FieldFault(field="time_limit", description=words))
    warning = job.spec.signal
    if warning is not None and (limit_us is None or limit_us <= warning.before_us):
        words = "the job is warned of its time limit, and there must be time for that before it"
        raise InvalidRequest(FieldFault(field="time_limit", description=words))
    longer = limit_us is None or (job.time_limit_us is not None and limit_us > job.time_limit_us)
    if longer and job.running and job.time_limit_us is not None and not change.by_operator:
        words = "a job that runs gets more time from an operator alone; you may shorten it"
        raise InvalidRequest(FieldFault(field="time_limit", description=words))

"""How attempts move on: shared by every command that touches one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlplane.model.blackhole import QUICK_US, QuickFailure, drain_reason, noted
from controlplane.model.job import (
    Attempt,
    AttemptEvent,
    AttemptState,
    Cause,
    CauseKind,
    Job,
    JobState,
    Task,
)
from controlplane.model.lease import Lease, LeaseEnd, LeasePhase, WorkerState, WorkerStatus
from controlplane.model.retry import judge
from controlplane.model.usage import models_of, usage_of, waits_since
from controlplane.model.words import describe_worker_end, signal_name
from controlplane.registry import accounts, depending

if TYPE_CHECKING:
    from controlplane.model.spec import JobSpec
    from controlplane.registry.draft import Draft

_HELD_AGAINST_NODES = frozenset({CauseKind.APPLICATION, CauseKind.INFRASTRUCTURE})
_OWNERS_DOING = frozenset({LeaseEnd.LAUNCH_REFUSED, LeaseEnd.SUPERVISOR_LOST})
"""Faults that one owner may bring about: who kills all they may can hit a supervisor that starts
their worker."""
_STARTED = frozenset({WorkerState.RUNNING, WorkerState.ENDED})


def advance(draft: Draft, attempt: Attempt, reported: Lease) -> None:
    """Move an attempt as far as the reports on its leases allow, and write it down.

    `reported`: the lease whose report this is; it gets an event of its own where the attempt as a
    whole does not move.
    """
    leases = [draft.leases[lease_id] for lease_id in attempt.lease_ids]
    before = attempt
    workers = attempt.workers
    starts = [w.started_us for w in workers if w.started_us is not None]
    if attempt.state is AttemptState.STAGING and starts:
        attempt = replace(attempt.after(AttemptEvent.START), started_us=min(starts))
    if attempt.state is AttemptState.STARTING and all(w.state in _STARTED for w in workers):
        attempt = replace(attempt.after(AttemptEvent.RUN), running_us=max(starts))
    if attempt.state is not AttemptState.STOPPING:
        fault = first_fault(draft, attempt, leases)
        if fault is not None:
            attempt = stop(draft, attempt, *fault)
    if attempt.started_us is not None and before.started_us is None:
        job = draft.jobs[attempt.job_id]
        if job.started_us is None:
            draft.jobs[job.job_id] = replace(job, started_us=attempt.started_us)
    if all(lease.phase is LeasePhase.ENDED for lease in leases):
        close(draft, attempt)
        return
    draft.attempts[attempt.key] = attempt
    if attempt.state is before.state:
        node = draft.nodes[reported.node_uuid].facts.display_name
        told = {"lease_id": reported.lease_id, "node": node}
        draft.emit(f"lease.{reported.phase}", attempt.name, told)
    else:
        changed: dict[str, object] = {"state": attempt.state}
        if attempt.cause is not None:
            changed["cause"] = attempt.cause.message
        seq = draft.emit(f"attempt.{attempt.state}", attempt.name, changed)
        draft.jobs[attempt.job_id] = replace(draft.jobs[attempt.job_id], revision=seq)
        if attempt.state is AttemptState.STOPPING:
            for lease in leases:
                draft.turn(lease.node_uuid)


def first_fault(
    draft: Draft, attempt: Attempt, leases: list[Lease]
) -> tuple[AttemptState, Cause] | None:
    """What went wrong first, and how the attempt will end for it; None when nothing did."""
    workers, spec = attempt.workers, draft.jobs[attempt.job_id].spec
    for lease in leases:
        node = draft.nodes[lease.node_uuid].facts.display_name
        if lease.end is LeaseEnd.TIME_LIMIT:
            message = "the time limit was reached"
            if spec.signal is not None and attempt.warned_us is not None:
                before_s = spec.signal.before_us // 1_000_000
                message += f", {before_s} s after the warning by SIG{spec.signal.name}"
            return AttemptState.TIMED_OUT, Cause(kind=CauseKind.LIMIT, message=message, node=node)
        if lease.end in (LeaseEnd.LAUNCH_FAILED, LeaseEnd.LAUNCH_REFUSED):
            message = f"could not be started on {node}: {lease.message}"
            return AttemptState.LAUNCH_FAILED, _infrastructure(message, node)
        if lease.end is LeaseEnd.FENCED:
            message = (
                f"{node} was cut off from the control plane past its lease, and ended its workers"
            )
            return AttemptState.NODE_LOST, _infrastructure(message, node)
        if lease.end is LeaseEnd.SUPERVISOR_LOST:
            message = lease.message or "its supervisor was lost"
            told = message if node in message else f"{node}: {message}"
            return AttemptState.NODE_LOST, _infrastructure(told, node)
    failed = [w for w in workers if w.state is WorkerState.ENDED and w.failed]
    if failed:
        first = min(failed, key=lambda w: (w.ended_us or 0, w.rank))
        node = next(
            draft.nodes[lease.node_uuid].facts.display_name
            for lease in leases
            if lease.first_rank <= first.rank < lease.first_rank + lease.workers
        )
        cause = Cause(
            kind=CauseKind.APPLICATION,
            message=f"rank {first.rank} on {node} {describe_worker_end(first)}"
            + _background(spec, attempt, first),
            rank=first.rank,
            node=node,
            exit_code=first.exit_code,
            signal=first.signal,
            stderr_tail=first.stderr_tail,
        )
        return AttemptState.FAILED, cause
    for lease in leases:
        if lease.phase is LeasePhase.ENDED and not _all_ended(lease, workers):
            node = draft.nodes[lease.node_uuid].facts.display_name
            message = lease.message or f"{node} ended it without having started every worker"
            return AttemptState.LAUNCH_FAILED, _infrastructure(message, node)
    return None


def _background(spec: JobSpec, attempt: Attempt, failed: WorkerStatus) -> str:
    """What stands behind a worker's end, as more words on it: whose signal it was, or what its exit
    code asks for."""
    if failed.exit_code in spec.requeue_exit_codes:
        return ", by which it asks to be started again"
    if not failed.signal:
        return ""
    name = signal_name(failed.signal)
    for sent in reversed(attempt.signals):
        if f"SIG{sent.signal}" == name and (not sent.ranks or failed.rank in sent.ranks):
            return f", which {sent.principal} had sent and it does not handle"
    if spec.signal is not None and f"SIG{spec.signal.name}" == name and attempt.warned_us:
        return ", the warning before its time limit, which it does not handle"
    return ""


def stop(draft: Draft, attempt: Attempt, outcome: AttemptState, cause: Cause) -> Attempt:
    """The attempt on its way to an end; the caller writes it down and tells the nodes."""
    attempt = attempt.after(AttemptEvent.STOP)
    return replace(attempt, outcome=outcome, cause=cause, stopped_us=draft.now_us)


def finish(draft: Draft, attempt: Attempt) -> None:
    """Write down that an attempt is being ended, and tell its nodes; where nothing of it runs any
    more, end it."""
    draft.attempts[attempt.key] = attempt
    if all(draft.leases[i].phase is LeasePhase.ENDED for i in attempt.lease_ids):
        close(draft, attempt)
        return
    for lease_id in attempt.lease_ids:
        draft.turn(draft.leases[lease_id].node_uuid)


def close(draft: Draft, attempt: Attempt) -> None:
    """Nothing of it runs any more: give its leases back and decide what becomes of its task."""
    ends = [w.ended_us for w in attempt.workers if w.ended_us is not None]
    attempt = replace(
        attempt.after(AttemptEvent.END),
        workers=tuple(
            w if w.state is WorkerState.ENDED else replace(w, state=WorkerState.LOST)
            for w in attempt.workers
        ),
        ended_us=max(ends, default=draft.now_us),
        stopped_us=attempt.stopped_us or min(ends, default=draft.now_us),
    )
    draft.attempts[attempt.key] = attempt
    job = draft.jobs[attempt.job_id]
    before = draft.tasks[attempt.job_id, attempt.task_index]
    verdict = judge(job, before, attempt, draft.now_us)
    task: Task = replace(verdict.task, released_us=draft.now_us)
    draft.tasks[task.job_id, task.index] = task
    changed: dict[str, object] = {"state": attempt.state, "job_state": task.state}
    if attempt.cause is not None:
        changed["cause"] = attempt.cause.message
        changed["cause_kind"] = attempt.cause.kind
    if not task.state.final:
        changed["waits_us"] = max(0, task.not_before_us - draft.now_us)
    seq = draft.emit(f"attempt.{attempt.state}", attempt.name, changed)
    for lease_id in attempt.lease_ids:
        lease = draft.leases[lease_id]
        draft.leases[lease_id] = replace(lease, removed_us=draft.now_us)
        held = draft.node_leases.get(lease.node_uuid) or frozenset()
        draft.node_leases[lease.node_uuid] = held - {lease_id}
        draft.turn(lease.node_uuid)
    leases = [draft.leases[lease_id] for lease_id in attempt.lease_ids]
    nodes = [draft.nodes[lease.node_uuid] for lease in leases]
    usage = usage_of(
        attempt,
        leases,
        models_of(nodes),
        job,
        waits_since_us=waits_since(job, before),
        now_us=draft.now_us,
        seq=seq,
    )
    draft.usages.append(usage)
    accounts.charge(draft, usage)
    _judge_nodes(draft, attempt, leases, job.owner)
    job = replace(job, running=job.running - 1, revision=seq)
    if task.state.final:
        job = replace(job, ended=job.ended.plus(task.state))
    draft.jobs[job.job_id] = job = settled(job, verdict.reason, attempt)
    if task.state.final:
        depending.task_ended(draft, job, task.index, task.state)
    if job.state.final:
        depending.job_ended(draft, job)


def settled(job: Job, reason: str, attempt: Attempt | None = None, ended_us: int = 0) -> Job:
    """The job as its tasks have it by now. `attempt`: the one whose end has changed that; without
    one it was changed at `ended_us`."""
    state = job.after_tasks()
    if not state.final:
        return replace(job, state=state, reason=reason if len(job.tasks) == 1 else "")
    if attempt is not None and attempt.ended_us is not None:
        ended_us = attempt.ended_us
    if len(job.tasks) > 1:
        reason = job.tally()
        exit_code = {JobState.SUCCEEDED: 0, JobState.CANCELLED: 130}.get(state, 1)
    else:
        exit_code = 130 if attempt is None or attempt.exit_code is None else attempt.exit_code
    return replace(job, state=state, reason=reason, exit_code=exit_code, ended_us=ended_us)


def _judge_nodes(draft: Draft, attempt: Attempt, leases: list[Lease], owner: str) -> None:
    """Hold a failure within seconds against the node that its cause names, and drain one that eats
    jobs; where it went well, forget what was held."""
    began, ended = attempt.started_us, attempt.ended_us
    ran_us = ended - began if began is not None and ended is not None else 0
    cause = attempt.cause
    quick = cause is not None and cause.kind in _HELD_AGAINST_NODES and ran_us < QUICK_US
    for lease in leases:
        node = draft.nodes[lease.node_uuid]
        if cause is not None and quick and cause.node == node.facts.display_name:
            failure = QuickFailure(
                job_id=attempt.job_id,
                owner=owner,
                infrastructure=cause.kind is CauseKind.INFRASTRUCTURE
                and lease.end not in _OWNERS_DOING,
                at_us=draft.now_us,
                message=cause.message,
            )
            row = noted(node.quick_failures, failure)
            draft.nodes[node.uuid] = node = replace(node, quick_failures=row)
            draft.emit(
                "node.suspected", node.name, {"failures": len(row), "job_id": failure.job_id}
            )
            if (reason := drain_reason(row)) and node.drain_reason is None:
                draft.emit("node.drained", node.name, {"reason": [None, reason]})
                draft.nodes[node.uuid] = replace(node, drain_reason=reason)
        elif node.quick_failures and (ran_us >= QUICK_US or cause is None):
            draft.emit("node.cleared", node.name, {"job_id": attempt.job_id})
            draft.nodes[node.uuid] = replace(node, quick_failures=())


def _infrastructure(message: str, node: str) -> Cause:
    return Cause(kind=CauseKind.INFRASTRUCTURE, message=message, node=node)


def _all_ended(lease: Lease, workers: tuple[WorkerStatus, ...]) -> bool:
    ranks = range(lease.first_rank, lease.first_rank + lease.workers)
    return all(workers[rank].state is WorkerState.ENDED for rank in ranks)

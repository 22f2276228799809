"""The scheduler's command: make a plan true, after another look at each node that it touches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controlplane.model.job import (
    Attempt,
    JobState,
    Task,
    passed,
    waiting_workers,
)
from controlplane.model.lease import Lease
from controlplane.model.moments import format_moment
from controlplane.registry import accounts
from controlplane.registry.facts import still_waits_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.model.job import Job
    from controlplane.model.plan import Place
    from controlplane.model.queues import JobQueue
    from controlplane.model.reservation import Reservation
    from controlplane.model.view import Part, Promise
    from controlplane.registry.draft import Draft


PROMISE_SLACK_US = 60_000_000
"""A start so much later than promised is still kept word: ends are told by heartbeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A placement that was no longer possible when it came to the commit."""

    job_id: int
    """The job."""
    reason: str
    """What had changed."""


def commit_places(draft: Draft, places: Iterable[Place]) -> tuple[Refusal, ...]:
    """Start what still can be started, each gang whole or not at all; answer what was refused, and
    why."""
    refused = []
    for place in places:
        reason = _objection(draft, place)
        if reason is None:
            _start(draft, place)
        else:
            refused.append(Refusal(job_id=place.job_id, reason=reason))
    return tuple(refused)


def commit_promises(draft: Draft, promises: Iterable[Promise]) -> int:
    """Write down starts that are promised for the first time; how many these are. The first word
    counts: a later decision may better it, and never takes it back."""
    made = 0
    for promise in promises:
        job = draft.jobs.get(promise.job_id)
        if job is None or job.state.final or job.promised_us is not None:
            continue
        seq = draft.emit("job.promised", job.name, {"start_us": promise.start_us})
        draft.jobs[job.job_id] = replace(job, promised_us=promise.start_us, revision=seq)
        made += 1
    return made


def _objection(draft: Draft, place: Place) -> str | None:
    job = draft.jobs.get(place.job_id)
    if job is None or job.state.final or job.cancelled_by:
        return "the job does not wait any more"
    if job.held_by:
        return f"the job is held by {job.held_by}"
    task = draft.tasks.get((place.job_id, place.task_index))
    if task is not None and task.state is not JobState.PENDING:
        return "the task does not wait any more"
    if job.doomed or (task is not None and task.never):
        return "it can never run: what it waits for can never come"
    if words := still_waits_for(job, paired=task is not None):
        return f"it {words}"
    if job.spec.begin_us is not None and job.spec.begin_us > draft.now_us:
        return f"it may not begin before {format_moment(job.spec.begin_us)}"
    if task is None and place.task_index != next(job.coming(), None):
        return "another task of its array comes first"
    at_once = job.tasks.at_once
    if at_once is not None and job.running >= at_once:
        return f"{at_once} tasks of its array run, and no more may at once"
    if sum(part.workers for part in place.parts) != job.spec.workers:
        return "the plan does not place the whole gang"
    gpus = sum(len(part.device_ids) for part in place.parts)
    if (reason := accounts.over_quota(draft, job, gpus)) is not None:
        return reason
    queue = draft.queues.get(job.spec.queue)
    if queue is not None and queue.closed:
        return f"{queue.resource} is closed: {queue.closed}"
    limit_us = job.time_limit_us
    until_us = None if limit_us is None else draft.now_us + limit_us + job.spec.grace_period_us
    kept = [r for _, r in draft.reservations.items() if r.touches(draft.now_us, until_us)]
    others = [r for r in kept if not r.takes(job.owner, job.account)]
    for part in place.parts:
        reason = _node_objection(draft, part, job.owner) or _kept(draft, part, others, job, queue)
        if reason is not None:
            return reason
    return None


def _kept(
    draft: Draft, part: Part, others: Iterable[Reservation], job: Job, queue: JobQueue | None
) -> str | None:
    """For whom else a node is; None where it is for anybody."""
    node = draft.nodes[part.node_uuid]
    name, labels = node.facts.display_name, dict(node.labels)
    for each in others:
        if each.holds(node.uuid, labels):
            return f"{name} is kept for {each.resource}"
    if queue is not None and not queue.selector.allows(labels):
        return f"{name} is not of {queue.resource}"
    wanted = job.spec.node_selector
    if wanted is not None and not wanted.allows(labels):
        return f"{name} has not the labels of its node_selector any more"
    return None


def _node_objection(draft: Draft, part: Part, owner: str) -> str | None:
    node = draft.nodes.get(part.node_uuid)
    if node is None or not node.takes_work:
        return f"node {part.node_uuid} takes no work any more"
    held = [draft.leases[i] for i in draft.node_leases.get(part.node_uuid) or ()]
    facts, name = node.facts, node.facts.display_name
    if facts.only_owner not in ("", owner):
        return f"{name} runs only jobs of {facts.only_owner} now"
    if sum(lease.cpu_millicores for lease in held) + part.cpu_millicores > facts.cpus * 1000:
        return f"{name} has not enough free cores any more"
    if sum(lease.memory_bytes for lease in held) + part.memory_bytes > facts.memory_bytes:
        return f"{name} has not enough free memory any more"
    healthy = {device.device_id for device in facts.devices if not device.fault}
    if not healthy.issuperset(part.device_ids):
        return f"a device of {name} is gone or broken"
    for lease in held:
        if not set(part.device_ids).isdisjoint(lease.device_ids):
            return f"a device of {name} was taken meanwhile"
        if not set(part.cpu_ids).isdisjoint(lease.cpu_ids):
            return f"a core of {name} was taken meanwhile"
        if not set(part.ports).isdisjoint(lease.ports):
            return f"a port of {name} was taken meanwhile"
    return None


def _start(draft: Draft, place: Place) -> None:
    job = draft.jobs[place.job_id]
    task = draft.tasks.get((place.job_id, place.task_index))
    number = task.attempts + 1 if task is not None else 1
    leases, first_rank = [], 0
    for part in place.parts:
        lease_id = draft.next_lease_id()
        lease = Lease(
            lease_id=lease_id,
            token=lease_id,
            job_id=place.job_id,
            task_index=place.task_index,
            attempt=number,
            node_uuid=part.node_uuid,
            first_rank=first_rank,
            workers=part.workers,
            device_ids=part.device_ids,
            cpu_ids=part.cpu_ids,
            cpu_millicores=part.cpu_millicores,
            memory_bytes=part.memory_bytes,
            ports=part.ports,
            added_us=draft.now_us,
        )
        leases.append(lease)
        first_rank += part.workers
    attempt = Attempt(
        job_id=place.job_id,
        task_index=place.task_index,
        number=number,
        lease_ids=tuple(lease.lease_id for lease in leases),
        workers=tuple(
            worker
            for lease in leases
            for worker in waiting_workers(lease.workers, lease.first_rank)
        ),
        created_us=draft.now_us,
    )
    nodes = [draft.nodes[lease.node_uuid].facts.display_name for lease in leases]
    seq = draft.emit("attempt.placed", attempt.name, {"state": attempt.state, "nodes": nodes})
    for lease in leases:
        draft.leases[lease.lease_id] = lease
        held = draft.node_leases.get(lease.node_uuid) or frozenset()
        draft.node_leases[lease.node_uuid] = held | {lease.lease_id}
        draft.turn(lease.node_uuid)
    draft.attempts[attempt.key] = attempt
    draft.tasks[place.job_id, place.task_index] = replace(
        task or Task(job_id=place.job_id, index=place.task_index, state=JobState.ACTIVE),
        state=JobState.ACTIVE,
        attempts=number,
    )
    if task is None:
        job = passed(job, place.task_index)
    if job.promised_us is not None:
        if draft.now_us > job.promised_us + PROMISE_SLACK_US:
            late = {"promised_us": job.promised_us, "start_us": draft.now_us}
            draft.emit("job.promise_broken", job.name, late)
        job = replace(job, promised_us=None)
    draft.jobs[job.job_id] = replace(
        job, state=JobState.ACTIVE, reason="", revision=seq, running=job.running + 1
    )

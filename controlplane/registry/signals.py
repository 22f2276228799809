"""Signals to running attempts: the command that sends one, and what nodes report of them.

Each is numbered within its attempt. A node's orders name those that it has not reported as sent;
its supervisor sends each number once, and tells the last one in every report. So neither a lost
nor a repeated call loses or doubles one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest, Overloaded, WrongState
from controlplane.model.job import Attempt, AttemptState, Job, JobState, SentSignal
from controlplane.model.launch import LeaseSignal
from controlplane.model.lease import LeasePhase, WorkerState
from controlplane.model.signals import HANDED_ON_BY_MPIRUN
from controlplane.model.spec import Launcher
from controlplane.registry.which import one_task

if TYPE_CHECKING:
    from collections.abc import Collection

    from controlplane.model.lease import Lease, LeaseStatus
    from controlplane.registry.draft import Draft
    from controlplane.registry.which import Which

MOST_WAITING = 32
"""So many signals of an attempt may wait for its nodes' word; more are refused."""
KEPT = 8
"""So many of those that were delivered last are kept to be shown; events tell of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signalled:
    """What was sent to whom."""

    attempt: str
    """Resource name of the attempt."""
    ranks: tuple[int, ...]
    """The workers that get it, in order."""


def send(draft: Draft, which: Which, name: str, ranks: Collection[int]) -> Signalled:
    """Send the signal of that name to workers of a task, to all that run if `ranks` is empty.

    NotFound, WrongState, InvalidRequest or Overloaded, and nothing sent, when that cannot be.
    """
    job, attempt = _running(draft, which)
    asked = tuple(sorted(set(ranks)))
    _check(job, attempt, name, asked)
    runs = tuple(w.rank for w in attempt.workers if w.state is not WorkerState.ENDED)
    if not asked and len(runs) < len(attempt.workers):
        asked = runs  # a node whose workers have all ended would never report it
    leases = [draft.leases[lease_id] for lease_id in attempt.lease_ids]
    alive = [lease for lease in leases if lease.phase is not LeasePhase.ENDED]
    waiting = [s for s in attempt.signals if any(s.waits_for(lease) for lease in alive)]
    if len(waiting) >= MOST_WAITING:
        raise Overloaded(
            f"{job.name}: {MOST_WAITING} signals wait for its nodes to send them; try again when"
            f" `ccctl show {which.short}` tells that they were delivered"
        )
    over = [s for s in attempt.signals if s not in waiting][-KEPT:]
    sent = SentSignal(
        number=attempt.signals[-1].number + 1 if attempt.signals else 1,
        signal=name,
        ranks=asked,
        principal=draft.actor.principal,
        sent_us=draft.now_us,
    )
    told = {"attempt": attempt.number, "signal": f"SIG{name}"}
    seq = draft.emit("job.signalled", job.name, told | ({"ranks": list(asked)} if asked else {}))
    kept = sorted((*waiting, *over), key=lambda each: each.number)
    draft.attempts[attempt.key] = replace(attempt, signals=(*kept, sent))
    draft.jobs[job.job_id] = replace(job, revision=seq)
    for lease in leases:
        if sent.concerns(lease):
            draft.turn(lease.node_uuid)
    return Signalled(attempt=attempt.name, ranks=asked or runs)


def _running(draft: Draft, which: Which) -> tuple[Job, Attempt]:
    job, task = one_task(draft, which, "no worker of it is left to get a signal")
    if task is None or task.state is JobState.PENDING:
        raise WrongState(f"{which} waits: it has no workers yet that could get a signal")
    attempt = draft.attempts[job.job_id, task.index, task.attempts]
    if attempt.state is AttemptState.STOPPING:
        why = attempt.cause.message if attempt.cause is not None else "it ends"
        raise WrongState(f"{job.name} is being ended, and takes no more signals: {why}")
    if attempt.state is not AttemptState.RUNNING:
        raise WrongState(
            f"{job.name} is being started: its workers do not all run yet; try again when"
            f" `ccctl show {which.short}` tells that its attempt is running"
        )
    return job, attempt


def _check(job: Job, attempt: Attempt, name: str, ranks: tuple[int, ...]) -> None:
    last = len(attempt.workers) - 1
    if wrong := [rank for rank in ranks if not 0 <= rank <= last]:
        words = f"{wrong[0]}: {job.name} has no such rank; its ranks are 0 to {last}"
        raise InvalidRequest(FieldFault(field="ranks", description=words))
    if job.spec.launcher is Launcher.MPI:
        if name not in HANDED_ON_BY_MPIRUN:
            words = f"{name}: mpirun hands only USR1 and USR2 on to the ranks; send one of them"
            raise InvalidRequest(FieldFault(field="signal", description=words))
        if ranks:
            words = f"{ranks[0]}: mpirun hands a signal on to all ranks; name none"
            raise InvalidRequest(FieldFault(field="ranks", description=words))
    over = [w.rank for w in attempt.workers if w.state is WorkerState.ENDED]
    if gone := sorted(set(ranks).intersection(over)):
        raise WrongState(f"rank {gone[0]} of {job.name} has ended, and gets no signal any more")
    if len(over) > last:
        raise WrongState(f"every worker of {job.name} has ended: none is left to get a signal")


def orders(attempt: Attempt, lease: Lease) -> tuple[LeaseSignal, ...]:
    """What a lease's node has still to send, by number."""
    here = range(lease.first_rank, lease.first_rank + lease.workers)
    return tuple(
        LeaseSignal(
            number=sent.number,
            signal=sent.signal,
            ranks=tuple(rank for rank in sent.ranks if rank in here),
        )
        for sent in attempt.signals
        if sent.waits_for(lease)
    )


def take_in(
    draft: Draft, lease: Lease, attempt: Attempt, status: LeaseStatus
) -> tuple[Lease, Attempt]:
    """Note what a node reports of signals and of the warning, each with an event.

    Nodes are told nothing anew: an order that names what was sent already does no harm.
    """
    node = draft.nodes[lease.node_uuid].facts.display_name
    seq = None
    if status.warned_us is not None and attempt.warned_us is None:
        warning = draft.jobs[lease.job_id].spec.signal
        told = {"signal": f"SIG{warning.name}"} if warning is not None else {}
        seq = draft.emit("attempt.warned", attempt.name, {**told, "node": node})
        attempt = replace(attempt, warned_us=status.warned_us)
    if status.signals_done > lease.signals_done:
        waiting = [s for s in attempt.signals if s.waits_for(lease)]
        sent = [f"SIG{s.signal}" for s in waiting if s.number <= status.signals_done]
        seq = draft.emit("signal.delivered", attempt.name, {"signals": sent, "node": node})
        lease = replace(lease, signals_done=status.signals_done)
    if seq is not None:
        draft.leases[lease.lease_id] = lease
        draft.attempts[attempt.key] = attempt
        draft.jobs[lease.job_id] = replace(draft.jobs[lease.job_id], revision=seq)
    return lease, attempt

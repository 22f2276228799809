"""Steps in running jobs: who may be started where, and the events that tell of them.

The database keeps nothing of a step but its events: a step lives no longer than its attempt, and
the node knows what runs. Its number is that of its first event, so that none is given out twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.model.errors import FieldFault, InvalidRequest, WrongState
from controlplane.model.job import Attempt, AttemptState, Job, JobState
from controlplane.model.lease import LeasePhase
from controlplane.registry.which import one_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.model.lease import Lease
    from controlplane.registry.draft import Draft
    from controlplane.registry.store import Store
    from controlplane.registry.which import Which

EVENTS = 1000
"""So many are read at once."""
LONGEST_PROGRAM = 200
"""Characters of a program's name in an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody wants started."""

    job: Which
    """In which job, or task of an array."""
    rank: int | None
    """Beside which worker; None for the first one, of `node` where that is given."""
    node: str
    """Display name or UUID of a node; empty for any."""
    program: str
    """The first word of the command; empty for a shell. Arguments may hold secrets."""
    terminal: bool
    """Whether it gets a terminal."""
    detach: bool
    """Whether it goes on without a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A step that may be started."""

    number: int
    """Its number."""
    attempt: str
    """Resource name of its attempt."""
    rank: int
    """The worker that it is started beside."""
    lease: Lease
    """What it runs under."""
    node_display_name: str
    """Where."""


def place(draft: Draft, wanted: Wanted, check_room: Callable[[Lease, str], None]) -> Placed:
    """Find the place of a step, and write down that it is started.

    NotFound, WrongState or InvalidRequest when there is none, and whatever `check_room` raises.
    """
    job, attempt = _running(draft, wanted.job)
    leases = [draft.leases[lease_id] for lease_id in attempt.lease_ids]
    names = {lease.node_uuid: draft.nodes[lease.node_uuid].facts.display_name for lease in leases}
    lease = _lease(job, leases, names, wanted)
    node = names[lease.node_uuid]
    if lease.phase is LeasePhase.ENDED:
        raise WrongState(f"{job.name} has ended on {node}, and takes no steps there any more")
    check_room(lease, node)
    rank = lease.first_rank if wanted.rank is None else wanted.rank
    told: dict[str, object] = {
        "attempt": attempt.number,
        "rank": rank,
        "node": node,
        "program": wanted.program[:LONGEST_PROGRAM] or "(shell)",
    }
    if wanted.job.task is not None:
        told["task"] = wanted.job.task
    told |= {word: True for word in ("terminal", "detach") if getattr(wanted, word)}
    number = draft.emit("step.started", job.name, told)
    return Placed(
        number=number, attempt=attempt.name, rank=rank, lease=lease, node_display_name=node
    )


def end(
    draft: Draft, job_id: int, number: int, exit_code: int | None, signal: int | None, words: str
) -> None:
    """Write down that a step is over."""
    told: dict[str, object] = {"step": number}
    if exit_code is not None:
        told["exit_code"] = exit_code
    if signal is not None:
        told["signal"] = signal
    if words:
        told["message"] = words[:1000]
    draft.emit("step.ended", f"jobs/{job_id}", told)


def is_over(store: Store, job_id: int, number: int) -> bool:
    """Whether the end of a step is written down, or there was no such step of the job. It reads the
    job's events from the step's first one on."""
    name, after = f"jobs/{job_id}", number - 1
    while events := store.events(name, after=after, limit=EVENTS):
        if after < number and (events[0].seq, events[0].kind) != (number, "step.started"):
            return True
        if any(e.kind == "step.ended" and e.changed.get("step") == number for e in events):
            return True
        after = events[-1].seq
    return after < number


def _running(draft: Draft, which: Which) -> tuple[Job, Attempt]:
    job, task = one_task(draft, which, "a step can be started in a running job alone")
    if task is None or task.state is JobState.PENDING:
        raise WrongState(
            f"{which} is pending: a step can be started once it runs; `ccctl watch {which.job_id}`"
            " tells when"
        )
    attempt = draft.attempts[job.job_id, task.index, task.attempts]
    if attempt.state is not AttemptState.RUNNING:
        raise WrongState(
            f"{which} is {attempt.state}: a step can be started while its attempt is running"
        )
    return job, attempt


def _lease(job: Job, leases: list[Lease], names: dict[str, str], wanted: Wanted) -> Lease:
    if wanted.node:
        for lease in leases:
            if wanted.node in (lease.node_uuid, names[lease.node_uuid]):
                return lease
        words = f"{wanted.node[:80]!r}: {job.name} does not run there; it runs on "
        words += ", ".join(names[lease.node_uuid] for lease in leases)
        raise InvalidRequest(FieldFault(field="node", description=words))
    rank = wanted.rank or 0
    for lease in leases:
        if lease.first_rank <= rank < lease.first_rank + lease.workers:
            return lease
    last = leases[-1].first_rank + leases[-1].workers - 1
    words = f"{rank}: {job.name} has no such rank; its ranks are 0 to {last}"
    raise InvalidRequest(FieldFault(field="rank", description=words))
